"""The figures over settings: losses, activations, neurons, sweeps and the phase diagram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

import phasescope as ps
from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.monosemanticity.config import (
    Config,
    Detail,
    Results,
    per_seed,
    setting,
)
from phasescope.experiments.rules import share

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_PANELS = 12  # loss curves in one figure
MOST_SHOWN = 4  # settings whose neurons are drawn one by one
_STATISTICS = {
    "loss": (
        "Held-out loss",
        "squared error, summed over outputs",
        "Mean over 2,048 held-out rows at the end, where the learning rate is zero.",
        "Settings with other densities or tasks have other losses of the zero predictor.",
    ),
    "mono_90": (
        "Monosemantic neurons per feature",
        "mono / N at the threshold .9",
        "Neurons whose strongest feature has more than .9 of the response to single features, "
        "over the number of features, at the end.",
        "Several neurons may serve one feature, so the number may exceed one; it depends on the "
        "threshold and on the phase of the learning-rate cycle.",
    ),
    "covered": (
        "Features that have a monosemantic neuron",
        "share of the features",
        "Features to which a monosemantic neuron (.9) responds most, at the end.",
        "A feature without one may be represented as well, by neurons that serve others too.",
    ),
    "dead": (
        "Neurons that no single feature activates",
        "share of the neurons",
        "Activations of each feature alone at value 1.",
        "Such a neuron may fire where several features meet.",
    ),
}


def figures(results: Sequence[Results]) -> dict[str, Figure]:
    """The figures over all settings.

    Args:
        results: Runs of one or more settings.
    """
    points = _points(results)
    drawn = _losses(points)
    drawn |= _statistics(points)
    drawn |= _sweeps(points)
    drawn |= _plane(points)
    drawn |= _states(points)
    drawn |= _one_by_one(points)
    return drawn


_Points = dict[Config, list[tuple[Results, int]]]


def _points(results: Sequence[Results]) -> _Points:
    """Runs of every point of the grids, with the number of the point in each."""
    found: _Points = {}
    for result in results:
        for i, point in enumerate(result.config.points):
            found.setdefault(point, []).append((result, i))
    return found


def _values(runs: list[tuple[Results, int]], name: str) -> np.ndarray:
    return np.concatenate([per_seed(result, i, name) for result, i in runs])


def _detail(runs: list[tuple[Results, int]]) -> Detail | None:
    return next((r.details[i] for r, i in runs if len(r.details) > i and r.details[i]), None)


def _losses(points: _Points) -> dict[str, Figure]:
    """Training loss of every seed, a panel for each setting."""
    panels = []
    for point, runs in points.items():
        detail = _detail(runs)
        if detail is not None and len(panels) < MOST_PANELS:
            panels.append(ps.figures.SeedCurves(setting(point), detail.loss_steps, detail.loss))
    return {"loss_per_seed": ps.figures.seed_curves(panels, floor=0.01)} if panels else {}


def _statistics(points: _Points) -> dict[str, Figure]:
    """Every seed of every setting, by statistic."""
    drawn = {}
    for name, (title, axis, computed, misleads) in _STATISTICS.items():
        rows = []
        for point, runs in points.items():
            values = _values(runs, name)
            finite = values[np.isfinite(values)]
            if len(finite):
                found = OverSeeds(finite.tolist())
                row = ps.figures.SettingValues(setting(point), values, found.mean, found.interval)
                rows.append(row)
        if rows:
            drawn[name] = ps.figures.values_by_setting(
                rows, title=title, axis=axis, computed=computed, misleads=misleads
            )
    return drawn


def _sweeps(points: _Points) -> dict[str, Figure]:
    """mono/N against what is varied while all else is equal: learning rate, neurons."""
    drawn = {}
    for name, shown, x_title in (
        ("learning_rates", "the learning rate", "learning rate"),
        ("n_neurons", "the number of neurons", "neurons k"),
    ):
        families: dict[Config, dict[float, list[tuple[Results, int]]]] = {}
        for point, runs in points.items():
            family, x = _without(point, name)
            families.setdefault(family, {})[x] = runs
        curves = [_curve(family, name, at) for family, at in families.items() if len(at) > 1]
        if curves:
            drawn[f"mono_by_{name}"] = ps.figures.means_against(
                curves,
                x_title=x_title,
                y_title="mono / N at the threshold .9",
                title=f"Monosemantic neurons against {shown}",
                computed="At the end of the training, where the learning rate is zero; bars are "
                "95% intervals of the mean over seeds.",
                misleads="Learning rates and widths are not matched in loss: larger ones are "
                "further trained after as many steps.",
                log_x=True,
            )
    return drawn


def _without(point: Config, name: str) -> tuple[Config, float]:
    """A point with what is varied at its usual value, and the value that it has."""
    value = getattr(point, name)
    usual = getattr(Config(), name)
    family = replace(point, **{name: usual, "n_seeds": 1, "seed": 0})
    return family, float(value[0] if isinstance(value, tuple) else value)


def _curve(
    family: Config, name: str, at: dict[float, list[tuple[Results, int]]]
) -> ps.figures.MeanCurve:
    """Means and intervals over seeds of one family of settings."""
    xs = sorted(at)
    values = [_values(at[x], "mono_90") for x in xs]
    found = [OverSeeds(v[np.isfinite(v)].tolist()) for v in values]
    label = setting(family)
    label = label.replace(" k 128", "", 1) if name == "n_neurons" else label.replace(" 0.03", "", 1)
    return ps.figures.MeanCurve(
        label,
        np.array(xs),
        np.array([f.mean for f in found]),
        np.array([[f.low, f.high] for f in found]),
    )


def _plane(points: _Points) -> dict[str, Figure]:
    """Phase diagrams over neurons and density, for every learning rate that has a plane."""
    planes: dict[Config, dict[tuple[int, float], list[tuple[Results, int]]]] = {}
    for point, runs in points.items():
        usual = {"n_neurons": 128, "densities": (1 / 32,), "n_seeds": 1, "seed": 0}
        key = point.n_neurons, point.densities[0]
        planes.setdefault(replace(point, **usual), {}).setdefault(key, []).extend(runs)
    drawn = {}
    for index, (family, cells) in enumerate(planes.items()):
        ks, densities = (sorted({key[i] for key in cells}) for i in (0, 1))
        if len(ks) < 2 or len(densities) < 2:
            continue
        frames = []
        for shown, name in (("ignored", "ignored"), ("monosemantic", "covered")):
            matrix = np.full((len(ks), len(densities)), np.nan)
            for (k, density), runs in cells.items():
                place = ks.index(k), densities.index(density)
                matrix[place] = np.nanmean(_values(runs, name))
            frames.append(ps.figures.MatrixFrame(shown, matrix))
        label = setting(family).replace(" k 128", "", 1)
        drawn[f"plane_{index}"] = ps.figures.matrices_on_slider(
            frames,
            slider="features that are",
            x_title="density of the features",
            y_title="neurons k",
            value="share",
            span=(0.0, 1.0),
            x_names=[f"1/{1 / density:.3g}" for density in densities],
            y_names=[str(k) for k in ks],
            title="Phase diagram over neurons and density",
            seen=f"Share of the features that have a monosemantic neuron, or (slider) are ignored; "
            f"the others are polysemantic. {label}.",
            computed="Means over seeds at the end of the training, threshold .9; ignored: less "
            "than a tenth of the variance is explained.",
            misleads="All cells have the same number of steps: sparse features have been seen "
            "less often.",
        )
    return drawn


def _states(points: _Points) -> dict[str, Figure]:
    """State against rank, of the settings of several seeds in which features differ."""
    curves = []
    for point, runs in points.items():
        if point.frequencies == "uniform" and not point.importance_power:
            continue
        parts = [result.numbers["points"][i] for result, i in runs]
        counts = [len(part["per_seed"]["loss"]) for part in parts]
        if sum(counts) < 2:  # no share, and intervals from 0 to 1 all over the panel
            continue
        mono = np.average([part["by_feature"]["mono"] for part in parts], axis=0, weights=counts)
        found = [share(np.arange(sum(counts)) < round(m * sum(counts))) for m in mono]
        ranks = np.arange(1, len(mono) + 1, dtype=float)
        ends = np.array([[f.low, f.high] for f in found])
        curves.append(ps.figures.MeanCurve(setting(point), ranks, mono, ends))
    if not curves:
        return {}
    figure = ps.figures.means_against(
        curves[:8],
        x_title="rank of the feature, the most frequent (or important) first",
        y_title="share of seeds in which it is monosemantic",
        title="Which features become monosemantic",
        computed="Share of the seeds in which a monosemantic neuron (.9) responds to the feature "
        "most, at the end, with exact 95% intervals.",
        misleads="A smooth curve over seeds may be a sharp threshold at another rank in each.",
        log_x=True,
    )
    return {"state_by_rank": figure}


def _one_by_one(points: _Points) -> dict[str, Figure]:
    """Activations over training and bias against selectivity, of a few settings."""
    drawn: dict[str, Figure] = {}
    shown = [(point, d) for point, runs in points.items() if (d := _detail(runs)) is not None]
    for index, (point, detail) in enumerate(shown[:MOST_SHOWN]):
        name = setting(point)
        if len(detail.activations):
            drawn[f"activations_{index}"] = ps.figures.activations_over_training(
                detail.shown_steps, detail.activations, setting=name
            )
        drawn[f"biases_{index}"] = ps.figures.bias_against_selectivity(
            detail.biases, detail.selectivity, n_features=point.n_features, setting=name
        )
    return drawn
