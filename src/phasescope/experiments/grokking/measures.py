"""What is measured in the kept weights of one run; times, phases and spikes of its curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import phasescope as ps
from phasescope.analysis.grokking import ProgressMeasures, measure, observe
from phasescope.experiments.grokking.anatomy import EXTRA_SERIES, anatomy, extra_values
from phasescope.experiments.grokking.config import Config
from phasescope.experiments.grokking.evidence import PLAIN
from phasescope.experiments.grokking.growth import evenly_spaced, key_growth
from phasescope.experiments.grokking.training import task_of
from phasescope.models import PairTransformer
from phasescope.report.plain import plain_value
from phasescope.training import TrainingCurves

N_CURVE = 40  # points of the curves that the numbers keep
# A float32 loss is exactly zero below about 1e-8; its logarithm is drawn here.
_LEAST_LOSS = 1e-10
_CURVES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
SERIES = (
    "test_loss",
    "restricted_all",
    "restricted_test",
    "excluded_train",
    "squared_norm",
    "cube_fve",
    "sum_share",
    "power_gini_W_E",
    "power_gini_W_L",
    "pure_neurons",
    "circularity",
    "distance_irrelevance",
    "collapse_float32",
)
# Heads, periodic neurons, singular values, frequencies.
DEVELOPMENTS = ("pattern_fve", "pure_neurons", "rank_W_E", "power_gini_W_E")


def measured(
    config: Config,
    steps: Sequence[int],
    network: Callable[[int], PairTransformer],
    curves: TrainingCurves,
    progress: Callable[[float], None],
) -> dict[str, Any]:
    """Every number of a run: progress measures of the kept weights, times, phases, spikes.

    The key frequencies are those of the final network, for all steps: a series of its own keys
    would be a moving target. A training that diverged is measured up to there.

    Args:
        config: The run's configuration.
        steps: Steps at which the network is measured, the last one included.
        network: The network at one of these steps.
        curves: Losses and accuracies of every step.
        progress: Called with the share that is done.
    """
    task, split = task_of(config)
    diverged = _first_not_finite(curves)
    if diverged is not None:
        curves = _until(curves, max(diverged, 1))
        steps = [step for step in steps if step < diverged] or [0]
    last = network(steps[-1])
    seen = observe(last)
    final = measure(seen, task, split)
    keys = final.restricted_keys
    rows, extra = [], []
    for step in steps:
        at_step = observe(network(step))
        rows.append(measure(at_step, task, split, keys=keys))
        extra.append(extra_values(at_step, task))
        progress(len(rows) / len(steps))
    series = {name: [_value(row, name) for row in rows] for name in SERIES}
    series |= {name: [values[name] for values in extra] for name in EXTRA_SERIES}
    other = next((name for name in task.coordinates if name != task.basis), None)
    phases = _phases(steps, series)
    found = {
        "final": {name: float(getattr(curves, name)[-1]) for name in _CURVES},
        "curve": _thin(curves),
        "measures": {"steps": list(steps), **series},
        "untrained": _row(rows[0]),
        "final_measures": _row(final),
        "other_basis": _row(measure(seen, task, split, basis=other)) if other else None,
        "anatomy": anatomy(last, seen, task, split),
        "key_growth": key_growth(
            steps, [row.cube_coefficients for row in rows], keys, fitted=_is_plain(config)
        ),
        "times": _times(curves),
        "phases": phases,
        "clean_up": _in_clean_up(phases, steps, series),
        "developments": developments(phases, steps, series),
        # Of a training that diverged at once there is no second step to compare with.
        "spikes": _spikes(curves, steps, series, phases) if len(curves.steps) > 1 else {},
        "falling_share": ps.falling_share(curves.train_loss) if len(curves.steps) > 1 else None,
        "diverged": diverged,
    }
    return plain_value(found)  # NaN, such as the purity of dead neurons, becomes None


def _first_not_finite(curves: TrainingCurves) -> int | None:
    """The first step with a loss that is not finite; what comes after it is not measured."""
    bad = ~(curves.train_loss.isfinite() & curves.test_loss.isfinite())
    return int(curves.steps[bad][0]) if bool(bad.any()) else None


def _until(curves: TrainingCurves, step: int) -> TrainingCurves:
    """The curves before a step."""
    kept = curves.steps < step
    return TrainingCurves(
        curves.steps[kept], **{name: getattr(curves, name)[kept] for name in _CURVES}
    )


def _is_plain(config: Config) -> bool:
    """Whether this is the setting whose growth a rule speaks of; fits take seconds a seed."""
    return all(getattr(config, name) == value for name, value in PLAIN.items())


def developments(
    phases: Sequence[Mapping[str, Any]],
    steps: Sequence[int],
    series: Mapping[str, Sequence[float]],
) -> dict[str, float] | None:
    """How much more of a change falls into the clean-up than its share of the steps.

    Between the beginning of circuit formation and the end of clean-up: the share of a measure's
    change that clean-up has, less the share of the steps that it has. 0 for an even pace.

    Args:
        phases: Phases of the run.
        steps: Steps of the series.
        series: Measures over training.

    Returns:
        By measure; None unless both phases have been found and have ended.

    Example:
        >>> phases = [{"name": "circuit formation", "start": 0, "end": 10},
        ...           {"name": "clean-up", "start": 10, "end": 20}]
        >>> found = developments(phases, [0, 10, 20], {n: [0.0, 1.0, 4.0] for n in DEVELOPMENTS})
        >>> found["pure_neurons"]
        0.25
    """
    named = {phase["name"]: phase for phase in phases}
    forming, cleaning = named.get("circuit formation"), named.get("clean-up")
    if forming is None or cleaning is None or cleaning["end"] is None:
        return None
    at = [forming["start"], cleaning["start"], cleaning["end"]]
    found = {}
    for name in DEVELOPMENTS:
        before, middle, after = np.interp(at, steps, series[name])
        if after != before:
            share = (after - middle) / (after - before)
            found[name] = float(share - (at[2] - at[1]) / (at[2] - at[0]))
    return found


def _in_clean_up(
    phases: Sequence[Mapping[str, Any]],
    steps: Sequence[int],
    series: Mapping[str, Sequence[float]],
) -> dict[str, float | None] | None:
    """Medians of all measures over the clean-up; None where there is none, or no step within."""
    inside = [
        i
        for phase in phases
        if phase["name"] == "clean-up"
        for i, step in enumerate(steps)
        if phase["start"] <= step and (phase["end"] is None or step <= phase["end"])
    ]
    if not inside:
        return None
    return {
        name: _median(torch.tensor([values[i] for i in inside], dtype=torch.float64))
        for name, values in series.items()
    }


def phase_at(phases: Sequence[Mapping[str, Any]], step: int) -> str:
    """Name of the phase in which a step lies.

    Args:
        phases: Phases of a run's numbers.
        step: The step.
    """
    names = [phase["name"] for phase in phases if phase["start"] <= step]
    return names[-1] if names else "memorisation"


def _value(row: ProgressMeasures, name: str) -> float:
    values: dict[str, float] = {
        "test_loss": row.test.loss,
        "restricted_all": row.restricted["all"].loss,
        "restricted_test": row.restricted["test"].loss,
        "excluded_train": row.excluded["train"].loss,
        "squared_norm": row.squared_norms["all"],
        "cube_fve": row.cube_fve,
        "sum_share": row.sum_share,
        "power_gini_W_E": row.sparsity.power_W_E,
        "power_gini_W_L": row.sparsity.power_W_L,
        "pure_neurons": row.neurons["post"].n / row.n_neurons,
        "circularity": row.circularity,
        "distance_irrelevance": row.distance_irrelevance,
        "collapse_float32": row.float32.collapse,
    }
    return values[name]


def _row(row: ProgressMeasures) -> dict[str, Any]:
    """The numbers of one checkpoint that are stored."""
    kept = {name: _value(row, name) for name in SERIES}
    return kept | {
        "basis": row.basis,
        "train_loss": row.train.loss,
        "keys": {name: list(rule.base) for name, rule in row.keys.items()},
        "harmonics": {name: list(rule.harmonics) for name, rule in row.keys.items()},
        "restricted_keys": list(row.restricted_keys),
        "excluded_per_frequency": [round(x, 6) for x in row.excluded_per_frequency],
        "mattering": mattering(row.excluded_per_frequency, row.train.loss),
        "neurons_per_key": {str(k): n for k, n in row.neurons["post"].counts.items()},
        "median_fve": row.neurons["post"].median_fve,
        "difference_share": row.difference_share,
        "accuracy_without_place": None if row.without_place is None else row.without_place.accuracy,
    }


def mattering(losses: Sequence[float], loss: float) -> float:
    """Share of the frequencies without which the training loss is at least twice as large.

    Example:
        >>> mattering([1.0, 3.0], 1.0)
        0.5
    """
    return float(np.mean([without >= 2 * loss for without in losses]))


def _times(curves: TrainingCurves) -> dict[str, Any]:
    times = ps.grok_times(curves.steps, curves.train_accuracy, curves.test_accuracy)
    return {
        "memorised": None if times.memorised is None else times.memorised.step,
        "grokked": None if times.grokked is None else times.grokked.step,
        "delay": times.delay,
        "ratio": times.ratio,
    }


def _phases(steps: Sequence[int], series: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Phases on the evenly spaced steps among those whose weights were kept."""
    even = evenly_spaced(steps)
    at = torch.tensor([steps[i] for i in even])
    names = ("test_loss", "excluded_train", "squared_norm")
    chosen = [torch.tensor([series[name][i] for i in even], dtype=torch.float64) for name in names]
    try:
        phases = ps.grokking_phases(at, *chosen)
    except ValueError:  # too few weights were kept
        return []
    return [
        {
            "name": phase.name,
            "start": phase.start.step,
            "start_low": phase.start.low,
            "start_high": phase.start.high,
            "end": None if phase.end is None else phase.end.step,
        }
        for phase in phases
    ]


