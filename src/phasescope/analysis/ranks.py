"""How many singular values count: threshold counts and effective ranks, beside the norm null.

Letters: k singular values s_1 >= s_2 >= ...
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from phasescope.analysis.spectrum import Spectrum, norm_null

# Accuracy of a singular value from float32 products: closer than this to a threshold is on it.
_ON_THRESHOLD = 1e-6


@dataclass(frozen=True)
class RankSummary:
    """Every notion of rank of one spectrum, threshold counts beside what the norms alone give."""

    n_steps: int
    """Number of steps, which no count can exceed."""
    thresholds: tuple[float, ...]
    """Fractions of the largest singular value."""
    counts: tuple[int, ...]
    """Singular values above each threshold."""
    null_counts: tuple[int, ...]
    """The same for `norm_null`: rows with these norms and nothing else in common."""
    participation_ratio: float
    """Dimensionless, from squared singular values."""
    stable_rank: float
    """Dimensionless, from squared singular values."""
    effective_rank: float
    """Dimensionless, from singular values (Roy and Vetterli)."""
    entropy_rank: float
    """Dimensionless, from squared singular values."""
    k90: int
    """Singular values that hold 90 % of the energy."""
    k95: int
    """Singular values that hold 95 % of the energy."""
    k99: int
    """Singular values that hold 99 % of the energy."""
    largest_gap: float
    """Largest ratio of neighbours that reaches between 5 % and 15 % of the largest value."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain numbers and lists, ready for JSON; an infinite gap becomes None."""
        fields = dataclasses.asdict(self)
        for name in ("thresholds", "counts", "null_counts"):
            fields[name] = list(fields[name])
        return fields | {"largest_gap": None if math.isinf(self.largest_gap) else self.largest_gap}


def rank_summary(
    spectrum: Spectrum, thresholds: Sequence[float] = (0.05, 0.1, 0.15)
) -> RankSummary:
    """Counts beside their norm-null counts, effective ranks, energy ranks and the largest gap.

    A count equal to its null count says no more than the norms of the steps do. See `norm_null` for
    when the null itself misleads.

    Args:
        spectrum: From `spectrum`.
        thresholds: Fractions of the largest singular value.

    Returns:
        The numbers, as plain Python values.

    Raises:
        ValueError: The spectrum is zero throughout, or a threshold is negative.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> from phasescope.analysis.spectrum import spectrum
        >>> A = torch.diag(torch.tensor([1, 0.5, 0.25, 0.015625]))
        >>> summary = rank_summary(spectrum(gram(A)))
        >>> summary.counts, summary.null_counts, summary.largest_gap
        ((3, 3, 3), (3, 3, 3), 16.0)
    """
    S, null = spectrum.S, norm_null(spectrum).S
    return RankSummary(
        n_steps=len(spectrum.steps),
        thresholds=tuple(thresholds),
        counts=tuple(count_above(S, t) for t in thresholds),
        null_counts=tuple(count_above(null, t) for t in thresholds),
        participation_ratio=participation_ratio(S),
        stable_rank=stable_rank(S),
        effective_rank=effective_rank(S),
        entropy_rank=entropy_rank(S),
        k90=energy_rank(S, 0.9),
        k95=energy_rank(S, 0.95),
        k99=energy_rank(S, 0.99),
        largest_gap=largest_gap(S),
    )


def count_above(S: Float[Tensor, " k"], threshold: float = 0.1) -> int:
    r"""Number of singular values strictly greater than `threshold` times the largest.

    Values within $10^{-6}$ (relative) of the threshold lie on it, not above it: float32 products
    know them no better.

    It is not a dimension. It grows with the number of steps and with the noise of small batches,
    shrinks when early gradients are much larger than late ones, and cannot exceed the number of
    steps: compare it with the count of `norm_null`.

    Args:
        S: Singular values, any order.
        threshold: Fraction of the largest.

    Returns:
        The count, between 0 and k.

    Raises:
        ValueError: The values are not usable, or the threshold is no share of the largest.

    Example:
        >>> count_above(torch.tensor([1.0, 0.5, 0.1, 0.01]))
        2
    """
    _check(S)
    if not 0 <= threshold <= 1:
        raise ValueError(
            f"threshold must be a fraction between 0 and 1 of the largest value, but {threshold} "
            "arrived. Write 10% as 0.1."
        )
    return int((S.double() > threshold * (1 + _ON_THRESHOLD) * S.double().max()).sum())


def participation_ratio(S: Float[Tensor, " k"]) -> float:
    r"""Participation ratio of the squared singular values.

    $(\sum_i s_i^2)^2 / \sum_i s_i^4$: the number of equal values with the same first two moments,
    between 1 and k, invariant to scaling. For n independent rows of equal norm in P dimensions it
    is about $n / (1 + n/P)$; for a centred random walk 5/2, whatever its length.

    Args:
        S: Singular values, any order.

    Returns:
        Dimensionless.

    Raises:
        ValueError: The values are not usable.

    Example:
        >>> participation_ratio(torch.tensor([3.0, 3.0, 0.0]))
        2.0
    """
    shares = _shares(_check(S) ** 2)
    return float(1 / (shares**2).sum())


