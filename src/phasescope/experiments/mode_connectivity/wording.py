"""What a decision on a claim is made of: its text, and statistics of one value per seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phasescope.experiments.evidence import OverSeeds, with_enough_seeds
from phasescope.experiments.mode_connectivity.config import SOURCE
from phasescope.report import Claim, Verdict


@dataclass(frozen=True)
class Text:
    """Identifier, statement and rule of a claim."""

    id: str
    statement: str
    rule: str


def over(values: np.ndarray) -> OverSeeds:
    """Mean and interval of one value per seed."""
    return OverSeeds(values.tolist())


def answered(n_seeds: int) -> Verdict:
    """The verdict of a question with so many seeds."""
    return with_enough_seeds("answered", n_seeds)


def median_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Order statistics that hold the median with 95%; None where one is infinite."""
    from scipy.stats import binom

    ordered, n = np.sort(values), len(values)
    low = max(int(binom.ppf(0.025, n, 0.5)) - 1, 0)
    ends = float(ordered[low]), float(ordered[n - 1 - low])
    return ends if np.isfinite(ends).all() else None


def claim(
    text: Text,
    value: float | None,
    interval: tuple[float, float] | None,
    unit: str,
    null: str,
    n_seeds: int,
    verdict: Verdict,
    sentence: str,
) -> Claim:
    """The claim with what was found."""
    return Claim(
        text.id,
        text.statement,
        SOURCE,
        text.rule,
        value,
        interval,
        unit,
        null,
        n_seeds,
        verdict,
        sentence,
    )


def not_tested(text: Text) -> Claim:
    """The claim without its settings."""
    return claim(text, None, None, "", "none", 0, "not tested", "Its settings were not run.")
