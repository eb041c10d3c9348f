"""Plateaus and S-curves of a loss: where it stands still, and how sharply it falls afterwards.

Axes: batch (such as seeds), time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from phasescope.analysis.turning import turning_points

_SLOWEST = 1e-6  # of the fastest rate: what a loss that stands still or rises counts as


@dataclass(frozen=True, eq=False)
class SCurves:
    """Plateau and S-shape of every loss curve of a batch."""

    s_ratio: Float[Tensor, "*batch"]
    """Largest factor by which the rate rises, at most 1e6; 1 says that there is no plateau."""
    plateau_length: Float[Tensor, "*batch"]
    """Time before the end of that rise during which the rate is below a tenth of what it reaches.
    """
    n_rises: Int64[Tensor, "*batch"]
    """How often the rate rises by the factor 2 or more between slower stretches: the number of S's.
    """
    plateau: Bool[Tensor, "*batch time"]
    """Whether each time belongs to that plateau."""
    rates: Float[Tensor, "*batch time"]
    """Rate -d ln L / dt from each time to the next; NaN where it was not used."""


def s_curves(
    loss: Float[Tensor, "*batch time"],
    times: Float[Tensor, " time"],
    *,
    window: int = 1,
    floor: float = 1e-2,
    slow: float = 0.1,
    rise: float = 2.0,
) -> SCurves:
    r"""Plateau length, S-ratio and number of S's of each loss curve.

    The rate is $r(t) = -\frac{d \ln L}{dt}$, over `window` steps of the series. The S-ratio is
    $\max_{t_1 \le t_2} r(t_2) / r(t_1)$: the fastest rate over the slowest one before it, wherever
    in the curve; how fast the loss falls at the very start does not enter. An exponential has 1,
    and so has every curve that only slows down. Only the part of a curve before it first falls to
    `floor` of its first value counts: below it the rate is that of the last exponential, or of
    rounding.

    It misleads when the loss oscillates: each rise of the loss is a rate of zero, so an S-ratio of
    1e6 may be a single step upwards; take a larger `window`, and look at `n_rises`.

    Args:
        loss: Losses; positive until they reach the floor.
        times: Their times, increasing.
        window: Steps of the series over which each rate is taken.
        floor: Share of the first loss at which a curve ends.
        slow: Share of the rate reached below which the loss counts as standing still.
        rise: Factor by which the rate must rise to count as an S.

    Returns:
        The statistics; NaN for curves that are not finite where they count.

    Raises:
        ValueError: If there are fewer than two times, one per loss is missing, or the window does
            not fit.

    Example:
        >>> t = torch.linspace(0, 10, 201).double()
        >>> curve = s_curves((-t).exp(), t)
        >>> round(curve.s_ratio.item(), 6), curve.n_rises.item()
        (1.0, 0)
    """
    loss, times = torch.as_tensor(loss), torch.as_tensor(times)
    n = loss.shape[-1]
    if n != len(times) or not 1 <= window < n:
        raise ValueError(
            f"one time per loss and a window shorter than the series are needed, but there are {n} "
            f"losses, {len(times)} times and a window of {window}."
        )
    loss, times = loss.double(), times.to(loss.device).double()
    reached = (loss <= floor * loss[..., :1]).int().cummax(-1).values.bool()
    # A rate belongs to a time and the one `window` later: used up to the first one at the floor.
    used = ~reached[..., :-window]
    spans = times[window:] - times[:-window]
    rates = (loss[..., :-window].log() - loss[..., window:].log()) / spans
    # The last one is infinite where the loss is 0 at the floor.
    used &= ~(reached[..., window:] & ~rates.isfinite())
    sound = (rates.isfinite() | ~used).all(-1) & used.any(-1)
    rates = torch.where(used, rates, -math.inf)
    fastest = rates.amax(-1, keepdim=True)
    # A loss that never falls has one rate, of whatever size.
    clamped = torch.where(fastest > 0, rates.maximum(_SLOWEST * fastest), 1.0)
    slowest = torch.where(used, clamped, math.inf).cummin(-1).values
    s_ratio, place = torch.where(used, clamped / slowest, 0.0).max(-1)
    reached_rate = clamped.gather(-1, place.unsqueeze(-1))
    index = torch.arange(rates.shape[-1], device=loss.device)
    plateau = (index < place.unsqueeze(-1)) & used & (rates < slow * reached_rate)
    steps = torch.diff(times)[: rates.shape[-1]]
    logs = torch.where(used, clamped.log(), math.nan)
    missing = torch.tensor(math.nan, dtype=torch.float64, device=loss.device)
    shape = rates.shape[:-1]
    padding = torch.zeros((*shape, window), dtype=torch.bool, device=loss.device)
    return SCurves(
        s_ratio=torch.where(sound, s_ratio, missing),
        plateau_length=torch.where(sound, (plateau * steps).sum(-1), missing),
        n_rises=_count_rises(logs, math.log(rise)),
        plateau=torch.cat([plateau, padding], -1),
        rates=torch.cat(
            [torch.where(used, rates, math.nan), padding.double().masked_fill(~padding, math.nan)],
            -1,
        ),
    )


def _count_rises(logs: Float[Tensor, "*batch time"], threshold: float) -> Int64[Tensor, "*batch"]:
    """How often each series rises by the threshold or more; series end at their first NaN."""
    flat = logs.reshape(-1, logs.shape[-1])
    # The last value that counts is repeated: a constant end adds no turn.
    last = (~flat.isnan()).sum(-1, keepdim=True).clamp(min=1) - 1
    index = torch.arange(flat.shape[-1], device=flat.device).minimum(last)
    turns = turning_points(flat.gather(-1, index).nan_to_num(), threshold)
    # Every trough is followed by a rise, unless the series ends in it.
    ups = turns.is_trough & ~turns.is_end
    counts = torch.zeros(len(flat), dtype=torch.int64, device=flat.device)
    counts.index_add_(0, turns.series[ups], torch.ones_like(turns.series[ups]))
    return counts.view(logs.shape[:-1])


def first_crossing(
    values: Float[Tensor, "*batch time"],
    times: Float[Tensor, " time"],
    level: Float[Tensor, "*batch"] | float,
    *,
    falling: bool = False,
) -> Float[Tensor, "*batch"]:
    """Time at which each series first reaches a level, interpolated linearly; NaN where never.

    Args:
        values: Series.
        times: Their times, increasing.
        level: One level, or one per series.
        falling: Whether it is reached from above.

    Returns:
        The times; the first time where a series starts beyond the level.

    Raises:
        ValueError: If there is not one time per value.

    Example:
        >>> first_crossing(torch.tensor([0.0, 1.0, 3.0]), torch.arange(3.0), 2.0).item()
        1.5
    """
    if values.shape[-1] != len(times):
        raise ValueError(
            f"one time per value is needed, but there are {values.shape[-1]} values and "
            f"{len(times)} times."
        )
    values, times = values.double(), times.double().to(values.device)
    goal = torch.as_tensor(level, dtype=torch.float64, device=values.device).expand(
        values.shape[:-1]
    )
    sign = -1.0 if falling else 1.0
    ahead = sign * (values - goal.unsqueeze(-1))
    reached = ahead >= 0
    at = reached.int().argmax(-1)
    before = (at - 1).clamp(min=0)
    left = ahead.gather(-1, before.unsqueeze(-1)).squeeze(-1)
    right = ahead.gather(-1, at.unsqueeze(-1)).squeeze(-1)
    rise = torch.where(right == left, 1.0, right - left)
    share = torch.where(at == before, 0.0, -left / rise)
    crossing = times[before] + share * (times[at] - times[before])
    return torch.where(reached.any(-1), crossing, math.nan)
