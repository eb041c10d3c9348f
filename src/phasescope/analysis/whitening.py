"""The trajectory in units of its noise: what formulas for noise of one variance need.

Letters: T steps (rows), P parameters (columns), k components.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from phasescope.analysis.columns import StepMatrix, chunk_columns, source
from phasescope.analysis.flips import row_variances
from phasescope.analysis.gram import Gram, gram
from phasescope.analysis.products import SUB_BLOCK
from phasescope.analysis.selection import select_steps
from phasescope.analysis.spectrum import Spectrum, check_resolved, check_time_vectors

# A variance below this share of the mean square is what rounding left of a constant.
_ROUNDING = 1e-12


def whitened_gram(
    A: StepMatrix,
    spectrum: Spectrum,
    k: int,
    *,
    memory: int = 400_000_000,
    progress: Callable[[float], None] | None = None,
) -> Gram:
    r"""Gram matrix of a trajectory whose noise has variance one in every entry, in two passes.

    Noise of separable variance $\sigma^2_{tp} = a_t^2 \sigma_p^2$ is divided by $a_t \sigma_p$:
    then `located_components`, `edge_p_values` and `gavish_donoho`, which hold for one variance
    only, apply with ``sigma=1``. The variances are those of what the first k components and the
    mean over steps leave, so that signal does not count as noise; k comes from `flip_rank_test`.
    Parameters that never change are left out: `n_columns` is the number of the others.

    Vectors and strengths are then those of the whitened trajectory, in which quiet parameters weigh
    as much as loud ones. A variance is known from T - 1 - k values only, so with few steps the edge
    of the whitened noise moves (by less than its fluctuation from about 50 steps on). Noise that is
    correlated between parameters stays correlated.

    Args:
        A: The matrix that the spectrum came from; rows of other steps are ignored.
        spectrum: With time vectors, centred over "steps" or not at all.
        k: Components that are signal; 0 for none.
        memory: Bytes for the buffers of each pass. 16 P bytes for the variances come on top.
        progress: Called after every block with the fraction that is done.

    Returns:
        Of the spectrum's steps, for `spectrum` with its centring and without normalising.

    Raises:
        ValueError: The matrix is not the spectrum's, the spectrum is centred over parameters or
            has no time vectors, k components and the mean leave fewer than two steps, or no
            parameter changes.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> from phasescope.analysis.spectrum import spectrum
        >>> generator = torch.Generator().manual_seed(0)
        >>> sigma = torch.exp(torch.randn(5000, generator=generator))
        >>> A = torch.randn(60, 5000, generator=generator) * sigma
        >>> plain = spectrum(gram(A), center="steps")
        >>> white = spectrum(whitened_gram(A, plain, 0), center="steps")
        >>> round(float(white.S[0]) / (5000**0.5 + 59**0.5), 1)  # the edge of noise
        1.0

    References:
        Hong, Yang, Fessler & Balzano (2023), "Optimally weighted PCA for high-dimensional
        heteroscedastic data", SIAM J. Math. Data Sci. 5 (why noise must be equal first).
    """
    directions = _directions(spectrum, k)
    matrix = source(A, "cpu")
    rows = select_steps(matrix.steps, spectrum.steps)
    if matrix.n_columns != spectrum.n_columns:
        raise ValueError(
            f"A must be the matrix that the spectrum came from, with {spectrum.n_columns} columns, "
            f"but it has {matrix.n_columns}. Pass the same matrix to both."
        )

    def report(first: float) -> Callable[[float], None]:
        return lambda done: None if progress is None else progress(first + done / 2)

    scale = 1 / spectrum.centered_norms if spectrum.normalize else None
    inverse = torch.zeros(matrix.n_columns, dtype=torch.float64)
    width = matrix.width(memory, reserved=3 * 8 * len(rows) * min(SUB_BLOCK, matrix.n_columns))
    n = len(rows) - directions.shape[1]
    for start, block in matrix.blocks(width):
        for first in range(0, block.shape[1], SUB_BLOCK):
            X = block[:, first : first + SUB_BLOCK][rows].double()
            if scale is not None:
                X *= scale[:, None]
            square = (X**2).mean(0)
            X -= directions @ (directions.T @ X)
            variance = (X**2).sum(0) / n
            found = torch.where(variance > _ROUNDING * square, variance.rsqrt(), 0.0)
            inverse[start + first : start + first + X.shape[1]] = found
        report(0.0)(min(start + width, matrix.n_columns) / matrix.n_columns)
    n_live = int((inverse > 0).sum())
    if n_live == 0:
        raise ValueError(
            "at least one parameter must change between steps beyond its components, but none "
            "does. Check that training went on, and that k is not the whole rank."
        )
    scaled: Any = _ScaledColumns(A, inverse, rows, scale)
    white = gram(scaled, dtype=matrix.dtype, memory=memory // 2, progress=report(0.5))
    noise = (row_variances(white.K, directions) / n_live).sqrt()
    K = white.K / noise / noise[:, None]
    steps = matrix.steps[rows]
    return replace(white, K=K, steps=steps, row_sums=white.row_sums / noise, n_columns=n_live)


def _directions(spectrum: Spectrum, k: int) -> Float64[Tensor, "T q"]:
    """Orthonormal directions in time that hold the mean, if it is subtracted, and the signal."""
    T, centered = len(spectrum.steps), spectrum.center == "steps"
    if spectrum.center in ("parameters", "both"):
        raise ValueError(
            "whitening needs a spectrum centred over 'steps' or not at all, but this one has "
            f"center={spectrum.center!r}: a mean over parameters of unequal noise means nothing."
        )
    if k:
        check_time_vectors(spectrum)
        check_resolved(spectrum, k)
    if not 0 <= k <= T - centered - 2:
        raise ValueError(
            f"variances need at least two steps beyond the k={k} components"
            f"{' and the mean' if centered else ''}, but there are {T} steps in all. Take fewer "
            "components or more steps."
        )
    W = spectrum.time_vectors[:, :k]
    if not centered:
        return W
    return torch.cat([torch.full((T, 1), T**-0.5, dtype=torch.float64), W], dim=1)


class _ScaledColumns:
    """Rows and columns of a matrix, each with a factor, read through to the matrix itself."""

    def __init__(
        self, A: Any, columns: Tensor, rows: Tensor, scale: Float64[Tensor, " T"] | None
    ) -> None:
        self._A, self._columns, self._scale = A, columns.numpy(), scale
        self._rows = rows.numpy()
        self.shape = (len(rows), len(columns))
        self.dtype = np.dtype(np.float64)
        self.chunk_columns = chunk_columns(A)

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        which, columns = key
        part = self._A[:, columns]
        part = part.detach().cpu().double() if isinstance(part, Tensor) else part
        values = np.asarray(part, dtype=np.float64)[self._rows[which]] * self._columns[columns]
        if self._scale is not None:
            values *= self._scale.numpy()[which, None]
        return values
