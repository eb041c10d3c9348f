"""Claims from one number per seed, and the rules that several share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from phasescope.experiments.evidence import OverSeeds, undecided, with_enough_seeds
from phasescope.experiments.rules import verdict_of
from phasescope.report import Claim, Verdict


def decided(
    id: str,
    statement: str,
    source: str,
    rule: str,
    values: Sequence[float],
    unit: str,
    null: str,
    judge: Callable[[OverSeeds], Verdict],
    sentence: Callable[[OverSeeds], str],
) -> Claim:
    """A claim about values over seeds; those that are not finite are left out.

    Args:
        id: Of the list of claims.
        statement: What is claimed or asked.
        source: Who says so.
        rule: How it is decided.
        values: One per seed.
        unit: Of the values.
        null: What they are compared with.
        judge: The verdict if there are seeds enough.
        sentence: What was found.
    """
    known = [v for v in values if math.isfinite(v)]
    if not known:
        return Claim(
            id, statement, source, rule, None, None, unit, null, 0, "not tested", "Not run."
        )
    found = OverSeeds(known)
    verdict = with_enough_seeds(judge(found), found.n_seeds)
    if found.interval is None:
        verdict = undecided(found.n_seeds)
    return Claim(
        id,
        statement,
        source,
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
    """The verdict on a question."""
    return "answered"


def positive(found: OverSeeds, slack: float) -> Verdict:
    """Reproduced if the interval lies above 0, refuted if below what counts as nothing."""
    return verdict_of([found.low > 0], [found.high < slack])


def positive_beyond(control: Sequence[float], slack: float) -> Callable[[OverSeeds], Verdict]:
    """The rule of `positive` for what is found, and for what it has more than a control too.

    Args:
        control: What is found less the control's, one per seed.
        slack: What counts as nothing.
    """

    def judge(found: OverSeeds) -> Verdict:
        excess = OverSeeds([v for v in control if math.isfinite(v)])
        return verdict_of(
            [found.low > 0, excess.low > 0], [found.high < slack, excess.high < slack]
        )

    return judge


def told(values: Sequence[float]) -> str:
    """Mean and interval of the finite values, in words."""
    known = [v for v in values if math.isfinite(v)]
    return str(OverSeeds(known)) if known else "not run"
