"""Turning points of many series at once: peaks and troughs that stand out by a threshold.

Axes: series, time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TurningPoints:
    """Alternating troughs and peaks, ordered by series, then by time."""

    series: Int64[Tensor, " turns"]
    """Row of the series."""
    time: Int64[Tensor, " turns"]
    """Index along the series."""
    value: Float[Tensor, " turns"]
    """Value there."""
    is_trough: Bool[Tensor, " turns"]
    """Trough, or else peak."""
    is_end: Bool[Tensor, " turns"]
    """Extreme after the last turn: the series ends before it moves back by the threshold."""


def turning_points(values: Float[Tensor, "series time"], threshold: float) -> TurningPoints:
    """Extremes between which each series moves by at least the threshold.

    A peak (that is not at an end of its series) is one from which the series falls by the threshold
    on both sides before it exceeds the peak: a peak of at least that prominence, as
    `scipy.signal.find_peaks` counts them (but peaks of exactly the same height with a shallow dip
    between them are one). The first extreme before the first such move and the last
    one after the last (`is_end`) are kept too, so that every peak has a trough on either side. A
    series that never moves by the threshold has no turning points.

    All series are scanned together, one step at a time.

    Args:
        values: Finite series.
        threshold: Positive.

    Returns:
        The turning points.

    Raises:
        ValueError: If the threshold is not positive or a value not finite.

    Example:
        >>> turns = turning_points(torch.tensor([[0.0, 1.0, 0.9, 1.2, 0.0]]), 0.5)
        >>> turns.time.tolist(), turns.is_trough.tolist()
        ([0, 3, 4], [True, False, True])
    """
    if not threshold > 0:
        raise ValueError(f"the threshold must be positive, but it is {threshold}.")
    if not bool(values.isfinite().all()):
        raise ValueError("every value must be finite. Leave out series that are not.")
    n, length = values.shape
    device = values.device
    columns = values.T.contiguous()
    going = torch.zeros(n, dtype=torch.int8, device=device)  # 1 up, -1 down, 0 not yet known
    high, low = columns[0].clone(), columns[0].clone()
    high_at = torch.zeros(n, dtype=torch.int64, device=device)
    low_at = torch.zeros(n, dtype=torch.int64, device=device)
    found: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = []

    def keep(rows: Tensor, at: Tensor, value: Tensor, *, trough: bool, end: bool) -> None:
        is_trough = torch.full_like(rows, trough, dtype=torch.bool)
        is_end = torch.full_like(rows, end, dtype=torch.bool)
        found.append((rows, at[rows], value[rows], is_trough, is_end))

    for t in range(1, length):
        x = columns[t]
        higher, lower = x > high, x < low
        high = torch.where(higher, x, high)
        low = torch.where(lower, x, low)
        high_at.masked_fill_(higher, t)
        low_at.masked_fill_(lower, t)
        fell = (going >= 0) & (x <= high - threshold)
        rose = (going <= 0) & (x >= low + threshold)
        for turned, trough in ((fell, False), (rose, True)):
            rows = turned.nonzero().squeeze(1)
            if not len(rows):
                continue
            if trough:
                keep(rows, low_at, low, trough=True, end=False)
                high[rows], high_at[rows], going[rows] = x[rows], t, 1
            else:
                keep(rows, high_at, high, trough=False, end=False)
                low[rows], low_at[rows], going[rows] = x[rows], t, -1
    keep((going < 0).nonzero().squeeze(1), low_at, low, trough=True, end=True)
    keep((going > 0).nonzero().squeeze(1), high_at, high, trough=False, end=True)
    series, time, value, is_trough, is_end = (
        torch.cat(parts) for parts in zip(*found, strict=True)
    )
    # A series' last two extremes may share their time only if it turned at its last step.
    order = torch.argsort(series * (2 * length) + 2 * time + is_end, stable=True)
    return TurningPoints(series[order], time[order], value[order], is_trough[order], is_end[order])
