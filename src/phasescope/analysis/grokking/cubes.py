"""How much of the logits is cos(w(a + b − c)), for every frequency.

Letters: a, b, c places of the operands and the result; n places of a group; k frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from phasescope.analysis.grokking.basis import FourierBasis, by_frequency, check_axes
from phasescope.analysis.grokking.sums import on_sums, sum_profile


@dataclass(frozen=True, eq=False)
class CubeFit:
    """Logits as a sum of waves in a + b − c."""

    coefficients: Float64[Tensor, " k"]
    """Inner product of the logits with the cosine of every frequency, normalised to 1 over all n³
    triples; for frequency 0 with the constant."""
    sine_coefficients: Float64[Tensor, " k"]
    """The same for the sines, which a network that adds does not use: a control."""
    cosine_similarity: Float64[Tensor, " k"]
    """Coefficients over the norm of all logits."""
    fve: float
    """Share of the variance of all logits that the cosines explain together; NaN without any."""
    residual: float
    """Norm of what the cosines leave, the constant included, over the norm of all logits; NaN if
    all of them are 0."""

    def fve_of(self, frequencies: Sequence[int]) -> float:
        """Share of the variance of all logits that some frequencies' cosines explain.

        Args:
            frequencies: Their numbers, from 1 up.

        Raises:
            ValueError: A frequency does not exist, or is that of the constant.
        """
        squares, chosen = self.coefficients[1:].square(), sorted(set(frequencies))
        if not all(1 <= k <= len(squares) for k in chosen):
            raise ValueError(
                f"frequencies must lie from 1 to {len(squares)}, but {chosen} arrived. The "
                "constant, frequency 0, is no part of the variance."
            )
        return self.fve * (squares[[k - 1 for k in chosen]].sum() / squares.sum()).item()


def cube_fit(basis: FourierBasis, logits: Float[Tensor, "n n n"]) -> CubeFit:
    r"""Coefficients of the logits along cos(w_k(a + b − c)), for all frequencies at once.

    The waves of different k are orthogonal over all triples, so these projections are the least
    squares fit. Only sums over triples of equal a + b − c are needed, n³ additions; no wave is ever
    written out. Raw waves have the norm $\sqrt{n^3/2}$: logits
    $\sum_k \alpha_k \cos(w_k(a+b-c))$ have the coefficients $\alpha_k\sqrt{n^3/2}$.

    Args:
        basis: Basis of the group.
        logits: For all pairs and results, in the order of the places (`Coordinates.on_logits`), so
            that the right result of every pair is c = a + b.

    Returns:
        Coefficients and how well they explain the logits.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((5,))
        >>> wave = basis.rows[1][basis.differences[basis.sums]]
        >>> fit = cube_fit(basis, wave)
        >>> [round(x, 6) + 0.0 for x in fit.coefficients.tolist()], round(fit.fve, 6)
        ([0.0, 5.0, 0.0], 1.0)

    References:
        Nanda et al. (2023), arXiv:2301.05217, sections 4.1 and C.1.
    """
    check_axes(basis, logits, 3)
    n = len(basis)
    rows, values = basis.rows.to(logits.device), logits.double()
    profile = sum_profile(basis, values)
    components = rows @ _over_differences(basis, profile)  # the sums over all triples, over n
    cosines = components * _is_cosine(basis).to(logits.device)
    coefficients = by_frequency(basis, cosines)
    mean = (coefficients[0] / n**1.5).item()
    fitted = (rows.T @ cosines / n)[basis.differences.to(logits.device)]  # [s, c], mean included
    left = (values - on_sums(basis, fitted)).square().sum().item()
    energy = values.square().sum().item()
    variation = (values - mean).square().sum().item()
    return CubeFit(
        coefficients=coefficients,
        sine_coefficients=by_frequency(basis, components) - coefficients,
        cosine_similarity=coefficients / energy**0.5,
        fve=1 - left / variation if variation > 1e-24 * energy else math.nan,
        residual=((left + n**3 * mean**2) / energy) ** 0.5 if energy > 0 else math.nan,
    )


def without_cubes(
    basis: FourierBasis, logits: Float[Tensor, "n n n"], frequencies: Sequence[int]
) -> Float64[Tensor, "n n n"]:
    """Logits without their part along cos(w_k(a + b − c)): the three-dimensional ablation.

    Args:
        basis: Basis of the group.
        logits: In the order of the places.
        frequencies: Which ones to take out.

    Returns:
        The remaining logits.

    Raises:
        ValueError: A frequency does not exist.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((5,))
        >>> wave = basis.rows[1][basis.differences[basis.sums]]
        >>> without_cubes(basis, wave, [1]).abs().max().item() < 1e-12
        True
    """
    coefficients = cube_fit(basis, logits).coefficients
    n = len(basis)
    rows = basis.rows_of(frequencies)
    rows = rows[_is_cosine(basis)[rows]]
    wave = coefficients[basis.frequency[rows]] @ basis.rows.to(logits.device)[rows] / n
    offsets = basis.differences[basis.sums].to(logits.device)  # a + b − c
    return logits.double() - wave[offsets]


def _is_cosine(basis: FourierBasis) -> Tensor:
    """Whether a row is the first of its frequency: the cosine, or a character alone."""
    first = torch.ones(len(basis), dtype=torch.bool)
    first[1:] = basis.frequency[1:] != basis.frequency[:-1]
    return first


def _over_differences(basis: FourierBasis, profile: Tensor) -> Tensor:
    """Sum of a matrix [s, c] over all entries of equal s − c."""
    out = torch.zeros(len(basis), dtype=torch.float64, device=profile.device)
    return out.index_add_(0, basis.differences.flatten().to(profile.device), profile.flatten())
