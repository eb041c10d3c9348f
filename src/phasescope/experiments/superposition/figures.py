"""The figures over settings: levels, dimensions per feature, importances, and one seed's matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

import phasescope as ps
from phasescope.experiments.superposition.config import LEVELS, Results, group_by_setting
from phasescope.experiments.superposition.run import BINS

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def figures(results: Sequence[Results]) -> dict[str, Figure]:
    """The figures over all settings.

    Args:
        results: Batches of one or more settings.
    """
    drawn: dict[str, Figure] = {}
    bundles, losses = [], []
    for index, (name, runs) in enumerate(group_by_setting(results).items(), start=1):
        config = runs[0].config
        if config.importance_decay == 1:
            counts, control = (
                np.sum([run.numbers[key] for run in runs], axis=0)
                for key in ("histogram", "control_histogram")
            )
            drawn[f"levels_{index}"] = ps.figures.dimensionality_levels(
                config.densities, BINS, counts, control, LEVELS
            )
        else:
            drawn[f"importance_{index}"] = _importance(runs)
        for found, key in ((bundles, "d_star"), (losses, "loss")):
            values = np.concatenate([run.numbers["by_density"][key] for run in runs])
            found.append(ps.figures.Bundle(name, 1 / config.densities, values))
        detail = next((run.detail for run in runs if run.detail is not None), None)
        if detail is not None:
            drawn[f"products_{index}"] = _products(name, config.densities, detail.W)
    drawn["dimensions_per_feature"] = ps.figures.curves_beside_nulls(
        bundles,
        x_title="1 / density",
        y_title="dimensions per feature d / |W|²",
        title="Dimensions for each feature that is represented",
        seen="Against the rarity of the features.",
        computed="d over the squared Frobenius norm of W, of every seed at every density.",
        misleads="It counts lengths, not features: many short features look like few long ones.",
        log_x=True,
    )
    drawn["loss"] = ps.figures.curves_beside_nulls(
        losses,
        x_title="1 / density",
        y_title="loss / loss of the zero predictor",
        title="What superposition buys",
        seen="Last loss against the rarity of the features.",
        computed="Mean over the last 100 steps, over the density (and importance) times 1/3.",
        misleads="The losses of rare features are small whatever the model does with them.",
        log_x=True,
    )
    return drawn


def _importance(runs: Sequence[Results]) -> Figure:
    """Mean length of every feature by density, the most important first."""
    config = runs[0].config
    norms = np.mean([run.numbers["norm_by_importance"] for run in runs], axis=0)
    return ps.figures.matrices_on_slider(
        [ps.figures.MatrixFrame("", norms.T)],
        slider="",
        x_title="density, from 1 down in equal ratios",
        y_title="feature, by importance",
        value="|W_i|",
        span=(0.0, 1.2),
        title="Which features are represented",
        seen=f"Mean length over seeds; importance {config.importance_decay:g} to the power i. "
        f"Density falls from 1 to {config.lowest_density:g} from left to right.",
        computed="Length of the direction of every feature, averaged over seeds.",
        misleads="A mean of one half may be half of the seeds with a whole feature.",
    )


def _products(name: str, densities: np.ndarray, W: np.ndarray) -> Figure:
    """W Wᵀ of the first seed, with a slider over densities; features by what they meet."""
    frames = []
    for density, directions in zip(densities, W, strict=True):
        order = _by_neighbours(directions)
        frames.append(
            ps.figures.MatrixFrame(f"{density:.3g}", directions[order] @ directions[order].T)
        )
    return ps.figures.matrices_on_slider(
        frames,
        slider="density",
        x_title="feature",
        y_title="feature",
        value="W_i · W_j",
        span=(-1.0, 1.0),
        diverging=True,
        title=f"Which features share dimensions: {name}",
        seen="Products of the directions of all features of the first seed; features that "
        "interfere stand together. The slider goes through the densities.",
        computed="W Wᵀ, rows and columns sorted so that a feature is followed by the one that it "
        "interferes with most among those left.",
        misleads="One seed. The order is a greedy one: blocks can be torn apart.",
        height=620,
    )


def _by_neighbours(W: np.ndarray) -> list[int]:
    """Features in an order in which those that interfere are neighbours, the longest first."""
    products = np.abs(W @ W.T)
    np.fill_diagonal(products, 0)
    left = np.argsort(-np.linalg.norm(W, axis=1)).tolist()
    order: list[int] = []
    while left:
        following = left[0]
        if order:
            best = max(left, key=lambda j: products[order[-1], j])
            if products[order[-1], best] > 0.1:
                following = best
        order.append(following)
        left.remove(following)
    return order
