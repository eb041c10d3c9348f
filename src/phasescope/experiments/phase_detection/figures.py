"""The table of detectors and signals, the leads, and where changes were located."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from phasescope.experiments.phase_detection.claims import (
    CALLERS,
    PLACE,
    by_system,
    negatives,
    places,
)
from phasescope.experiments.phase_detection.config import (
    SPIKES,
    WITH_EVENTS,
    WITHOUT,
    Results,
)
from phasescope.experiments.phase_detection.rates import mean, rates
from phasescope.experiments.phase_detection.scoring import SIGNALS
from phasescope.figures.matrices import MatrixFrame, matrices_on_slider
from phasescope.figures.strips import seed_strips

RANKINGS = {
    "movers, detected window": PLACE,
    "movers, known window": "update_norm, known window",
    "gradients, known window": "gradient_norm, known window",
    "level alone, known window": "update_norm, known window, level alone",
}


def figures(results: Sequence[Results]) -> dict[str, Any]:
    """Figures over the systems that were run."""
    rows = by_system(results)
    drawn: dict[str, Any] = {"alarms by signal and system": _table(rows)}
    leads = _leads(rows)
    if leads:
        drawn["lead of alarms"] = leads
    located = {
        system: {name: values for name, key in RANKINGS.items() if (values := places(own, key, 1))}
        for system, own in rows.items()
        if any(place is not None for row in own for place in row["located"])
    }
    if located:
        drawn["where it happened"] = seed_strips(
            located,
            x_title="probability that a component of the change ranks above another",
            title="Is the component named in which it happens?",
            seen="Every mark is a run; rows are systems whose components of the change are known.",
            computed="Components are ranked by how much more they moved in the window of the "
            "change than in windows of the same logarithmic width (movers), and by their norm in "
            "the window alone. The detected window is that of the nearest transition of the "
            "training loss; 0.5 where there was none.",
            misleads="With three components few values are possible; and what is large in every "
            "phase ranks high by its norm alone.",
            line=0.5,
        )
    return drawn


def _table(rows: dict[str, list[dict[str, Any]]]) -> Any:
    systems = [s for s in (*WITH_EVENTS, *SPIKES) if s in rows]
    controls = [s for s in WITHOUT if s in rows]
    frames = []
    for detector in ("find_spikes", *reversed(CALLERS)):
        matrix = np.full((len(systems) + len(controls), len(SIGNALS)), np.nan)
        for i, signal in enumerate(SIGNALS):
            for j, system in enumerate(systems):
                found = rates(rows[system], [], signal, detector, spike=system in SPIKES)
                matrix[j, i] = mean(found.hits)
            for j, system in enumerate(controls):
                found = rates([], negatives({system: rows[system]}), signal, detector)
                matrix[len(systems) + j, i] = -mean(found.false)
        frames.append(MatrixFrame(detector, matrix))
    return matrices_on_slider(
        frames,
        slider="detector",
        x_title="signal",
        y_title="system, controls without events at one end",
        value="hit (+), false alarm (−)",
        title="What tells that something happened",
        seen="One detector at a time. Positive: share of a system's events that it hits on a "
        "signal. Negative: share of runs without events in which it raises an alarm.",
        computed="A hit is an alarm dated within the event (10 to 90 % of the rise of a progress "
        "measure, a factor 1.25 of slack). Detectors have their defaults.",
        misleads="A detector that raises many alarms hits by chance: compare both sides.",
        span=(-1.0, 1.0),
        diverging=True,
        x_names=[name.replace("_", " ") for name in SIGNALS],
        y_names=[*systems, *controls],
    )


def _leads(rows: dict[str, list[dict[str, Any]]]) -> Any:
    groups: dict[str, dict[str, np.ndarray]] = {}
    for system in (s for s in WITH_EVENTS if s in rows):
        series = {
            f"{detector}, {signal}": rates(rows[system], [], signal, detector).octaves
            for signal in ("test_loss", "train_loss", "gradient_norm", "weight_norm")
            for detector in ("find_transitions", "OnlineDetector")
        }
        series = {name: values for name, values in series.items() if len(values)}
        if series:
            groups[system] = series
    if not groups:
        return None
    return seed_strips(
        groups,
        x_title="lead over the middle of the event, octaves (1: at half the steps)",
        title="How early is it noticed?",
        seen="Every mark is an event that was hit; to the right of zero it was noticed before its "
        "progress measure was half way.",
        computed="For find_transitions the onset of the transition, which is known afterwards; for "
        "the online detector the step at which the alarm was raised.",
        misleads="Misses have no mark: see the table of alarms.",
        line=0.0,
    )
