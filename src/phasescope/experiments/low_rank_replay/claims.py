"""Decision rules and verdicts of A20 and A21; the rules were committed before the seeds ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from phasescope.experiments.evidence import MIN_SEEDS, OverSeeds, undecided
from phasescope.experiments.low_rank_replay.config import (
    COMPLEMENT,
    DEFAULT,
    DIMENSIONS,
    FROZEN,
    FULL,
    KS,
    OTHER_ORDER,
    OTHER_START,
    PRESETS,
    SHARE,
    SOURCE,
    TOP,
    Results,
    best_random_fall,
    deciding_k,
    fall,
    group_by_setting,
    random_dimension,
    row_of,
    setting,
    smallest_fall_k,
    smallest_k,
)
from phasescope.report import Claim, Verdict

SUFFICIENT = 0.95
"""Share of the full training's fall of the test loss that counts as sufficient."""

Settings = dict[str, list[Results]]


def claims(results: Sequence[Results]) -> list[Claim]:
    """The claims that these runs settle; only runs on MNIST count towards a verdict.

    Args:
        results: Runs of one or more settings and seeds.
    """
    settings = group_by_setting(results)
    return [_a20(settings), _a21(settings)]


def _a20(settings: Settings) -> Claim:
    top = {name: _falls(runs, TOP) for name, runs in settings.items()}
    random = {
        name: OverSeeds.of(r, lambda x: best_random_fall(x, deciding_k(x)))
        for name, r in settings.items()
    }
    holding = [n for n in settings if top[n].low >= SUFFICIENT and random[n].high < SUFFICIENT]
    failing = [n for n in settings if top[n].high < SUFFICIENT or random[n].low >= SUFFICIENT]
    shown = holding[0] if holding else _shown(settings)
    runs = settings[shown]
    n_seeds, verdict = _decide(settings, holding, failing)
    k = deciding_k(runs[0])
    return Claim(
        id="A20",
        statement="the low-rank gradients suffice: train with the rank-k approximation and look "
        "at the loss",
        source=SOURCE,
        rule="Online replay in a fresh order of the data with k = 100, the k nearest to the "
        "published 92.5; statistic: share of the full training's fall of the test loss (same "
        "order) that is reached. Reproduced if in at least one setting the 95% interval of its "
        "mean lies at or above .95 and that of 100 random directions at the best of three "
        "learning rates below .95; refuted if in every setting the first lies below .95 or the "
        "second at or above it.",
        value=top[shown].mean,
        interval=top[shown].interval,
        unit=f"share of the fall of the test loss, k = {k} ({shown})",
        null=f"random {k}, best rate: {random[shown]}; complement: {_falls(runs, COMPLEMENT)}; "
        f"other order's {k}: {_falls(runs, OTHER_ORDER)}; other initialisation's {k}: "
        f"{_falls(runs, OTHER_START)}; frozen weights' {k}: {_falls(runs, FROZEN)}",
        n_seeds=n_seeds,
        verdict=verdict,
        sentence=f"{_counted(settings, holding)}. With {k} of its own directions the test loss "
        f"is {OverSeeds.of(runs, _loss_ratio)} times that of the full training in the same order "
        f"and the accuracy {_accuracies(runs, TOP)} against {_accuracies(runs, FULL)}; without "
        f"them (the complement) it is {_accuracies(runs, COMPLEMENT)}. In the original order the "
        f"share is {_falls(runs, TOP, order='original')}, offline "
        f"{_falls(runs, TOP, online=False)}. "
        f"{_needed(runs)}{_others(settings, shown, top)}",
    )


