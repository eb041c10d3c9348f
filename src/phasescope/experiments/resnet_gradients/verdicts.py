"""Claims from one number per seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from phasescope.experiments.evidence import OverSeeds, undecided, with_enough_seeds
from phasescope.experiments.resnet_gradients.config import SOURCE, Results
from phasescope.report import Claim, Verdict

Runs = dict[int, Results]


def claim(
    id: str,
    statement: str,
    rule: str,
    values: Sequence[float],
    unit: str,
    null: str,
    judge: Callable[[OverSeeds], Verdict],
    sentence: Callable[[OverSeeds], str],
) -> Claim:
    """A claim; not tested where no seed has the number.

    Args:
        id: Name in the catalogue.
        statement: What the source says or asks.
        rule: What decides.
        values: The number of every seed; NaN where it has none.
        unit: Of the number.
        null: The control beside it.
        judge: The verdict if there are enough seeds.
        sentence: What was found.
    """
    known = [v for v in values if math.isfinite(v)]
    if not known:
        return Claim(
            id, statement, SOURCE, rule, None, None, unit, null, 0, "not tested", "Not run."
        )
    found = OverSeeds(known)
    verdict = with_enough_seeds(judge(found), found.n_seeds)
    if found.interval is None:
        verdict = undecided(found.n_seeds)
    return Claim(
        id,
        statement,
        SOURCE,
        rule,
        found.mean,
        found.interval,
        unit,
        null,
        found.n_seeds,
        verdict,
        sentence(found),
    )


def answered(found: OverSeeds) -> Verdict:
    """The verdict of a question."""
    return "answered"


def told(values: Sequence[float]) -> str:
    """Mean and interval, for a sentence."""
    known = [v for v in values if math.isfinite(v)]
    return str(OverSeeds(known)) if known else "not run"
