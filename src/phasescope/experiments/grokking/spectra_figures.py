"""Figures of the spectra of grokking runs: all from the stored numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import phasescope as ps
from phasescope.experiments.grokking.config import Results
from phasescope.experiments.grokking.evidence import most_seeds
from phasescope.experiments.grokking.rankings import KINDS
from phasescope.figures import Bundle, MassAndEffect

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_SHOWN = "weights, mean"


def spectra_figures(results: Sequence[Results]) -> dict[str, Figure]:
    """Figures over the runs of the setting with the most seeds, and of the first of them.

    Args:
        results: Runs; those without spectra are left out.
    """
    runs = most_seeds(results, "spectra")
    if not runs:
        return {}
    spectra = [run.numbers["spectra"] for run in runs]
    first, config = spectra[0], runs[0].config
    keys = runs[0].numbers.get("final_measures", {}).get("restricted_keys", ())
    drawn = {f"spectra: {name}": _weights(spectra, name) for name in ("raw", "centred")}
    drawn["spectra: gradients"] = _gradients(spectra)
    drawn["spectra: components"] = ps.figures.component_frequencies(
        {
            f"{name} weights, seed {config.seed}": np.array(rows["power_W_E"])
            for name, rows in first["components"].items()
        },
        keys,
    )
    drawn |= {
        f"spectra: without component 0, {place}": _subtraction(spectra, f"raw, {place}")
        for place in ("plateau", "end")
        if all(f"raw, {place}" in row["subtraction"] for row in spectra)
    }
    drawn["spectra: logits"] = _logits(first["logits"])
    drawn["spectra: gradient profiles"] = _profiles(first["profiles"], first["n_steps"])
    if first.get("rankings"):
        drawn["spectra: mass and effect"] = _rankings(first["rankings"])
        drawn["spectra: rank correlations"] = _correlations(spectra)
    return drawn


def _weights(spectra: Sequence[Mapping[str, Any]], name: str) -> Figure:
    rows = [row["weights"][name] for row in spectra]
    k = min(len(row["S"]) for row in rows)
    index = np.arange(1, k + 1)
    return ps.figures.curves_beside_nulls(
        [
            Bundle("weights", index, np.array([row["S"][:k] for row in rows])),
            Bundle(
                "walks of their increments",
                index,
                np.array([row["walk_S"][:k] for row in rows]),
                is_null=True,
            ),
        ],
        x_title="component",
        y_title="singular value / largest",
        title=f"Singular values of the weights, {name}",
        seen="Weights at evenly spaced steps, and walks that start where they do.",
        computed=(
            "Raw: as recorded, the initial weights not subtracted. Centred: the mean over steps "
            "subtracted. A walk adds or subtracts each recorded increment at random; of 99 walks "
            "the median."
        ),
        misleads=(
            "A trajectory of weights has few large singular values whatever it learns: walks have. "
            "A count above a tenth of the largest is a statement about the largest."
        ),
        log_x=True,
        log_y=True,
    )


def _gradients(spectra: Sequence[Mapping[str, Any]]) -> Figure:
    rows = [row["gradients"] for row in spectra]
    k = min(len(row["S"]) for row in rows)
    index = np.arange(1, k + 1)
    return ps.figures.curves_beside_nulls(
        [
            Bundle("gradients", index, np.array([row["S"][:k] for row in rows])),
            Bundle("norms alone", index, np.array([row["norm_S"][:k] for row in rows]), True),
        ],
        x_title="component",
        y_title="singular value / largest",
        title="Singular values of the gradients",
        seen="Full-batch gradients at evenly spaced steps, and independent ones of equal norms.",
        computed="As recorded, neither centred nor scaled.",
        misleads=(
            "Gradients of a training set that is learned fall by orders of magnitude: the largest "
            "values are those of the first steps."
        ),
        log_x=True,
        log_y=True,
    )


def _subtraction(spectra: Sequence[Mapping[str, Any]], place: str) -> Figure:
    rows = [row["subtraction"][place] for row in spectra]

    def test_loss(name: str) -> np.ndarray:
        return np.array([[max(value[1], 1e-12) for value in row[name]] for row in rows])

    alphas = np.array(rows[0]["alphas"])
    return ps.figures.curves_beside_nulls(
        [
            Bundle("without component 0", alphas, test_loss("values")),
            Bundle("as far in the span", alphas, test_loss("controls_within"), True),
            Bundle("as far anywhere", alphas, test_loss("controls"), True),
        ],
        x_title="strength α",
        y_title="test loss (nats)",
        title=f"Component 0 of the {place.replace(', ', ' weights taken out, ')}",
        seen="0 is the trained network, 1 without the component, 2 with its opposite.",
        computed=(
            "Weights less α times the component's part of their displacement since the start. "
            "Controls go as far along random directions, of the span of the ten leading components "
            "and of all parameters: medians of 20."
        ),
        misleads=(
            "The plateau is the geometric mean of the steps of memorisation and grokking. The "
            "component is that of the whole trajectory, its end included."
        ),
        log_y=True,
    )


def _logits(row: Mapping[str, Any]) -> Figure:
    def array(name: str) -> np.ndarray:
        return np.array(row[name], dtype=np.float64)  # None becomes not-a-number

    return ps.figures.path_and_bends(
        array("points"),
        array("null_points"),
        np.array(row["steps"]),
        array("bends"),
        (array("bends_low"), array("bends_high")),
        turns=tuple(row["turns"]),
        boundaries=tuple(step for step in row["boundaries"] if step is not None),
        what="logits of fixed pairs; dotted: circuit formation, clean-up",
    )


def _profiles(row: Mapping[str, Any], n_steps: int) -> Figure:
    labels = [
        f"component {i}: centre at step {center:,.0f}, p = {p:.2g}"
        for i, (center, p) in enumerate(zip(row["center"], row["center_p"], strict=True))
    ]
    figure = ps.figures.component_profiles(
        np.array(row["steps"]), np.array(row["energy"]), tuple(labels), n_steps=n_steps
    )
    told = {
        "seen": (
            f"One dot per step that is drawn ({len(row['steps']):,} of {n_steps:,}): how much of a "
            "component's energy it has; dashed: the same share for every step. The titles give the "
            "centre of mass and its p-value."
        ),
        "computed": (
            "Squared entries of the time vectors of gradients scaled to norm one, not centred; the "
            "p is that of the centre of mass among permuted steps."
        ),
    }
    layout: Any = figure["layout"]
    return figure.update_layout(meta=dict(layout.meta) | told)


def _rankings(row: Mapping[str, Any]) -> Figure:
    panels = {}
    for kind in KINDS:
        correlation = row[kind]["correlations"][_SHOWN]
        panels[kind] = MassAndEffect(
            np.array(row[kind]["mass"]["weights"]),
            np.array(row[kind]["effects"]["mean"]),
            float("nan") if correlation is None else correlation["rho"],
            {"heads": "head", "neurons": "neuron", "frequencies": "frequency"}[kind],
        )
    return ps.figures.mass_against_effect(panels, effect="change of the loss at the mean (nats)")


def _correlations(spectra: Sequence[Mapping[str, Any]]) -> Figure:
    rows = [row["rankings"] for row in spectra if row.get("rankings")]
    groups: dict[str, dict[str, list[float]]] = {}
    for kind in KINDS:
        for effect in rows[0][kind]["effects"]:
            series = {
                predictor: [
                    found["rho"]
                    for row in rows
                    if (found := row[kind]["correlations"][f"{predictor}, {effect}"])
                ]
                for predictor in ("weights", "gradients", "final norm")
            }
            if any(series.values()):
                groups[f"{kind}, {effect}"] = series
    return ps.figures.seed_strips(
        groups or {"nothing": {"could be ranked": []}},
        x_title="Spearman's ρ of mass and effect",
        title="Ranked by spectral mass and by causal effect",
        seen=(
            "A row is a kind of part and of intervention; filled: mass in the weights' spectrum; "
            "hollow: in the gradients', and the norm of the part in the final network."
        ),
        computed=(
            "Zero, mean and resample ablation: rise of the loss. Patching: share of the difference "
            "in the right answer's logit when the left operand is replaced."
        ),
        misleads="Four heads have 24 orders: look at many seeds, and not at one.",
        line=0.0,
    )
