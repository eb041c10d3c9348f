"""Do two measures put things in the same order: Spearman's correlation, beside permuted orders.

Letters: n things, R permutations.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

_FEWEST = 3
_MOST_EXACT = 7  # 5040 orders: all of them are looked at


@dataclass(frozen=True)
class RankCorrelation:
    """Agreement of two rankings."""

    rho: float
    """Spearman's correlation of ranks, between -1 and 1."""
    low: float | None
    """Lower end of the 95 % interval; None for fewer than ten things, too few for one, and for a
    coefficient of ±1, where it has no width."""
    high: float | None
    """Upper end."""
    p: float
    """Two-sided: probability that a random order agrees or disagrees as much."""
    n: int
    """Number of things ranked."""


def rank_correlation(
    x: Float[Tensor, " n"],
    y: Float[Tensor, " n"],
    *,
    n_permutations: int = 999,
    seed: int = 0,
) -> RankCorrelation:
    r"""Spearman's rank correlation of two measures of the same things.

    The correlation of ranks, equal values sharing their mean rank. The interval is Fisher's
    transformation with the variance $(1 + \rho^2/2)/(n - 3)$, which holds for things drawn at
    random from many; it speaks of things, not of seeds. The p-value is that of random orders: all
    of them up to 7 things, drawn ones beyond, so that it is at least 1 / n! or 1 / (R + 1).

    With four things, such as the heads of a small layer, no order is more surprising than p = 1/12
    (both ways): agreement must come from many runs.

    Args:
        x: First measure.
        y: Second measure.
        n_permutations: Permutations R drawn for more than 7 things.
        seed: Of the permutations.

    Returns:
        Correlation, interval and p-value.

    Raises:
        ValueError: There are fewer than three things, another number of either, values that are not
            finite, or all values of a measure are equal.

    Example:
        >>> found = rank_correlation(torch.tensor([1.0, 2.0, 9.0, 4.0]), torch.arange(4.0))
        >>> round(found.rho, 2), round(found.p, 3)
        (0.8, 0.333)

    References:
        Spearman (1904), "The proof and measurement of association between two things", American
        Journal of Psychology 15(1). Bonett & Wright (2000), "Sample size requirements for
        estimating Pearson, Kendall and Spearman correlations", Psychometrika 65(1), 23-28,
        equation 5 (the variance).
    """
    n = len(x)
    if n < _FEWEST or len(y) != n:
        raise ValueError(
            f"two measures of at least {_FEWEST} things each are required, but {n} and {len(y)} "
            "values arrived."
        )
    ranks = []
    for name, values in (("x", x), ("y", y)):
        if not bool(values.isfinite().all()) or bool((values == values[0]).all()):
            raise ValueError(
                f"a ranking needs finite values that are not all equal, but {name} has values from "
                f"{float(values.min()):.3g} to {float(values.max()):.3g}. Leave out what was not "
                "measured."
            )
        ranks.append(_unit_ranks(values))
    rho = float(ranks[0] @ ranks[1])
    if n <= _MOST_EXACT:
        orders = torch.tensor(list(itertools.permutations(range(n))))
        extra = 0
    else:
        generator = torch.Generator().manual_seed(seed)
        orders = torch.stack(
            [torch.randperm(n, generator=generator) for _ in range(n_permutations)]
        )
        extra = 1  # the observed order is one of them
    null = ranks[1][orders] @ ranks[0]
    as_extreme = int((null.abs() >= abs(rho) - 1e-9).sum())
    low = high = None
    if n >= 10 and abs(rho) < 1 - 1e-12:
        reach = 1.959964 * math.sqrt((1 + rho**2 / 2) / (n - 3))
        centre = math.atanh(rho)
        low, high = math.tanh(centre - reach), math.tanh(centre + reach)
    return RankCorrelation(rho, low, high, (as_extreme + extra) / (len(orders) + extra), n)


def _unit_ranks(values: Tensor) -> Float64[Tensor, " n"]:
    """Ranks, ties sharing their mean, centred and of norm one."""
    _, inverse, counts = values.double().unique(return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    ranks = (ends - (counts.double() - 1) / 2)[inverse]
    centred = ranks - ranks.mean()
    return centred / centred.norm()