def stable_rank(S: Float[Tensor, " k"]) -> float:
    r"""Squared Frobenius norm over squared spectral norm.

    $\sum_i s_i^2 / s_1^2$, between 1 and k, invariant to scaling. It ignores everything about the
    tail but its energy.

    Args:
        S: Singular values, any order.

    Returns:
        Dimensionless.

    Raises:
        ValueError: The values are not usable.

    Example:
        >>> stable_rank(torch.tensor([2.0, 1.0]))
        1.25
    """
    S = _check(S) / S.double().max()
    return float((S**2).sum())


def effective_rank(S: Float[Tensor, " k"]) -> float:
    r"""Effective rank from the entropy of the singular values.

    $\exp(-\sum_i p_i \ln p_i)$ with $p_i = s_i / \sum_j s_j$: the number of equal singular values
    with the same entropy, between 1 and k, invariant to scaling. Uses $s_i$ and not $s_i^2$; see
    `entropy_rank` for the latter. A long tail of noise dominates it.

    Args:
        S: Singular values, any order.

    Returns:
        Dimensionless.

    Raises:
        ValueError: The values are not usable.

    Example:
        >>> round(effective_rank(torch.tensor([2.0, 2.0, 0.0])), 6)
        2.0

    References:
        Roy & Vetterli (2007), "The effective rank: a measure of effective dimensionality", EUSIPCO.
    """
    shares = _shares(_check(S))
    return float(torch.special.entr(shares).sum().exp())


def entropy_rank(S: Float[Tensor, " k"]) -> float:
    r"""Effective rank from the entropy of the squared singular values.

    $\exp(-\sum_i p_i \ln p_i)$ with $p_i = s_i^2 / \sum_j s_j^2$, the shares of energy: less moved
    by a tail of noise than `effective_rank`. Between 1 and k, invariant to scaling.

    Args:
        S: Singular values, any order.

    Returns:
        Dimensionless.

    Raises:
        ValueError: The values are not usable.

    Example:
        >>> round(entropy_rank(torch.tensor([2.0, 2.0, 0.0])), 6)
        2.0
    """
    shares = _shares(_check(S) ** 2)
    return float(torch.special.entr(shares).sum().exp())


def energy_rank(S: Float[Tensor, " k"], share: float) -> int:
    r"""Smallest number of singular values that hold a share of the energy.

    The smallest k with $\sum_{i \le k} s_i^2 \ge \text{share} \cdot \sum_i s_i^2$ (up to rounding),
    the largest first.

    Args:
        S: Singular values, any order.
        share: Fraction of the energy, above 0 and at most 1.

    Returns:
        The number, at least 1.

    Raises:
        ValueError: The values are not usable, or the share is outside (0, 1].

    Example:
        >>> energy_rank(torch.tensor([3.0, 1.0]), 0.9)
        1
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be a fraction in (0, 1], but {share} arrived.")
    held = _shares(_check(S) ** 2).sort(descending=True).values.cumsum(0)
    return int((held < share - 1e-12).sum()) + 1


def largest_gap(S: Float[Tensor, " k"], low: float = 0.05, high: float = 0.15) -> float:
    r"""Largest ratio $s_k / s_{k+1}$ of neighbouring singular values within a band.

    A pair counts if the interval between its two values reaches into the band from `low` to `high`
    times the largest value, so that a gap which spans the whole band is seen. A rank that a
    threshold in the band would reveal shows as a ratio well above 1; a smooth decay stays near 1.

    Args:
        S: Singular values, any order.
        low: Lower end of the band, as a fraction of the largest value.
        high: Upper end of the band.

    Returns:
        Dimensionless: 1 if no pair reaches into the band, infinite if a zero follows.

    Raises:
        ValueError: The values are not usable, or the band is empty.

    Example:
        >>> largest_gap(torch.tensor([1.0, 0.5, 0.03125]))
        16.0
    """
    if not 0 <= low < high:
        raise ValueError(f"the band needs 0 <= low < high, but low={low} and high={high} arrived.")
    S = _check(S).sort(descending=True).values
    upper, lower = S[:-1] / S[0], S[1:] / S[0]
    inside = (upper > low) & (lower < high)
    return float((upper / lower)[inside].max()) if bool(inside.any()) else 1.0


def _check(S: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """The values in float64, if they can be singular values."""
    if len(S) == 0 or not bool((S.isfinite() & (S >= 0)).all()) or not bool((S > 0).any()):
        raise ValueError(
            "singular values must be finite, non-negative and not all zero, but "
            f"{len(S)} values arrived, the first {S[:5].tolist()}. A matrix of zeros has no rank."
        )
    return S.double()


def _shares(values: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    return values / values.sum()
