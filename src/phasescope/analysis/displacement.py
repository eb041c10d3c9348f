"""How the distance of two points of a path grows with the steps between them.

Letters: T points, L bins of lags, D draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from phasescope.analysis.gram import Gram
from phasescope.analysis.p_values import two_sided_p
from phasescope.analysis.paths import increment_gram
from phasescope.analysis.selection import Steps, select_steps

_BINS_PER_DOUBLING = 2


@dataclass(frozen=True, eq=False)
class MeanSquaredDisplacement:
    """Mean squared distance of points τ steps apart, and the exponent with which it grows."""

    lags: Float64[Tensor, " L"]
    """Mean lag of every bin, in steps."""
    values: Float64[Tensor, " L"]
    """Mean squared distance of the pairs of the bin."""
    n_pairs: Int64[Tensor, " L"]
    """Pairs of points in the bin; they overlap, so they are not independent."""
    exponent: float
    """Its power of the lag; 1 is diffusive, 2 ballistic, 0 noise around a point."""
    walk_exponents: Float64[Tensor, " D"]
    """The same of walks made of the path's own increments with random signs."""
    p_value: float
    """Two-sided, of the exponent among those of the walks; NaN without draws."""


def mean_squared_displacement(
    gram: Gram,
    *,
    steps: Steps | None = None,
    max_lag: float = 0.25,
    n_draws: int = 199,
    seed: int = 0,
) -> MeanSquaredDisplacement:
    r"""Mean squared displacement of a path of weights and its exponent, beside walks.

    Pairs of points are binned by their lag, half a doubling to a bin. The exponent is the α for
    which the mean squared distances of the bins, over the means of $\tau^\alpha$ of the same pairs,
    do not depend on the lag, by least squares of logarithms: so a straight line has exactly 2
    however its points are spaced, which changes between checkpoints do not give. The walks
    take the path's own increments in their order, each with a random sign, so learning rates,
    schedules and spacing are kept: a walk whose steps grow has an exponent above 1 too, and the
    p-value knows it.

    Args:
        gram: Of the points of the path, or of a component (``gram.components["l0h1"]``), with
            float64 products.
        steps: Points to use, by step (see `spectrum`).
        max_lag: Longest lag, as a share of the steps from first to last: longer ones have few
            pairs, which all overlap.
        n_draws: Walks; 0 for none.
        seed: Of the walks.

    Returns:
        Displacements by lag, exponent and its null.

    Raises:
        ValueError: There are fewer than eight points, fewer than two lag bins, nothing moves, or
            increments are lost in rounding.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> line = torch.arange(40.0)[:, None] * torch.ones(1, 5)
        >>> round(mean_squared_displacement(gram(line, dtype=torch.float64)).exponent, 6)
        2.0

    References:
        Cooper (2018), arXiv:1803.09704 and Feng & Tu (2021), PNAS 118 (9), e2015617118 (diffusion
        of weights under SGD).
    """
    rows = select_steps(gram.steps, steps).sort().values
    if len(rows) < 8:
        raise ValueError(
            f"an exponent needs at least 8 points, but {len(rows)} arrived. Record or select more."
        )
    increments = increment_gram(gram, steps=gram.steps[rows].tolist()).K
    t = gram.steps[rows].double()
    upper = torch.triu_indices(len(t), len(t), 1)
    lags = t[upper[1]] - t[upper[0]]
    used = lags <= max(max_lag * float(t[-1] - t[0]), float(t.diff().min()))
    pairs, lags = upper[:, used], lags[used]
    bins = ((lags.log2() - lags.log2().min() + 1e-9) * _BINS_PER_DOUBLING).long()
    _, bins = bins.unique(return_inverse=True)
    counts = torch.bincount(bins)
    if len(counts) < 2:
        raise ValueError(
            f"an exponent needs at least two lags, but max_lag={max_lag} leaves {len(counts)} of "
            f"{len(t)} points. Raise it, or select more points."
        )

    def mean(values: Tensor) -> Tensor:
        return torch.zeros(len(counts), dtype=torch.float64).index_add_(0, bins, values) / counts

    def exponent(K: Tensor) -> tuple[float, Tensor]:
        means = mean(_squares(K, pairs).clamp(min=0))
        return _slope(means, lambda alpha: mean(lags**alpha)), means

    alpha, values = exponent(increments)
    generator = torch.Generator().manual_seed(seed)
    draws = []
    for _ in range(n_draws):
        signs = torch.randint(0, 2, (len(increments),), generator=generator).double() * 2 - 1
        draws.append(exponent(increments * signs * signs[:, None])[0])
    walks = torch.tensor(draws, dtype=torch.float64)
    p = float("nan")
    if len(walks) > 1:
        p = float(two_sided_p(torch.tensor([alpha], dtype=torch.float64), walks[None]))
    return MeanSquaredDisplacement(
        lags=mean(lags),
        values=values,
        n_pairs=counts,
        exponent=alpha,
        walk_exponents=walks,
        p_value=p,
    )


def _slope(means: Tensor, powers: Callable[[float], Tensor]) -> float:
    """The exponent at which means over powers of the lags are level, as a fixed point."""
    y = means.clamp(min=1e-300).log()
    alpha = 1.0
    for _ in range(50):
        safe = alpha if abs(alpha) > 1e-3 else 1e-3
        x = powers(safe).log() / safe
        x = x - x.mean()
        before, alpha = alpha, float((x * y).sum() / (x * x).sum())
        if abs(alpha - before) < 1e-12:
            break
    return alpha


def _squares(K: Tensor, pairs: Tensor) -> Float64[Tensor, " pairs"]:
    """Squared distances of pairs of points, from the inner products of increments."""
    # Sums over squares of the matrix: increments are small, so nothing cancels as points would.
    table = torch.from_numpy(np.pad(K.numpy(), ((1, 0), (1, 0)))).cumsum(0).cumsum(1)
    s, t = pairs
    return table[t, t] - table[s, t] - table[t, s] + table[s, s]
