"""Figures of norms over training by kind and depth, and of their shapes over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import phasescope as ps
from phasescope.experiments.resnet_gradients import evidence
from phasescope.experiments.resnet_gradients.config import Results, setting
from phasescope.experiments.settings import grouped

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SHOWN = (0.0, 0.08, 0.92)
KINDS = {
    "convolutions": ("conv",),
    "batch norms": ("bn",),
    "downsampling": ("downsample conv", "downsample bn"),
    "final layer": ("fc",),
}


def figures(results: Sequence[Results]) -> dict[str, Figure]:
    """Norms of one seed at each smoothing and shapes of all seeds, for every setting."""
    found: dict[str, Any] = {}
    for name, runs in grouped(results, lambda r: setting(r.config)).items():
        drawn = next((r for r in runs if r.detail is not None), None)
        if drawn is not None and drawn.detail is not None:
            for smoothing in SHOWN:
                label = f"smoothing {smoothing:g}" if smoothing else "raw"
                found[f"norms, {label}: {name}"] = _norms(drawn, smoothing)
        if len(runs) > 1:
            found[f"rise by kind: {name}"] = _rises(runs, name)
    return found


def _norms(result: Results, smoothing: float) -> Figure:
    detail = result.detail
    assert detail is not None
    y = detail.gradients
    if smoothing:
        y = ps.ema(y.log2(), smoothing).exp2()
    depths = np.array(result.numbers["depths"])
    panels = {}
    for title, kinds in KINDS.items():
        rows = evidence.layers(result, *kinds)
        panels[title] = {result.numbers["layers"][i]: (int(depths[i]), y[i].numpy()) for i in rows}
    how = f"an average of log norms with weight {smoothing:g} of the past" if smoothing else "raw"
    every = result.config.norms_every
    often = f"{every}th step" if every > 1 else "step"
    return ps.figures.norms_by_kind(
        detail.steps,
        panels,
        title=f"Gradient norms by kind and depth, {how}",
        computed=(
            f"Euclidean norm of the gradient of a batch, per layer, at every {often}; {how}. Batch "
            "norms: weight and bias together. "
            f"Seed {result.config.seed} of {setting(result.config)}."
        ),
    )


def _rises(runs: Sequence[Results], name: str) -> Figure:
    groups = {}
    for kind in ("conv", "bn", "downsample conv", "downsample bn", "fc"):
        groups[kind] = {
            "‖g‖": [evidence.mean(r, "rise", evidence.layers(r, kind)) for r in runs],
        }
        rows = [evidence.layers(r, kind, invariant=True) for r in runs]
        if len(rows[0]):
            groups[kind] |= {
                which: [
                    evidence.mean(r, "rise", at, source) for r, at in zip(runs, rows, strict=True)
                ]
                for which, source in (
                    ("‖g‖, scale-invariant layers", "gradients"),
                    ("‖g‖‖w‖, scale-invariant layers", "angular"),
                )
            }
    return ps.figures.seed_strips(
        groups,
        x_title="rise after the first drop (log2)",
        title=f"Rise of gradient norms: {name}",
        seen="Rows are kinds of layers.",
        computed="Highest over lowest mean of a twentieth of the training, from the lowest one of "
        "the first half on; mean over the layers of a kind.",
        misleads="Highest and lowest of noisy means lie apart even where nothing happens: by "
        "about .1 here.",
        line=0.0,
    )
