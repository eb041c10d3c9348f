"""How far a matrix moves along the directions of any orthonormal basis.

Letters: k directions, T checkpoints, a entries of the axis, b all others.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from phasescope.analysis.columns import StepMatrix, source
from phasescope.parameters import ParameterTable


def direction_changes(
    weights: StepMatrix,
    tensor: str,
    basis: Float[Tensor, "k a"],
    *,
    axis: int,
    table: ParameterTable | None = None,
) -> Float64[Tensor, "k changes"]:
    r"""Change of one tensor between checkpoints, divided among directions of one of its axes.

    Entry (i, t) is $\|u_i^\top (W_{t+1} - W_t)\|$, the direction $u_i$ contracted with `axis`.
    The basis may be singular vectors of a matrix, principal components of activations (of the axis
    that reads them), Fourier vectors over tokens, or the coordinates themselves: squares over a
    complete basis add up to the squared change of the tensor whichever it is. Groups, such as the
    cosine and sine of a frequency or the directions of a cluster, are sums of squares.

    Args:
        weights: Checkpoints × parameters; its `parameters` are used if it has them.
        tensor: Name of the tensor.
        basis: Orthonormal rows over the axis.
        axis: The axis that the directions live in.
        table: Which columns the tensor is, where the matrix does not know.

    Returns:
        Changes, on the CPU.

    Raises:
        ValueError: There is no table, the axis does not fit the basis, or its rows are not
            orthonormal.

    Example:
        >>> table = ParameterTable(("W",), ((2, 2),))
        >>> w = torch.tensor([[0.0, 0.0, 0.0, 0.0], [3.0, 4.0, 0.0, 0.0]])
        >>> direction_changes(w, "W", torch.eye(2), axis=0, table=table)
        tensor([[5.],
                [0.]], dtype=torch.float64)
    """
    table = getattr(weights, "parameters", None) if table is None else table
    if table is None:
        raise ValueError(
            "which columns are the tensor's is not known: this matrix has no parameter table. Pass "
            "table=ps.ParameterTable.from_module(model)."
        )
    matrix = source(weights, "cpu", torch.float64)
    start, stop = table.interval(tensor)
    shape = table.shapes[table.names.index(tensor)]
    if not -len(shape) <= axis < len(shape) or shape[axis] != basis.shape[1]:
        raise ValueError(
            f"the basis must have the length of axis {axis} of {tensor!r}, whose shape is {shape}, "
            f"but its rows have {basis.shape[1]} entries."
        )
    U = basis.detach().cpu().double()
    gap = float((U @ U.T - torch.eye(len(U), dtype=torch.float64)).abs().max())
    if gap > 8 * torch.finfo(basis.dtype).eps * len(U):
        raise ValueError(
            f"the rows of a basis must be orthonormal, but an inner product is off by {gap:.2g}. "
            "torch.linalg.qr makes any independent vectors so."
        )
    found, before = [], None
    for t in range(matrix.n_steps):
        row = matrix.A[t : t + 1, start:stop]
        row = torch.from_numpy(np.asarray(row)) if not isinstance(row, Tensor) else row
        now = row.detach().cpu().double().view(shape).movedim(axis, 0)
        now = now.reshape(len(now), -1)
        if before is not None:
            found.append((U @ (now - before)).norm(dim=1))
        before = now
    return torch.stack(found, 1) if found else U.new_zeros(len(U), 0)
