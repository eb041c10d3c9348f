"""Figures of the barriers between levels, within them, and of what connects classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

import phasescope as ps
from phasescope.experiments.mode_connectivity.config import (
    Results,
    group_by_setting,
    per_seed,
)
from phasescope.experiments.mode_connectivity.family import KINDS, LEVELS

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MODELS = {"base": "base", "batch": "batches", "init": "start", "both": "both"}


def figures(results: Sequence[Results]) -> dict[str, Figure]:
    """The figures that these runs allow.

    Args:
        results: Runs of one or more settings.
    """
    found: dict[str, Figure] = {}
    classifiers = {}
    for name, runs in group_by_setting(results).items():
        if runs[0].config.part == "classifier":
            classifiers[name] = {
                label: per_seed(runs, f"ratio {how}")
                for label, how in (
                    ("weights matched", "matched"),
                    ("activations matched", "activations"),
                    ("as they are", "naive"),
                    ("random target", "random"),
                )
            }
        else:
            found[f"barriers of {name}"] = _barriers(name, runs)
            found[f"hops of {name}"] = _hops(name, runs)
            found[f"map of {name}"] = _map(name, runs)
    if classifiers:
        found["classifiers"] = ps.figures.seed_strips(
            classifiers,
            x_title="test loss half-way over that of the ends",
            title="Half-way between two trained classifiers",
            seen="Rows are optimizers, learning rates and networks. Dotted: 1.5, below which a "
            "pair counts as connected.",
            computed="Mean test loss in the middle of the straight line over the mean of the ends; "
            "batch norms counted anew.",
            misleads="The middle is not always the highest place. Barriers of loss and accuracy on "
            "both sets are in the numbers.",
            log=True,
            line=1.5,
        )
    return found


def _barriers(name: str, runs: Sequence[Results]) -> Figure:
    tolerance = float(np.nanmedian(per_seed(runs, "tolerance")))
    return ps.figures.seed_strips(
        {
            pair: {
                label: per_seed(runs, f"{key} {how}")
                for label, how in (
                    ("aligned", "best"),
                    ("quadratic curve", "curve"),
                    ("as they are", "naive"),
                )
            }
            for pair, key in (
                ("poly to mono", "cross"),
                ("poly to poly", "poly"),
                ("mono to mono", "mono"),
            )
        },
        x_title="barrier (held-out loss)",
        title=f"Barriers between models: {name}",
        seen="Rows are pairs of models on one embedding. Dotted: the median over seeds of what "
        "counts as flat, the 95th percentile of the barriers between forks of one run.",
        computed="Rise of the held-out loss over the line between its values at the ends. Aligned: "
        "the lowest of three orders of neurons; the curve begins from that one.",
        misleads="Seeds without a pair of equal loss are drawn, too; the claim leaves them out.",
        line=tolerance,
    )


def _hops(name: str, runs: Sequence[Results]) -> Figure:
    return ps.figures.seed_strips(
        {
            pair: {"smallest pull": per_seed(runs, f"hop {pair}")}
            for pair in ("poly to mono", "mono to poly", "same basin", "random")
        },
        x_title="pull λ (0: none is needed)",
        title=f"Smallest pull into another basin: {name}",
        seen='Rows are starts and targets; "same basin" are two forks of one model, "random" '
        "pulls towards a random target as far away and asks whether the other level is reached.",
        computed="Bisection to a factor of 1.5 between 1e-4 and 10; landed are models whose "
        "barrier to the target is within the tolerance and whose mono/N is at least as near to "
        "its as to the start's.",
        misleads="Seeds in which the strongest pull does not suffice cannot be drawn and are not "
        "in the median; the claim counts them. Seeds whose levels are alike in mono/N are drawn, "
        "too, where the barrier alone decides; the claim leaves them out.",
    )


def _map(name: str, runs: Sequence[Results]) -> Figure:
    """All models of the run's first seed."""
    numbers = runs[0].numbers["per_seed"]
    barriers = torch.tensor(numbers["map barriers"][0], dtype=torch.float64)
    return ps.figures.basin_map(
        ps.basin_map(barriers, numbers["tolerance"][0]),
        np.array(numbers["map mono"][0]),
        value="mono/N (.9)",
        names=[f"{level}, {MODELS[kind]}" for level in LEVELS for kind in KINDS],
        title=f"Models of one seed after alignment: {name}",
    )
