"""Write the tables of docs/phase_detection.md from results/phase_detection.json.

python docs/tabulate_phase_detection.py
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pages

from phasescope.experiments import phase_detection as experiment
from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.phase_detection.claims import (
    CALLERS,
    by_system,
    negatives,
    of_systems,
    places,
)
from phasescope.experiments.phase_detection.config import (
    GROKKING,
    SPIKES,
    WITH_EVENTS,
    WITHOUT,
)
from phasescope.experiments.phase_detection.figures import RANKINGS
from phasescope.experiments.phase_detection.rates import Row, mean, rates, stray
from phasescope.experiments.phase_detection.scoring import ANY, SIGNALS

RESULTS = pages.results_file("phase_detection")
# Not decided on; of runs that were searched with every signal.
OTHERS = ("relative_update", "update_cosine", ANY)
MARKS = ("<!-- results -->", "<!-- end of results -->")


def main() -> None:
    """Replace what stands between the marks of the page."""
    pages.fill("phase_detection", MARKS, shown())


def shown(file: Path = RESULTS) -> Iterator[str]:
    """What stands between the marks: verdicts and tables, or that nothing has run."""
    return pages.verdicts_and(tables, file)


def tables(stored: dict[str, Any]) -> Iterator[str]:
    """Every table under its caption."""
    results = pages.runs_of(experiment, stored)
    rows = by_system(results)
    late = of_systems(rows, GROKKING)
    n = sum(sum(row["saturated"]) for row in late)
    yield (
        f"**Groks behind a saturated loss**: {n} events of the {len(GROKKING)} grokking systems "
        f"that began when the training accuracy was 99 %, and {len(negatives(rows))} runs without "
        "events. Lead in steps and in octaves before the progress measure is half way, means with "
        "95 % intervals over events that were hit. The columns within 1.5 were added after the "
        "scoring: alarms dated within this factor of the middle:"
    )
    yield _signals(late, negatives(rows), saturated=True)
    searched = {s: own for s, own in rows.items() if all(ANY in row["alarms"] for row in own)}
    if set(GROKKING) <= set(searched):
        controls = [f"`{s}`" for s in WITHOUT if s in searched]
        without = "not known: no run without events was searched for them"
        if controls:
            without = f"in {len(negatives(searched))} runs of {', '.join(controls)}"
        yield (
            "**The same with further signals** (`--every-signal`), on which no verdict rests: the "
            "relative update, the cosine of successive updates, and the update norms of all "
            f"components one by one. False alarms {without}:"
        )
        yield _signals(late, negatives(searched), saturated=True, signals=OTHERS)
    others = [s for s in WITH_EVENTS if s not in GROKKING and s in rows]
    yield f"**The other systems with events** ({', '.join(others)}), all events:"
    yield _signals(of_systems(rows, others), negatives(rows), saturated=False)
    yield "**Share of runs without events with an alarm**, by system:"
    yield _controls(rows)
    yield (
        "**Spikes** that were planted, and slingshots, found by `find_spikes` until their end, at "
        "least within 20 steps:"
    )
    yield _spikes(rows)
    yield (
        "**Where it happened**: probability that a component of the change ranks above another, "
        "and share of events whose first in rank is one of them:"
    )
    yield _places(rows)


def _signals(
    positive: Sequence[Row],
    negative: Sequence[Row],
    *,
    saturated: bool,
    signals: Sequence[str] = SIGNALS,
) -> str:
    rows = []
    for signal in signals:
        for detector in CALLERS:
            found = rates(positive, negative, signal, detector, saturated=saturated)
            if not len(found.hits):
                continue
            near = rates(positive, negative, signal, detector, saturated=saturated, around=1.5)
            lead, octaves = ("–", "–")
            if len(found.lead) > 1:
                lead, octaves = (
                    str(OverSeeds(list(found.lead))),
                    str(OverSeeds(list(found.octaves))),
                )
            shares = (found.hits, found.chance, near.hits, near.chance, found.false)
            numbers = [f"{mean(share):.2f}" if len(share) else "–" for share in shares]
            rows.append([signal.replace("_", " "), f"`{detector}`", *numbers, lead, octaves])
    columns = ("hits", "by chance", "within 1.5", "by chance", "false alarms")
    return pages.markdown(["signal", "detector", *columns, "lead, steps", "octaves"], rows)


def _controls(rows: dict[str, list[Row]]) -> str:
    controls = [s for s in WITHOUT if s in rows]
    lines = []
    for signal in SIGNALS:
        for detector in CALLERS:
            shares = [
                mean(rates([], negatives({s: rows[s]}), signal, detector).false) for s in controls
            ]
            if all(math.isnan(x) for x in shares):
                continue
            cells = ("–" if math.isnan(x) else f"{x:.2f}" for x in shares)
            lines.append([signal.replace("_", " "), f"`{detector}`", *cells])
    return pages.markdown(["signal", "detector", *(f"`{s}`" for s in controls)], lines)


def _spikes(rows: dict[str, list[Row]]) -> str:
    lines = []
    for system in (s for s in SPIKES if s in rows):
        own = rows[system]
        for signal in SIGNALS:
            found = rates(own, negatives(rows), signal, "find_spikes", spike=True)
            if not len(found.hits):
                continue
            elsewhere = np.mean([stray(row, signal, "find_spikes", spike=True) for row in own])
            shares = (found.hits, found.chance, found.false)
            hits, chance, false = (f"{mean(x):.2f}" for x in shares)
            cells = [hits, chance, f"{elsewhere:.1f}", false]
            lines.append([f"`{system}`", signal.replace("_", " "), *cells])
    columns = ("found", "by chance", "stray alarms per run", "false alarms without events")
    return pages.markdown(["system", "signal", *columns], lines)


def _places(rows: dict[str, list[Row]]) -> str:
    lines = []
    for system in (*WITH_EVENTS, *SPIKES):
        known = [p for row in rows.get(system, []) for p in row["located"] if p is not None]
        if not known:
            continue
        cells = []
        for key in RANKINGS.values():
            above, first = (places(rows[system], key, part) for part in (1, 0))
            cells.append(f"{OverSeeds(above)}; {np.mean(first):.2f}")
        chance = np.mean([p["chance"] for p in known])
        lines.append([f"`{system}`", f"{chance:.2f}", *cells])
    return pages.markdown(["system", "by chance, first", *RANKINGS], lines)


if __name__ == "__main__":
    main()
