"""The size of every parameter over the steps, in one or two passes over the matrix.

Letters: T steps (rows), P parameters (columns).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from phasescope.analysis.columns import Source, StepMatrix, source
from phasescope.analysis.products import SUB_BLOCK
from phasescope.analysis.selection import select_steps
from phasescope.analysis.spectrum import Spectrum


def parameter_variances(
    A: StepMatrix, spectrum: Spectrum, *, memory: int = 400_000_000
) -> Float32[Tensor, " P"]:
    r"""Mean square of every parameter over the steps of a spectrum, scaled and centred like it.

    $\frac{1}{n} \sum_t A'^2_{tp}$ with n = T - 1 if the mean over steps was subtracted, else T:
    unbiased for noise. Centring over parameters is left out (it changes a variance by 1/P). What
    `noise_edges` takes; since signal counts as variance here, it errs on the high side. From T
    steps each is known to a factor of about $1 \pm \sqrt{2/T}$.

    Args:
        A: The matrix that the spectrum came from; rows of other steps are ignored.
        spectrum: Its steps, centring and normalisation are used.
        memory: Bytes for the buffers of the pass. The result, 4 P bytes, comes on top.

    Returns:
        One variance for each parameter, on the CPU.

    Raises:
        ValueError: The matrix is not the spectrum's, or a single step was centred.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> from phasescope.analysis.spectrum import spectrum
        >>> A = torch.tensor([[1.0, 0.0], [3.0, 2.0]])
        >>> parameter_variances(A, spectrum(gram(A), center="steps"))
        tensor([2., 2.])
    """
    matrix = source(A, "cpu")
    rows = select_steps(matrix.steps, spectrum.steps)
    if matrix.n_columns != spectrum.n_columns:
        raise ValueError(
            f"A must be the matrix that the spectrum came from, with {spectrum.n_columns} columns, "
            f"but it has {matrix.n_columns}. Pass the same matrix to both."
        )
    centered = spectrum.center in ("steps", "both")
    n = len(rows) - centered
    if n < 1:
        raise ValueError(
            "variances around the mean need at least two steps, but the spectrum has one. Select "
            "more steps."
        )
    variances = torch.empty(matrix.n_columns)
    sub_block = min(SUB_BLOCK, matrix.n_columns)
    width = matrix.width(memory, reserved=2 * 8 * len(rows) * sub_block)
    for start, block in matrix.blocks(width):
        for first in range(0, block.shape[1], sub_block):
            X = block[:, first : first + sub_block][rows].double()
            if spectrum.normalize:
                X /= spectrum.centered_norms[:, None]
            if centered:
                X -= X.mean(0)
            variances[start + first : start + first + X.shape[1]] = (X**2).sum(0) / n
    return variances


def equalizing_factors(
    matrix: Source, rows: Int64[Tensor, " n"], *, normalize: bool, memory: int
) -> Float[Tensor, " P"]:
    """One over the root mean square of every parameter over some rows; 0 where that is zero.

    Args:
        matrix: The source.
        rows: Row numbers.
        normalize: Whether rows are first divided by their norms, which takes a pass of its own.
        memory: Bytes for the buffers of a pass.

    Returns:
        Factors on the source's device. Their product with the columns has root mean square one.
    """
    width = matrix.width(memory, reserved=2 * len(rows) * min(SUB_BLOCK, matrix.n_columns) * 8)
    scale = torch.ones(len(rows), dtype=torch.float64)
    if normalize:
        squares = torch.zeros(len(rows), dtype=torch.float64)
        for _, block in matrix.blocks(width):
            for part in block.split(SUB_BLOCK, dim=1):
                squares += part[rows.to(block.device)].square().sum(1).to(squares)
        scale = torch.where(squares > 0, squares.rsqrt(), 0.0)
    weights = scale[:, None].to(matrix.device, matrix.dtype)
    factors = torch.empty(matrix.n_columns, dtype=matrix.dtype, device=matrix.device)
    for start, block in matrix.blocks(width):
        for first in range(0, block.shape[1], SUB_BLOCK):
            X = block[:, first : first + SUB_BLOCK][rows.to(block.device)] * weights
            means = X.square().mean(0).sqrt()
            found = torch.where(means > 0, 1 / means, 0.0)
            factors[start + first : start + first + X.shape[1]] = found
    return factors
