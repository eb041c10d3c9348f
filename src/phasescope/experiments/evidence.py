"""Statistics over the seeds of a setting, and the verdict that so many seeds allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

import phasescope as ps
from phasescope.report import Verdict
from phasescope.report.claims import SEEDS_TO_DECIDE as MIN_SEEDS
from phasescope.report.claims import SEEDS_TO_TEST

__all__ = ["MIN_SEEDS", "OverSeeds", "undecided", "with_enough_seeds"]


class OverSeeds:
    """A statistic over independent seeds: its mean and 95% interval.

    Example:
        >>> print(OverSeeds([1.0, 2.0, 3.0]))
        2 [-0.484, 4.48]
        >>> OverSeeds([1.0, 2.0, 3.0]).meets(4.0, 6.0)
        True
    """

    mean: float
    """Mean over the seeds."""
    n_seeds: int
    """Number of seeds."""

    def __init__(self, values: Sequence[float]) -> None:
        self.mean = float(np.mean(values))
        self.n_seeds = len(values)
        self._values = values

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, as a `Claim` takes them; None where there is one seed."""
        if self.n_seeds < 2:
            return None
        found = ps.interval(self._values)
        return found.low, found.high

    @property
    def low(self) -> float:
        """Lower end of the interval; the mean where there is one seed."""
        return self.interval[0] if self.interval else self.mean

    @property
    def high(self) -> float:
        """Upper end of the interval; the mean where there is one seed."""
        return self.interval[1] if self.interval else self.mean

    @classmethod
    def of(cls, runs: Sequence[Any], statistic: Callable[[Any], float]) -> OverSeeds:
        """A statistic of every run of a setting, one run per seed."""
        return cls([statistic(run) for run in runs])

    def meets(self, low: float, high: float) -> bool:
        """Whether the interval has a point in [low, high]."""
        return self.low <= high and self.high >= low

    def __str__(self) -> str:
        """Mean and interval."""
        if self.interval is None:
            return f"{self.mean:.3g}"
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def undecided(n_seeds: int) -> Verdict:
    """The verdict where the seeds or the settings do not suffice for one.

    Example:
        >>> undecided(7), undecided(2)
        ('inconclusive', 'not tested')
    """
    return "inconclusive" if n_seeds >= SEEDS_TO_TEST else "not tested"


def with_enough_seeds(verdict: Verdict, n_seeds: int) -> Verdict:
    """A verdict, or what can be said instead with fewer than ten seeds.

    Example:
        >>> with_enough_seeds("refuted", 10), with_enough_seeds("refuted", 9)
        ('refuted', 'inconclusive')
    """
    return verdict if n_seeds >= MIN_SEEDS else undecided(n_seeds)
