"""Decision rules and verdicts of A24 to A28; the rules were committed before the seeds ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from phasescope.experiments.evidence import MIN_SEEDS, OverSeeds, undecided, with_enough_seeds
from phasescope.experiments.maze_goals.ablations import CONTROLS
from phasescope.experiments.maze_goals.config import (
    CORNER,
    MIXTURES,
    NEAR,
    NEAR_MLP,
    SOURCE,
    Results,
    group_by_setting,
)
from phasescope.experiments.maze_goals.evidence import (
    CHEESE_GOAL,
    CORNER_GOAL,
    beyond,
    drop,
    final,
    later_goal,
    order,
    selectivity,
    separation_beyond_frozen,
    sought,
)
from phasescope.report import Claim, Verdict

REMOVED, SPARED = 0.5, 0.25
"""Drops from which on a goal counts as removed, and up to which as spared."""
BOTH = 0.9
"""Share of the seeds that must have learned both goals."""
SOUGHT = 0.05
"""Share of levels by which seen cheese must be reached more often than unseen."""

_STATEMENTS = {
    "A24": "the maze agent learns the corner first, the cheese later; gradients' singular vectors "
    "separate in time beyond the frozen-policy null",
    "A25": "ablating the late directions removes cheese-seeking after the corner is reached and "
    "spares the corner; against all controls",
    "A26": "the reverse: corner removed, cheese kept when it is near or the agent is already in "
    "the corner (success by distance)",
    "A27": "cheese near the corner is sought, far cheese is not (the source's correction)",
    "A28": "stars and cheese: can one be ablated without the other, and which training mixtures "
    "make it possible",
}
_RULES = {
    "A24": "Two statistics of each seed: the binary logarithm of when the cheese (from the corner) "
    "was learned over when the corner (cheese hidden) was, learned meaning half way from the first "
    "to the largest share, kept for three rollouts (never: at the last step); and the standard "
    "deviation of the centres of mass of the 10 leading components of normalised gradients (as "
    "shares of the training) minus the largest of gradients at the policy frozen at the start, in "
    "the middle and at the end. Reproduced if the 95% intervals of both means lie above 0 and at "
    "least nine seeds of ten learned both goals, refuted if one of the intervals lies below.",
    "A25": "Late components (permutation p < .05, later than the null's mean) among the 10 leading "
    "ones of normalised gradients are taken out at strength 1. Drops are shares of what training "
    "added: of cheese reached from the corner, and of the corner reached with the cheese hidden. "
    "Reproduced if the 95% interval of the first mean lies above .5, that of the second below .25, "
    "and their difference exceeds that of each of the six controls (interval of the paired "
    "difference above 0); refuted if the first lies below .5, the second above .25, or the "
    "difference below one of the controls' (interval of the paired difference below 0). A seed "
    "without late components takes nothing out.",
    "A26": "Early components of the gradients are taken out at strength 1. Drops of the corner "
    "(cheese hidden), and of cheese near the agent (4 moves or less), far from it (8 or more), and "
    "of an agent that starts in the corner, with intervals; beside the same of every control.",
    "A27": "Trained with cheese in the 3 × 3 places at the corner only; for cheese anywhere, at "
    "least 3 moves from the agent: share of levels in which it is reached if it is seen minus the "
    "share if the same cheese is not shown, near the corner (4 moves or less) and far (8 or more). "
    "Reproduced if in at least one network the 95% interval of the near difference lies above .05 "
    "and that of half of it minus the far difference above 0; refuted if in every network the "
    "first lies below .05 or the second below 0.",
    "A28": "In each of four training mixtures: the late components of the gradients should remove "
    "the goal that was learned later (by when it was half learned) and spare the other, the early "
    "ones the reverse; strength 1. Possible in a mixture if, for one of the two, the 95% intervals "
    "have the drop of the target above .5, the drop of the other below .25, and their difference "
    "above that of each control. The value is the largest mean selectivity of the eight.",
}

Settings = dict[str, list[Results]]


def claims(results: Sequence[Results]) -> list[Claim]:
    """The claims that these runs settle; only the committed settings count.

    Args:
        results: Runs of one or more settings and seeds.
    """
    settings = group_by_setting(results)
    return [_a24(settings), _a25(settings), _a26(settings), _a27(settings), _a28(settings)]


def _a24(settings: Settings) -> Claim:
    runs = settings.get(CORNER, [])
    if not runs:
        return _missing("A24", CORNER)
    times = OverSeeds.of(runs, lambda r: order(r, CORNER_GOAL, CHEESE_GOAL))
    apart = OverSeeds.of(runs, separation_beyond_frozen)
    n_both = sum(None not in r.numbers["training"]["learned"].values() for r in runs)
    verdict: Verdict = "inconclusive"
    if times.low > 0 and apart.low > 0 and n_both >= BOTH * len(runs):
        verdict = "reproduced"
    elif times.high < 0 or apart.high < 0:
        verdict = "refuted"
    peak = OverSeeds.of(runs, lambda r: max(r.numbers["training"]["curves"]["corner first"]))
    end = OverSeeds.of(runs, lambda r: final(r, "corner first"))
    updates = OverSeeds.of(runs, lambda r: separation_beyond_frozen(r, "updates"))
    n_late = OverSeeds.of(runs, lambda r: float(r.numbers["spectra"]["gradients"]["n_late"]))
    n_early = OverSeeds.of(runs, lambda r: float(r.numbers["spectra"]["gradients"]["n_early"]))
    return _claim(
        "A24",
        runs,
        verdict,
        apart,
        "spread of centres beyond the frozen policies' (share of the training)",
        "gradients at frozen policies (start, middle, end); within a run, permuted steps: of 10 "
        f"components {n_early} are early and {n_late} late at p < .05, .25 each by chance",
        f"The cheese is learned {times} binary orders of magnitude later than the corner; {n_both} "
        f"of {len(runs)} seeds learned both. On "
        f"conflict levels the agent goes to the corner first in {peak} of them at the most, and in "
        f"{end} at the end. The same separation of updates is {updates}. Any drift of a policy "
        "separates components in time; that they are goals is what A25 and A26 ask.",
    )


def _a25(settings: Settings) -> Claim:
    runs = settings.get(CORNER, [])
    if not runs:
        return _missing("A25", CORNER)
    part = "late gradients"
    removed, spared, own, differences = _ablated(runs, part, lambda r: (CHEESE_GOAL, CORNER_GOAL))
    verdict: Verdict = "inconclusive"
    if (
        removed.low > REMOVED
        and spared.high < SPARED
        and all(d.low > 0 for d in differences.values())
    ):
        verdict = "reproduced"
    elif (
        removed.high < REMOVED
        or spared.low > SPARED
        or any(d.high < 0 for d in differences.values())
    ):
        verdict = "refuted"
    of_updates = _ablated(runs, "late updates", lambda r: (CHEESE_GOAL, CORNER_GOAL))
    return _claim(
        "A25",
        runs,
        verdict,
        own,
        "drop of the cheese minus drop of the corner (shares of what training added)",
        f"selectivity beyond each control: {_listed(differences)}",
        f"Without the late components of the gradients, which are {_removed(runs, part)} of the "
        f"length of the displacement, {removed} of the cheese-seeking is gone and {spared} of the "
        f"corner. Late components of the updates ({_removed(runs, 'late updates')} of the length): "
        f"{of_updates[0]} and {of_updates[1]}, selectivity beyond controls "
        f"{_listed(of_updates[3])}.",
    )


def _a26(settings: Settings) -> Claim:
    runs = settings.get(CORNER, [])
    if not runs:
        return _missing("A26", CORNER)
    part = "early gradients"
    own = OverSeeds.of(runs, lambda r: _number(selectivity(r, part, CORNER_GOAL, CHEESE_GOAL)))
    differences = _ablated(runs, part, lambda r: (CORNER_GOAL, CHEESE_GOAL))[3]
    measures = ("corner", "cheese near the agent", "cheese far from the agent", CHEESE_GOAL)

    def drops(part: str) -> str:
        said = [
            f"{name} {OverSeeds.of(runs, lambda r, m=name: _number(drop(r, part, m)))}"
            for name in measures
        ]
        return ", ".join(said)

    return _claim(
        "A26",
        runs,
        "answered",
        own,
        "drop of the corner minus drop of the cheese from the corner, early gradients taken out",
        f"selectivity beyond each control: {_listed(differences)}",
        f"Drops without the early components of the gradients ({_removed(runs, part)} of the "
        f"length of the displacement): {drops(part)}. Without those of the updates "
        f"({_removed(runs, 'early updates')} of the length): {drops('early updates')}.",
    )


def _a27(settings: Settings) -> Claim:
    found = {name: settings[name] for name in (NEAR, NEAR_MLP) if name in settings}
    if not found:
        return _missing("A27", NEAR)
    near = {
        n: OverSeeds.of(r, lambda x: sought(x, "cheese near the corner")) for n, r in found.items()
    }
    far = {
        n: OverSeeds.of(r, lambda x: sought(x, "cheese far from the corner"))
        for n, r in found.items()
    }
    contrast = {
        n: OverSeeds.of(
            r,
            lambda x: (
                sought(x, "cheese near the corner") / 2 - sought(x, "cheese far from the corner")
            ),
        )
        for n, r in found.items()
    }
    holding = [n for n in found if near[n].low > SOUGHT and contrast[n].low > 0]
    failing = [n for n in found if near[n].high < SOUGHT or contrast[n].high < 0]
    shown = holding[0] if holding else next(iter(found))
    verdict: Verdict = "inconclusive"
    if holding:
        verdict = "reproduced"
    elif len(found) == 2 and len(failing) == 2:
        verdict = "refuted"
    said = "; ".join(f"{n}: near {near[n]}, far {far[n]}" for n in found)
    first = OverSeeds.of(found[shown], lambda r: final(r, "corner first"))
    return _claim(
        "A27",
        found[shown],
        verdict,
        near[shown],
        f"share of levels, near the corner, seen minus unseen ({shown})",
        f"far from the corner: {far[shown]}; both against the same levels with the cheese unseen",
        f"Seen minus unseen: {said}. On conflict levels this agent goes to the corner first in "
        f"{first} of them.",
    )


def _a28(settings: Settings) -> Claim:
    found = {name: settings[f"stars: {name}"] for name in MIXTURES if f"stars: {name}" in settings}
    if not found:
        return _missing("A28", "stars: " + next(iter(MIXTURES)))
    rows: dict[str, OverSeeds] = {}
    possible, said, controls = [], [], []
    for name, runs in found.items():
        for part in ("late gradients", "early gradients"):
            late = part.startswith("late")

            def goals(r: Results, late: bool = late) -> tuple[str, str]:
                later, earlier = later_goal(r)
                return (later, earlier) if late else (earlier, later)

            removed, spared, own, differences = _ablated(runs, part, goals)
            key = f"{name}, {part}"
            rows[key] = own
            said.append(f"{key}: target {removed}, other {spared}")
            controls.append(f"{key}: {_listed(differences)}")
            beaten = all(d.low > 0 for d in differences.values())
            if removed.low > REMOVED and spared.high < SPARED and beaten:
                possible.append(key)
    best = max(rows, key=lambda key: rows[key].mean)
    runs = min(found.values(), key=len)
    verdict: Verdict = "answered" if len(found) >= 3 else "inconclusive"
    return _claim(
        "A28",
        runs,
        verdict,
        rows[best],
        f"drop of the target minus drop of the other goal, largest of {len(rows)} ({best})",
        f"selectivity beyond each control: {'; '.join(controls)}",
        f"Possible in {', '.join(possible) if possible else 'none of them'}. Drops, as shares of "
        f"what training added: {'; '.join(said)}.",
    )


def _ablated(
    runs: Sequence[Results], part: str, goals: Callable[[Results], tuple[str, str]]
) -> tuple[OverSeeds, OverSeeds, OverSeeds, dict[str, OverSeeds]]:
    """Drops of target and other, selectivity, and by how much it exceeds each control's."""
    removed = OverSeeds.of(runs, lambda r: _number(drop(r, part, goals(r)[0])))
    spared = OverSeeds.of(runs, lambda r: _number(drop(r, part, goals(r)[1])))
    own = OverSeeds.of(runs, lambda r: _number(selectivity(r, part, *goals(r))))
    each = [beyond(r, part, *goals(r)) for r in runs]
    # A run without the part takes nothing out, and neither do its controls.
    values = {c: [row[c] for row in each if c in row] for c in CONTROLS}
    return removed, spared, own, {c: OverSeeds(v) for c, v in values.items() if v}