def _spikes(
    curves: TrainingCurves,
    steps: Sequence[int],
    series: Mapping[str, Sequence[float]],
    phases: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Spikes up and down of both losses, and what they leave behind."""
    found: dict[str, Any] = {}
    for name in ("train_loss", "test_loss"):
        loss: Tensor = getattr(curves, name).clamp(min=_LEAST_LOSS)
        for direction in ("up", "down"):
            spikes = ps.find_spikes(curves.steps, loss, direction)
            drift = ps.drift_after(curves.steps, loss, spikes)
            restricted = torch.tensor(series["restricted_all"], dtype=torch.float64).log10()
            effect = ps.recovery(torch.tensor(steps), restricted, spikes)
            calm = _quiet_change(steps, restricted)
            names = [phase_at(phases, step) for step in spikes.peak.tolist()]
            found[f"{name}_{direction}"] = {
                "n": len(spikes),
                "by_phase": {phase: names.count(phase) for phase in sorted(set(names))},
                "median_height": _median(spikes.height),
                "median_width": _median(spikes.width.double()),
                "peak": spikes.peak.tolist(),
                "start": spikes.start.tolist(),
                "end": spikes.end.tolist(),
                "height": [round(x, 3) for x in spikes.height.tolist()],
                "phase": names,
                "drift": _median(drift.slopes),
                "drift_control": _median(drift.control),
                "restricted_change": _median(effect.change.abs()),
                "restricted_lasting": _median(effect.lasting),
                "restricted_quiet": calm,
            }
    return found


def _quiet_change(steps: Sequence[int], restricted: Tensor) -> float | None:
    """Median change of the restricted loss from one measured step to the next, in decades."""
    changes = restricted.diff().abs()
    return _median(changes[torch.tensor(steps[1:]) > steps[-1] // 4])


def _median(values: Tensor) -> float | None:
    kept = values[values.isfinite()]
    median = float(kept.median()) if len(kept) else math.nan
    return median if math.isfinite(median) else None


def _thin(curves: TrainingCurves) -> dict[str, list[Any]]:
    """Losses and test accuracy at some log-spaced steps."""
    steps = curves.steps.numpy()
    rows = np.unique(np.geomspace(1, steps[-1] + 1, N_CURVE).round().astype(int)) - 1
    found: dict[str, list[Any]] = {"steps": steps[rows].tolist()}
    for name in ("train_loss", "test_loss", "test_accuracy"):
        found[name] = getattr(curves, name).numpy()[rows].tolist()
    return found