def _a21(settings: Settings) -> Claim:
    shown = _shown(settings)
    runs = settings[shown]
    counting = _n_mnist(runs)
    dimension = _censored(runs, random_dimension, DIMENSIONS[-1])
    count = OverSeeds.of(runs, lambda r: r.numbers["count"])
    null_count = OverSeeds.of(runs, lambda r: r.numbers["null_count"])
    others = [
        f"{name}: k = {_censored(r, smallest_k, KS[-1])}, d_int90 = "
        f"{_censored(r, random_dimension, DIMENSIONS[-1])}, count "
        f"{OverSeeds.of(r, lambda x: x.numbers['count'])}"
        for name, r in settings.items()
        if name != shown
    ]
    measured = OverSeeds([float(smallest_k(r) or KS[-1]) for r in runs])
    return Claim(
        id="A21",
        statement="cut-off by replay: smallest k at which replay reaches 90% of the baseline's "
        "accuracy, beside d_int90 of a random subspace and beside A1's count",
        source=SOURCE,
        rule=f"Smallest k of {', '.join(map(str, KS))} at which online replay in a fresh order "
        "reaches 90% of the full training's test accuracy in that order; mean and 95% interval "
        "over seeds. d_int90: smallest dimension of a random subspace (those and "
        f"{', '.join(str(d) for d in DIMENSIONS if d not in KS)}) that does, with as many steps, "
        "at the best of three learning rates.",
        value=measured.mean,
        interval=measured.interval,
        unit=f"directions ({shown})",
        null=f"d_int90 of random subspaces: {dimension}; count above 10% in 400 steps: {count} "
        f"(norms alone: {null_count})",
        n_seeds=len(runs),
        verdict="answered" if counting >= MIN_SEEDS else undecided(counting),
        sentence=f"Replay reaches {100 * SHARE:.0f}% of the accuracy with "
        f"{_censored(runs, smallest_k, KS[-1])} of its own directions, a random subspace needs "
        f"{dimension}, and {count} singular values exceed 10% in 400 sampled steps."
        f"{' ' if others else ''}{'; '.join(others)}"
        f"{'.' if others else ''}",
    )


def _decide(
    settings: Settings, holding: Sequence[str], failing: Sequence[str]
) -> tuple[int, Verdict]:
    """Seeds and verdict of a statement that one setting reproduces and all together refute."""
    counting = {name: _n_mnist(runs) for name, runs in settings.items()}
    deciding = max((counting[name] for name in holding), default=0)
    if deciding >= MIN_SEEDS:
        return deciding, "reproduced"
    fewest = min(counting.values())
    complete = set(settings) >= {setting(config) for config in PRESETS["paper"]}
    if fewest >= MIN_SEEDS and complete and len(failing) == len(settings):
        return fewest, "refuted"
    return min(len(runs) for runs in settings.values()), undecided(fewest)


def _n_mnist(runs: Sequence[Results]) -> int:
    return sum(r.numbers["dataset"] == "mnist" for r in runs)


def _shown(settings: Settings) -> str:
    default = setting(DEFAULT)
    return default if default in settings else next(iter(settings))


def _falls(
    runs: Sequence[Results], variant: str, *, order: str = "fresh", online: bool = True
) -> OverSeeds:
    return OverSeeds.of(
        runs, lambda r: fall(r, row_of(r, variant, deciding_k(r), order=order, online=online))
    )


def _accuracies(runs: Sequence[Results], variant: str) -> OverSeeds:
    return OverSeeds.of(
        runs,
        lambda r: row_of(r, variant, 0 if variant == FULL else deciding_k(r))["test_accuracy"],
    )


def _loss_ratio(result: Results) -> float:
    loss = row_of(result, TOP, deciding_k(result))["test_loss"]
    return (np.inf if loss is None else loss) / row_of(result, FULL, 0)["test_loss"]


def _counted(settings: Settings, holding: Sequence[str]) -> str:
    said = f"{len(holding)} of {len(settings)} settings meet both conditions"
    if any(_n_mnist(runs) for runs in settings.values()):
        return said
    return f"Not MNIST, so no verdict whatever the seeds; for what it is worth, here {said}"


def _needed(runs: Sequence[Results]) -> str:
    """How many directions the parts of the fall need, as medians."""
    parts = []
    for share in (0.9, 0.95, 0.99):
        found = [smallest_fall_k(r, share) for r in runs]
        middle = sorted(k or np.inf for k in found)[len(found) // 2]
        parts.append(f"{100 * share:.0f}%: {f'{middle:.0f}' if middle < np.inf else 'more'}")
    return f"Smallest k for a share of the fall (median seed): {', '.join(parts)}."


def _others(settings: Settings, shown: str, top: dict[str, OverSeeds]) -> str:
    said = [
        f"{name}: top {top[name]}, complement {_falls(runs, COMPLEMENT)}, other order's "
        f"{_falls(runs, OTHER_ORDER)}, frozen {_falls(runs, FROZEN)}"
        for name, runs in settings.items()
        if name != shown
    ]
    return f" {'; '.join(said)}." if said else ""


def _censored(
    runs: Sequence[Results], number: Callable[[Results], int | None], largest: int
) -> str:
    """A smallest number over seeds, and in how many of them it was not reached."""
    found = [number(r) for r in runs]
    missing = sum(n is None for n in found)
    if missing == len(found):
        return f"more than {largest}"
    said = str(OverSeeds([float(n or largest) for n in found]))
    return said + (f" (more than {largest} in {missing} of {len(found)} seeds)" if missing else "")
