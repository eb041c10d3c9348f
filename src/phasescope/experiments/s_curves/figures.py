"""The figures over settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

import phasescope as ps
from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.s_curves.config import Results, group_by_setting, per_seed

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_STATISTICS = {
    "s_ratio": (
        "S-ratio of every seed",
        "largest factor by which the rate -d ln L/dt rises",
        "Rate of the loss over the configured window, until it is at the floor of its first value.",
        "A single step upwards of the loss counts as a rate of nearly zero: ratios of 1e6 are such "
        "steps, or losses that hardly move at all.",
        True,
    ),
    "bumps": (
        "Bumps per seed",
        "bumps of |cos(x_i, a_j)|, prominence .05 or more (zero not drawn)",
        "Peaks of each alignment over the recorded steps that stand out by the prominence, summed "
        "over all pairs of columns.",
        "More columns have more pairs; the number depends on the prominence and on how often "
        "alignments are recorded. Settings in which no seed has a bump are left out.",
        True,
    ),
    "spread": (
        "Spread of the columns' learning speeds",
        "standard deviation / mean of the columns' path lengths",
        "Path of every column of X and Y together, until the loss is at 1% of its first value.",
        "A path is long where a column wanders, too, not only where it learns much.",
        False,
    ),
    "t1": (
        "Steps to 1% of the first loss",
        "steps",
        "First crossing, interpolated between steps; seeds that do not get there are missing.",
        "Learning rates are not matched unless the table of settings says so.",
        True,
    ),
}

_GEOMETRIC = ("s_ratio", "t1")


def figures(results: Sequence[Results]) -> dict[str, Figure]:
    """The figures over all settings.

    Args:
        results: Batches of one or more settings.
    """
    settings = group_by_setting(results)
    drawn = _curves(settings)
    drawn |= _alignments(results)
    for name, (title, axis, computed, misleads, log) in _STATISTICS.items():
        rows = [
            _row(setting, per_seed(runs, name), geometric=name in _GEOMETRIC)
            for setting, runs in settings.items()
            if all(name in run.numbers["per_seed"] for run in runs)
        ]
        rows = [row for row in rows if np.isfinite(row.values).any() and row.mean > 0]
        if rows:
            drawn[name] = ps.figures.values_by_setting(
                rows,
                title=title,
                axis=axis,
                computed=computed,
                misleads=misleads,
                log=log,
                mean_name="geometric mean" if name in _GEOMETRIC else "mean",
                null=1.0 if name == "s_ratio" else None,
                null_name="an exponential: 1",
            )
    return drawn


def _row(setting: str, values: np.ndarray, *, geometric: bool) -> ps.figures.SettingValues:
    """The values of a setting with their mean; the geometric one where values span decades."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return ps.figures.SettingValues(setting, values, float("nan"))
    over = OverSeeds((np.log(finite) if geometric else finite).tolist())
    ends = (over.mean, over.low, over.high)
    mean, low, high = (float(np.exp(end)) if geometric else end for end in ends)
    return ps.figures.SettingValues(setting, values, mean, (low, high) if over.interval else None)


def _curves(settings: dict[str, list[Results]]) -> dict[str, Figure]:
    """Loss curves of every setting that kept them, grouped by kind of training."""
    kinds: dict[str, list[ps.figures.SeedCurves]] = {}
    for setting, runs in settings.items():
        details = [run.detail for run in runs if run.detail is not None]
        if not details:
            continue
        config = runs[0].config
        kind = {"sgd": "sgd", "adam": "adam", "adamw": "adam"}[config.optimizer]
        if config.loss != "squared_error":
            kind = "softmax"
        elif config.init_scale != 1 or config.balance != "random" or config.imbalance != 1:
            kind = "start"
        kinds.setdefault(kind, []).append(
            ps.figures.SeedCurves(
                setting,
                np.arange(details[0].loss.shape[1]),
                np.concatenate([detail.loss for detail in details]),
                details[0].theory_steps,
                np.concatenate([detail.theory_loss for detail in details]),
            )
        )
    return {f"loss_{kind}": ps.figures.seed_curves(panels) for kind, panels in kinds.items()}


def _alignments(results: Sequence[Results]) -> dict[str, Figure]:
    """The slider of the first batch of each rank above one, if its alignments were kept."""
    drawn: dict[str, Figure] = {}
    for result in results:
        rank, detail = result.config.rank, result.detail
        name = f"alignments_rank_{rank}"
        if detail is not None and 1 < rank <= 20 and name not in drawn:
            drawn[name] = ps.figures.alignment_over_training(
                detail.alignment_steps, detail.alignments
            )
    return drawn
