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
from phasescope.experiments.grokking.config import Config
from phasescope.experiments.grokking.training import measured_rows, network_at, task_of
from phasescope.training import TrainingCurves

# A float32 loss is exactly zero below about 1e-8; its logarithm is drawn here.
_LEAST_LOSS = 1e-10
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


def measured(
    config: Config, run: ps.Run, curves: TrainingCurves, progress: Callable[[float], None]
) -> dict[str, Any]:
    """Every number of a run: progress measures of the kept weights, times, phases, spikes.

    The key frequencies are those of the final network, for all steps: a series of its own keys
    would be a moving target.

    Args:
        config: The run's configuration.
        run: Its recording.
        curves: Losses and accuracies of every step.
        progress: Called with the share that is done.
    """
    task, split = task_of(config)
    kept = measured_rows(config, run)
    steps = run["weights"].steps[kept].tolist()
    final = measure(observe(network_at(config, run, -1)), task, split)
    keys = final.restricted_keys
    rows = []
    for row in kept:
        rows.append(measure(observe(network_at(config, run, row)), task, split, keys=keys))
        progress(len(rows) / len(kept))
    series = {name: [_value(row, name) for row in rows] for name in SERIES}
    other = next((name for name in task.coordinates if name != task.basis), None)
    return {
        "measures": {"steps": steps, **series},
        "untrained": _row(rows[0]),
        "final_measures": _row(final),
        "other_basis": _row(measure(observe(network_at(config, run, -1)), task, split, basis=other))
        if other
        else None,
        "times": _times(curves),
        "phases": _phases(steps, series),
        "spikes": _spikes(curves, steps, series),
        "falling_share": ps.falling_share(curves.train_loss),
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
        "keys": {name: list(rule.base) for name, rule in row.keys.items()},
        "harmonics": {name: list(rule.harmonics) for name, rule in row.keys.items()},
        "restricted_keys": list(row.restricted_keys),
        "excluded_per_frequency": [round(x, 6) for x in row.excluded_per_frequency],
        "neurons_per_key": {str(k): n for k, n in row.neurons["post"].counts.items()},
        "median_fve": row.neurons["post"].median_fve,
        "difference_share": row.difference_share,
        "accuracy_without_place": None if row.without_place is None else row.without_place.accuracy,
    }


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
    gap = int(np.median(np.diff(steps)))
    even = [i for i, step in enumerate(steps) if step % gap == 0]
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
    curves: TrainingCurves, steps: Sequence[int], series: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """Spikes up and down of both losses, and what they leave behind."""
    phases = _phases(steps, series)
    found: dict[str, Any] = {}
    for name in ("train_loss", "test_loss"):
        loss: Tensor = getattr(curves, name).clamp(min=_LEAST_LOSS)
        for direction in ("up", "down"):
            spikes = ps.find_spikes(curves.steps, loss, direction)
            drift = ps.drift_after(curves.steps, loss, spikes)
            restricted = torch.tensor(series["restricted_all"], dtype=torch.float64).log10()
            effect = ps.recovery(torch.tensor(steps), restricted, spikes)
            found[f"{name}_{direction}"] = {
                "peak": spikes.peak.tolist(),
                "start": spikes.start.tolist(),
                "end": spikes.end.tolist(),
                "height": [round(x, 3) for x in spikes.height.tolist()],
                "phase": [phase_at(phases, step) for step in spikes.peak.tolist()],
                "drift": _median(drift.slopes),
                "drift_control": _median(drift.control),
                "restricted_change": _median(effect.change.abs()),
                "restricted_lasting": _median(effect.lasting),
            }
    return found


def _median(values: Tensor) -> float | None:
    kept = values[values.isfinite()]
    median = float(kept.median()) if len(kept) else math.nan
    return median if math.isfinite(median) else None