def _removed(runs: Sequence[Results], part: str) -> OverSeeds:
    """Length of a part, as a share of the displacement; 0 where there is none."""
    return OverSeeds.of(
        runs, lambda r: r.numbers["ablations"].get(part, {"removed": 0.0})["removed"]
    )


def _number(value: float | None) -> float:
    assert value is not None  # the ablation itself always has a value
    return value


def _listed(values: dict[str, OverSeeds]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _claim(
    id: str,
    runs: Sequence[Results],
    verdict: Verdict,
    value: OverSeeds,
    unit: str,
    null: str,
    sentence: str,
) -> Claim:
    n_seeds = len(runs)
    if verdict == "answered" and n_seeds < MIN_SEEDS:
        verdict = undecided(n_seeds)
    return Claim(
        id=id,
        statement=_STATEMENTS[id],
        source=SOURCE,
        rule=_RULES[id],
        value=value.mean,
        interval=value.interval,
        unit=unit,
        null=null,
        n_seeds=n_seeds,
        verdict=with_enough_seeds(verdict, n_seeds),
        sentence=sentence,
    )


def _missing(id: str, setting: str) -> Claim:
    return Claim(
        id=id,
        statement=_STATEMENTS[id],
        source=SOURCE,
        rule=_RULES[id],
        value=None,
        interval=None,
        unit="",
        null="",
        n_seeds=0,
        verdict="not tested",
        sentence=f"No run of the setting {setting!r}; the preset paper has it.",
    )
