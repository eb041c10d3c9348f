"""Hits, false alarms and lead of a detector on a signal, over runs.

An event is hit by an alarm that is dated between its start over SLACK and its end times SLACK; a
spike by one between the step before its start and its end, at least SPIKE_STEPS. Alarms elsewhere
are stray; in runs without events all are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SLACK = 1.25
SPIKE_STEPS = 20
SHIFTS = 200  # of the window, in the chance of a hit
Row = dict[str, Any]
"""A run's numbers, see `scored`."""


@dataclass(frozen=True)
class Rates:
    """How a detector does on one signal."""

    hits: np.ndarray
    """Of every event, whether it was hit."""
    chance: np.ndarray
    """Of every event, the share of windows of its logarithmic width, anywhere in the run, that
    hold an alarm."""
    lead: np.ndarray
    """Of every event that was hit: steps from the first alarm's notice to its middle."""
    octaves: np.ndarray
    """The same as a binary logarithm of middle over notice."""
    false: np.ndarray
    """Of every run without events, whether there was an alarm."""
    run_of: np.ndarray
    """Number of the run that every event belongs to."""

    @property
    def score(self) -> float:
        """Share of events hit less share of runs with false alarms: 1 is perfect, 0 chance."""
        return mean(self.hits) - mean(self.false)


def mean(values: np.ndarray) -> float:
    """NaN of nothing."""
    return float(values.mean()) if len(values) else math.nan


def window(
    event: Sequence[float | int], *, spike: bool, around: float | None = None
) -> tuple[float, float]:
    """Steps between which an alarm must be dated.

    Args:
        event: Start, middle and end.
        spike: Whether it is a spike.
        around: Factor around the middle instead of the event from start to end.
    """
    start, middle, end = event
    if around is not None:
        return (1 + middle) / around - 1, (1 + middle) * around - 1
    if spike:
        return start - 1.0, float(max(end, start + SPIKE_STEPS))
    return (1 + start) / SLACK - 1, (1 + end) * SLACK - 1


def rates(
    positive: Sequence[Row],
    negative: Sequence[Row],
    signal: str,
    detector: str,
    *,
    saturated: bool = False,
    spike: bool = False,
    around: float | None = None,
) -> Rates:
    """Rates over runs.

    Args:
        positive: Runs with events.
        negative: Runs without.
        signal: Name of the signal; runs without it are left out.
        detector: Name of the detector.
        saturated: Only events that began when the training accuracy had reached its end.
        spike: Whether events are spikes.
        around: Hits must be dated within this factor of the middle.
    """
    hits, chance, lead, octaves, run_of = [], [], [], [], []
    for number, row in enumerate(positive):
        alarms = row["alarms"].get(signal, {}).get(detector)
        if alarms is None:
            continue
        dated = np.array([at for _, at in alarms])
        for event, late in zip(row["events"], row["saturated"], strict=True):
            if saturated and not late:
                continue
            low, high = window(event, spike=spike, around=around)
            inside = (dated >= low) & (dated <= high)
            hits.append(bool(inside.any()))
            chance.append(chance_of(dated, low, high, row["span"]))
            run_of.append(number)
            if inside.any():
                # A forecast is known when it is made; a fit dates what it sees as a whole.
                first = float(np.array(alarms)[inside][:, 1].min())
                if detector == "find_transitions":
                    first = float(np.array(alarms)[inside][:, 0].min())
                lead.append(event[1] - first)
                octaves.append(math.log2((1 + event[1]) / (1 + max(first, 0.0))))
    false = [
        bool(row["alarms"][signal][detector])
        for row in negative
        if row["alarms"].get(signal, {}).get(detector) is not None
    ]
    columns = (np.array(x, dtype=float) for x in (hits, chance, lead, octaves, false, run_of))
    return Rates(*columns)


def chance_of(
    dated: np.ndarray, low: float | int, high: float | int, span: Sequence[float | int]
) -> float:
    """Share of places in logarithmic time at which a window of this width holds an alarm."""
    if not len(dated):
        return 0.0
    width = math.log1p(high) - math.log1p(max(low, 0.0))
    first, last = math.log1p(span[0]), math.log1p(span[1])
    starts = np.linspace(first - width / 2, last - width / 2, SHIFTS)
    at = np.log1p(np.maximum(dated, 0.0))
    covered = (at >= starts[:, None]) & (at <= starts[:, None] + width)
    return float(covered.any(1).mean())


def stray(row: Row, signal: str, detector: str, *, spike: bool) -> int:
    """Alarms of a run that hit no event."""
    windows = [window(event, spike=spike) for event in row["events"]]
    alarms = row["alarms"].get(signal, {}).get(detector) or []
    return sum(not any(low <= at <= high for low, high in windows) for _, at in alarms)
