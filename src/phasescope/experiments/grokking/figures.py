"""The figures of the experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import phasescope as ps
from phasescope.experiments.grokking.carriers import carrier_figures
from phasescope.experiments.grokking.config import Results, setting
from phasescope.experiments.grokking.overview import overview
from phasescope.experiments.grokking.spectra_figures import spectra_figures
from phasescope.figures import Stretch

# Runs whose curves and sliders a report draws: each adds about a megabyte.
MOST_DRAWN = 4
_PANELS = {
    "loss (nats)": {
        "test": "test_loss",
        "restricted, all pairs": "restricted_all",
        "excluded, training pairs": "excluded_train",
    },
    "share": {
        "logits along cos w(a+b-c)": "cube_fve",
        "pure neurons": "pure_neurons",
        "circularity": "circularity",
        "distance irrelevance": "distance_irrelevance",
    },
    "power-Gini": {"W_E": "power_gini_W_E", "W_L": "power_gini_W_L"},
    "squared norm of weights": {"all weights": "squared_norm"},
}


def figures(results: Sequence[Results]) -> dict[str, Any]:
    """Figures over seeds; curves, measures and networks of the runs whose recording is there."""
    found = overview(results)
    drawn = [result for result in results if result.detail is not None][:MOST_DRAWN]
    for result in drawn:
        assert result.detail is not None
        name = f"{setting(result.config)}, seed {result.config.seed}"
        curves, numbers = result.detail.curves, result.numbers
        steps = curves.steps.numpy()
        phases = _phases(numbers, int(steps[-1]))
        found[f"{name}: curves"] = ps.figures.grokking_curves(
            steps,
            {"train": curves.train_loss.numpy(), "test": curves.test_loss.numpy()},
            {"train": curves.train_accuracy.numpy(), "test": curves.test_accuracy.numpy()},
            phases=phases,
            spikes=_spikes(numbers),
        )
        if "measures" in numbers:
            series = numbers["measures"]
            found[f"{name}: measures"] = ps.figures.measures_over_training(
                np.array(series["steps"]),
                {
                    label: {
                        shown: np.array(series[key], dtype=float) for shown, key in panel.items()
                    }
                    for label, panel in _PANELS.items()
                },
                phases=phases,
            )
        if len(result.detail.scales):
            scales = {name: values.numpy() for name, values in result.detail.scales.items()}
            found[f"{name}: optimizer"] = ps.figures.scales_over_training(
                scales.pop("steps"),
                scales,
                result.config.eps,
                spikes=[s for s in _spikes(numbers) if s.name == "train loss up"],
            )
        if result.detail.frames:
            found[f"{name}: network"] = ps.figures.network_over_training(
                result.detail.frames,
                steps=steps,
                losses={"train": curves.train_loss.numpy(), "test": curves.test_loss.numpy()},
            )
    return found | spectra_figures(results) | carrier_figures(results)


def _phases(numbers: dict[str, Any], last: int) -> list[Stretch]:
    return [
        Stretch(phase["name"], phase["start"], last if phase["end"] is None else phase["end"])
        for phase in numbers.get("phases", [])
    ]


def _spikes(numbers: dict[str, Any]) -> list[Stretch]:
    return [
        Stretch(kind.replace("_", " "), start, end)
        for kind, spikes in numbers.get("spikes", {}).items()
        for start, end in zip(spikes["start"], spikes["end"], strict=True)
    ]
