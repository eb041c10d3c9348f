"""Coordinates of a trajectory in a subspace of the parameters, in one pass over the columns.

Letters: T steps (rows), P parameters (columns), k directions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from phasescope.analysis.columns import StepMatrix, source
from phasescope.analysis.products import SUB_BLOCK, full_precision
from phasescope.components.subspace import Subspace


@dataclass(frozen=True, eq=False)
class Projection:
    """Coordinates of every step in a subspace: a steps × k matrix that `gram` takes as it is."""

    values: Float[Tensor, "T k"]
    """Coordinates; their products are those of the projected rows."""
    steps: Int64[Tensor, " T"]
    """Step of every row, strictly increasing."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of steps and of directions."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Of the coordinates."""
        return self.values.dtype

    def __getitem__(self, key: Any, /) -> Tensor:
        """Rows and columns of the coordinates."""
        return self.values[key]


def project(
    A: StepMatrix,
    subspace: Subspace,
    *,
    dtype: torch.dtype | None = None,
    memory: int = 400_000_000,
    device: torch.device | str | None = None,
    progress: Callable[[float], None] | None = None,
) -> Projection:
    r"""Coordinates $A B^\top$ of a steps × parameters matrix in the basis B of a subspace.

    The rows are neither centred nor normalised. Blocks of 4096 columns are multiplied in float32
    (float64 for float64 input) and added up in float64. Because the basis is orthonormal,
    ``gram(project(A, subspace))`` is the Gram matrix of the part of the trajectory in the subspace.

    Args:
        A: Steps × parameters; a tensor, NumPy array, memmap, Zarr array or a run's series. Its
            `steps` are kept if it has them.
        subspace: Directions in the same parameters.
        dtype: Of the products: `torch.float32` or `torch.float64`; by default float64 for float64
            input, else float32.
        memory: Bytes for the column blocks of matrix and basis.
        device: Where the products run; by default where a tensor lies, else the CPU.
        progress: Called after every block with the fraction that is done.

    Returns:
        Coordinates in float64 and steps, on the CPU.

    Raises:
        TypeError: The values are not real floating point numbers.
        ValueError: The matrix is empty, not 2-D or not finite, its columns are not those of the
            basis, or `memory` is too small.

    Example:
        >>> line = Subspace.spanned_by("line", torch.tensor([[3.0, 4.0]]))
        >>> project(torch.tensor([[3.0, 4.0], [4.0, -3.0]]), line).values.round(decimals=5) + 0.0
        tensor([[5.],
                [0.]], dtype=torch.float64)
    """
    matrix = source(A, device, dtype)
    k, P = subspace.basis.shape
    if matrix.n_columns != P:
        raise ValueError(
            f"the matrix must have the {P} columns of the basis of {subspace.name!r}, but it has "
            f"{matrix.n_columns}. Take both from the same model."
        )
    wide = torch.float32 if matrix.device.type == "mps" else torch.float64
    values = torch.zeros(matrix.n_steps, k, dtype=wide, device=matrix.device)
    # The basis is taken to the device block by block; k of its rows are like k more steps.
    share = max(1, memory * matrix.n_steps // (matrix.n_steps + 2 * k))
    width = matrix.width(share, reserved=2 * values.nbytes)
    with full_precision():
        for start, X in matrix.blocks(width):
            basis = subspace.basis[:, start : start + width].to(matrix.device, matrix.dtype)
            for columns, directions in zip(
                X.split(SUB_BLOCK, dim=1), basis.split(SUB_BLOCK, dim=1), strict=True
            ):
                values += columns @ directions.T
            if progress is not None:
                progress(min(start + width, P) / P)
    if not bool(values.isfinite().all()):
        row = int((~values.isfinite().all(1)).nonzero()[0])
        raise ValueError(
            f"every value must be finite, but those of step {int(matrix.steps[row])} (row {row}) "
            "are not, or their products overflow. Leave this step out."
        )
    return Projection(values.double().cpu(), matrix.steps)
