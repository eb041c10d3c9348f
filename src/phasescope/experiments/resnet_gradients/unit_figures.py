"""Figures of units that score: how many over training, and each of one network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

import phasescope as ps
from phasescope.experiments.resnet_gradients.config import Results
from phasescope.experiments.resnet_gradients.unit_claims import NAMES, share_scoring
from phasescope.experiments.resnet_gradients.units import LEVEL, N_NULL, SCORES

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_THRESHOLD = (
    f"Threshold: the {LEVEL:.0%} quantile of the largest score of a unit of the layer in {N_NULL} "
    "random networks whose batch norms know the images."
)


def scoring_over_training(results: Sequence[Results]) -> Figure | None:
    """Share of units above the threshold at every checkpoint; None if none were scored."""
    runs = [r for r in results if "units" in r.numbers]
    if not runs:
        return None
    steps = np.array(runs[0].numbers["units"]["steps"])
    runs = [r for r in runs if len(r.numbers["units"]["steps"]) == len(steps)]
    bundles = [
        ps.figures.Bundle(label, steps, np.array([share_scoring(r, name) for r in runs]))
        for name, label in NAMES.items()
    ]
    tables = [r.numbers["units"]["scores"] for r in runs]
    random = [np.mean([t[name]["random_scoring"] for name in SCORES]) for t in tables]
    bundles.append(
        ps.figures.Bundle(
            "random networks, mean of the scores",
            steps,
            np.tile(np.array(random)[:, None], len(steps)),
            is_null=True,
        )
    )
    return ps.figures.curves_beside_nulls(
        bundles,
        x_title="step",
        y_title="share of units above the threshold",
        title="Units that score over training",
        seen="Share of the channels of all convolutions of the main path.",
        computed=f"{_THRESHOLD} Random networks: units of each above the threshold of the others.",
        misleads="A share near that of random networks may be chance. Layers have different "
        "numbers of units, and those near the output have most.",
    )


def scores_of_units(results: Sequence[Results]) -> Figure | None:
    """Every score of every unit of one network whose recording is at hand; None without."""
    drawn = next((r for r in results if r.detail is not None and r.detail.scores is not None), None)
    if drawn is None or drawn.detail is None or drawn.detail.scores is None:
        return None
    numbers = drawn.numbers["units"]
    layer = np.repeat(np.arange(len(numbers["sizes"])), numbers["sizes"])
    panels = {}
    for name, scores in zip(SCORES, drawn.detail.scores.numpy(), strict=True):
        bars = np.array(numbers["scores"][name]["threshold"])[layer]
        panels[NAMES[name]] = (scores, scores > bars[:, None])
    return ps.figures.unit_scores(
        np.array(numbers["steps"]),
        panels,
        layer,
        numbers["layers"],
        title="Scores of every unit over training",
        computed=f"Responses of channels behind their batch norm to synthetic images; {_THRESHOLD} "
        f"Seed {drawn.config.seed}.",
    )
