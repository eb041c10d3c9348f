"""Claims B19 and B20; their rules were fixed before any of the packaged runs was scored.

The tuning half of the runs (even seeds) chooses the signal and the detector; the other half says
how good they are. No detector has a setting that was chosen on either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from phasescope.experiments.evidence import OverSeeds, with_enough_seeds
from phasescope.experiments.phase_detection.config import (
    GROKKING,
    SOURCE,
    SPIKES,
    WITH_EVENTS,
    WITHOUT,
    Results,
)
from phasescope.experiments.phase_detection.rates import Rates, Row, mean, rates
from phasescope.experiments.phase_detection.scoring import SIGNALS
from phasescope.report import Claim

# Signals that need no held-out examples.
CHEAP = tuple(name for name in SIGNALS if name != "test_loss")
CALLERS = ("find_transitions", "change_points", "OnlineDetector")
PLACE = "update_norm, detected window"
B19 = (
    "which cheap signal detects a grok, with what hits, false alarms and lead, in which component, "
    "also when the loss is saturated"
)
B20 = "how well is the location of a change found (component named against the truth)"
RULE_19 = (
    "over events of the five grokking systems that began when the training accuracy was 99 %: the "
    "pair of a cheap signal (no held-out data) and a detector at its defaults with the largest "
    "share of hits (an alarm dated between 10 % of the progress measure's rise, over 1.25, and "
    "90 %, times 1.25) less share of runs without events that raise an alarm, chosen on even "
    "seeds; the value is that difference on odd seeds, bootstrap over runs"
)
RULE_20 = (
    "over the runs whose components are known (all systems that have them): probability that a "
    "component in which the event took place ranks above another one by the ratio of its update "
    "norm in the window that the detector found in the training loss to that in other windows "
    "(`movers`); .5 for events whose window was not found; mean over a run's events, then over "
    "runs, bootstrap over runs; known windows, gradient norms and levels alone are shown beside"
)


def claims(results: Sequence[Results]) -> list[Claim]:
    """Verdicts over systems; without the packaged runs of all of them nothing is decided."""
    rows = by_system([r for r in results if r.config.packaged])
    return [_signal(rows), _place(rows)]


def by_system(results: Sequence[Results]) -> dict[str, list[Row]]:
    """Rows of every system, its batches behind one another.

    A run that was searched twice counts once, with every signal if it was: what is decided on is in
    both.
    """
    rows: dict[str, dict[int, Row]] = {}
    for result in sorted(results, key=lambda r: r.config.every_signal):
        own = rows.setdefault(result.config.system, {})
        own.update({row["seed"]: row for row in result.numbers["runs"]})
    return {system: [own[seed] for seed in sorted(own)] for system, own in rows.items()}


def of_systems(
    rows: dict[str, list[Row]], systems: Sequence[str], half: int | None = None
) -> list[Row]:
    """Rows of some systems, of one half of the seeds (0 for even ones) or of all."""
    return [
        row
        for system in systems
        for row in rows.get(system, [])
        if half is None or row["seed"] % 2 == half
    ]


def negatives(rows: dict[str, list[Row]], half: int | None = None) -> list[Row]:
    """Runs without events: those that are there for it, if no measure says otherwise."""
    return [row for row in of_systems(rows, list(WITHOUT), half) if not row["events"]]


def best_pair(rows: dict[str, list[Row]], half: int) -> tuple[str, str]:
    """The cheap signal and the detector with the best score on one half of the seeds."""
    scores = {
        (signal, detector): rates(
            of_systems(rows, GROKKING, half),
            negatives(rows, half),
            signal,
            detector,
            saturated=True,
        ).score
        for signal in CHEAP
        for detector in CALLERS
    }
    return max(scores, key=lambda pair: -math.inf if math.isnan(scores[pair]) else scores[pair])


def score_interval(found: Rates, n_resamples: int = 10_000) -> tuple[float, float]:
    """Bootstrap interval of the score: runs with events and runs without are drawn anew."""
    rng = np.random.default_rng(0)
    runs = np.unique(found.run_of)
    per_run = np.array([found.hits[found.run_of == run].mean() for run in runs])
    a = per_run[rng.integers(0, len(per_run), (n_resamples, len(per_run)))].mean(1)
    b = found.false[rng.integers(0, len(found.false), (n_resamples, len(found.false)))].mean(1)
    low, high = np.quantile(a - b, [0.025, 0.975])
    return float(low), float(high)


def _signal(rows: dict[str, list[Row]]) -> Claim:
    missing = [s for s in (*GROKKING, *WITHOUT) if s not in rows]
    if missing:
        return _not_tested("B19", B19, RULE_19, f"Not run: {', '.join(missing)}.")
    signal, detector = best_pair(rows, 0)
    positive, negative = of_systems(rows, GROKKING, 1), negatives(rows, 1)
    found = rates(positive, negative, signal, detector, saturated=True)
    n = len(np.unique(found.run_of))
    if n < 2 or not len(found.false):
        return _not_tested("B19", B19, RULE_19, "No event began when the loss was saturated.")
    other = rates(positive, negative, "test_loss", "find_transitions", saturated=True)
    loss = rates(positive, negative, "train_loss", "find_transitions", saturated=True)
    ahead = f"{OverSeeds(list(found.octaves))} octaves" if len(found.octaves) > 1 else "not known"
    steps = OverSeeds(list(found.lead)) if len(found.lead) > 1 else "not known"
    return Claim(
        "B19",
        B19,
        SOURCE,
        RULE_19,
        found.score,
        score_interval(found),
        "share of events hit less share of runs with false alarms",
        f"windows anywhere in the same runs hold an alarm in {mean(found.chance):.2f} of cases; "
        f"find_transitions on the test loss scores {other.score:.2f}, on the training loss "
        f"{loss.score:.2f}",
        n,
        with_enough_seeds("answered", n),
        f"{detector} on {signal} hits {mean(found.hits):.2f} of the groks behind a saturated loss "
        f"with false alarms in {mean(found.false):.2f} of runs without one, dated {steps} steps "
        f"({ahead}) before the progress measure is half way; but the events are so gradual that a "
        f"window anywhere in these runs holds one of its alarms in {mean(found.chance):.2f} of "
        "places.",
    )


def places(rows: Sequence[Row], key: str, part: int) -> list[float]:
    """Per run with a known place: mean over its events of agreement or of the first in rank.

    Args:
        rows: Runs.
        key: Which ranking.
        part: 0 for whether the first in rank is true, 1 for the probability of ranking above.
    """
    values = []
    for row in rows:
        own = []
        for place in row["located"]:
            if place is not None:
                unfound = (place["chance"], 0.5)[part]
                own.append(place[key][part] if key in place else unfound)
        if own:
            values.append(float(np.mean(own)))
    return values


def _place(rows: dict[str, list[Row]]) -> Claim:
    missing = [s for s in (*WITH_EVENTS, *SPIKES) if s not in rows]
    if missing:
        return _not_tested("B20", B20, RULE_20, f"Not run: {', '.join(missing)}.")
    chosen = of_systems(rows, [*WITH_EVENTS, *SPIKES])
    values = places(chosen, PLACE, 1)
    if len(values) < 2:
        return _not_tested("B20", B20, RULE_20, "No run has an event with a known place.")
    found = OverSeeds(values)
    first, known = (
        OverSeeds(places(chosen, PLACE, 0)),
        OverSeeds(places(chosen, "update_norm, known window", 1)),
    )
    gradient = OverSeeds(places(chosen, "gradient_norm, known window", 1))
    level = OverSeeds(places(chosen, "update_norm, known window, level alone", 1))
    chance = np.mean([p["chance"] for row in chosen for p in row["located"] if p is not None])
    return Claim(
        "B20",
        B20,
        SOURCE,
        RULE_20,
        found.mean,
        found.interval,
        "probability that a true component ranks above another",
        f".5 for ranks by chance; in the known window {known}, by gradient norms there {gradient}, "
        f"by the update norm in it alone {level}",
        found.n_seeds,
        with_enough_seeds("answered", found.n_seeds),
        f"A component of the change ranks above another with probability {found}; the first in "
        f"rank is one of them in {first} of events, against {chance:.2f} by chance.",
    )


def _not_tested(id: str, statement: str, rule: str, sentence: str) -> Claim:
    return Claim(id, statement, SOURCE, rule, None, None, "", "none", 0, "not tested", sentence)
