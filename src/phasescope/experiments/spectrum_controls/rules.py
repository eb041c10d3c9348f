"""When an axis falls smoothly to its null: the rule, committed before the seeds ran.

Letters: l levels of an axis, the undisturbed one first; s seeds, the same at all levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

import phasescope as ps
from phasescope.experiments.evidence import MIN_SEEDS

NEAR_NULL = 0.2  # of the undisturbed excess: what is left at the end may not be more
LARGEST_JUMP = 0.5  # of the fall from the first to the last level, between two neighbours
UNCHANGED = 0.2  # of the undisturbed excess: a control may not move it by more
LEVEL = 0.95

Answer = Literal["holds", "contradicted", "open"]
CRITERIA = ("starts off the null", "approaches it", "ends at it", "smoothly")


@dataclass(frozen=True)
class Judgement:
    """What an axis shows."""

    answers: dict[str, Answer]
    """Of every criterion."""
    start: float
    """Mean excess of the undisturbed level, of either sign."""
    left: float
    """Mean distance of the last level, as a share of that of the first."""
    left_interval: tuple[float, float]
    """95% interval of it over seeds."""
    trend: float
    """Mean over seeds of Spearman's rank correlation between level and distance."""
    largest_jump: float
    """Largest fall between neighbours, as a share of the whole fall."""
    n_seeds: int
    """Seeds that every level has."""

    @property
    def holds(self) -> bool:
        """Whether every criterion holds."""
        return all(answer == "holds" for answer in self.answers.values())

    @property
    def failed(self) -> list[str]:
        """The criteria that the data contradict."""
        return [name for name, answer in self.answers.items() if answer == "contradicted"]


def judge(excess: Float[np.ndarray, "l s"], n_axes: int) -> Judgement:
    """The judgement of one of several axes.

    The source names no direction: training may show more components than its null or fewer. So
    what is judged is the distance, the excess times the sign of its mean at the undisturbed level.

    A criterion holds if the 95% interval over seeds lies where it should. It is contradicted if the
    interval at 1 - .05 / n_axes lies where it should not: one such axis refutes a statement about
    all of them, so the chance of a false one is kept near 5% for the axes together. Otherwise it is
    open, as it is with fewer than ten seeds.

    * starts off the null: the distance of the undisturbed level is above 0 (else it is open: there
      is nothing that could fall).
    * approaches it: Spearman's correlation between level and distance, of each seed, is below 0.
    * ends at it: what is left at the last level, as a share of the mean undisturbed distance, lies
      within ±.2.
    * smoothly: no fall between neighbouring levels exceeds half of the whole fall of the mean.
      Asked only where there is a whole fall (its 95% interval is above 0), else open.

    Args:
        excess: Statistic minus its null.
        n_axes: Axes that the statement speaks of.
    """
    start = float(excess[0].mean())
    n_seeds = excess.shape[1]
    distance = excess * (np.sign(start) or 1.0)
    strict = 1 - (1 - LEVEL) / n_axes
    trends = np.array([spearman(distance[:, s]) for s in range(n_seeds)])
    shares = distance[-1] / (abs(start) or 1.0)
    falls = (distance[:-1] - distance[1:]) / (float((distance[0] - distance[-1]).mean()) or 1.0)
    answers: dict[str, Answer] = dict.fromkeys(CRITERIA, "open")
    if n_seeds >= MIN_SEEDS:
        off = _within(distance[0], 0.0, np.inf, strict)
        fallen = _within(distance[0] - distance[-1], 0.0, np.inf, strict)
        answers["starts off the null"] = "holds" if off == "holds" else "open"
        answers["approaches it"] = _within(trends, -np.inf, 0.0, strict)
        answers["ends at it"] = _within(shares, -NEAR_NULL, NEAR_NULL, strict)
        if fallen == "holds":
            steps: list[Answer] = [_within(fall, -np.inf, LARGEST_JUMP, strict) for fall in falls]
            answers["smoothly"] = _worst(steps)
        if off != "holds":  # no distance to compare with
            answers["ends at it"] = answers["smoothly"] = "open"
    return Judgement(
        answers,
        start,
        float(shares.mean()),
        _interval(shares, LEVEL),
        float(trends.mean()),
        float(falls.mean(1).max()),
        n_seeds,
    )


def unchanged(excess: Float[np.ndarray, "l s"]) -> Answer:
    """Whether a control leaves the excess of every level within ±.2 of the undisturbed one.

    It holds if all 95% intervals over seeds lie within, and is contradicted if one lies outside.
    """
    scale = abs(float(excess[0].mean()))
    if not scale or excess.shape[1] < MIN_SEEDS:
        return "open"
    changes = (excess[1:] - excess[0]) / scale
    return _worst([_within(change, -UNCHANGED, UNCHANGED, LEVEL) for change in changes])


def spearman(values: Float[np.ndarray, " l"]) -> float:
    """Spearman's rank correlation between the number of a level and a value; 0 for equal values."""
    from scipy.stats import rankdata

    ranks = rankdata(values) - (len(values) + 1) / 2
    places = np.arange(len(values)) - (len(values) - 1) / 2
    norm = np.sqrt((ranks**2).sum() * (places**2).sum())
    return float(ranks @ places / norm) if norm else 0.0


def _within(values: Float[np.ndarray, " s"], low: float, high: float, strict: float) -> Answer:
    """Whether the mean lies strictly between two numbers."""
    a, b = _interval(values, LEVEL)
    if low < a and b < high:
        return "holds"
    a, b = _interval(values, strict)
    return "contradicted" if b < low or a > high else "open"


def _interval(values: Float[np.ndarray, " s"], level: float) -> tuple[float, float]:
    if len(values) < 2:
        return float(values.mean()), float(values.mean())
    found = ps.interval(values, level=level)
    return found.low, found.high


def _worst(answers: Sequence[Answer]) -> Answer:
    for answer in ("contradicted", "open"):
        if answer in answers:
            return answer
    return "holds"
