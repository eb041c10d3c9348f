"""Figures of norms over training and of their shapes over seeds, of freezing and of joining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import phasescope as ps
from phasescope.experiments.resnet_gradients import evidence
from phasescope.experiments.resnet_gradients.config import (
    COSINE,
    FREEZING,
    STITCHED,
    Results,
    setting,
)
from phasescope.experiments.resnet_gradients.unit_figures import (
    scores_of_units,
    scoring_over_training,
)
from phasescope.experiments.settings import by_seed, grouped

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
    """Norms of one seed at each smoothing and shapes of all seeds; what freezing and joining cost.

    Networks whose stages are frozen have no norms from some step on, so none are drawn.
    """
    found: dict[str, Any] = {}
    for name, runs in grouped(_with_norms(results), lambda r: setting(r.config)).items():
        drawn = next((r for r in runs if r.detail is not None), None)
        if drawn is not None and drawn.detail is not None:
            for smoothing in SHOWN:
                label = f"smoothing {smoothing:g}" if smoothing else "raw"
                found[f"norms, {label}: {name}"] = _norms(drawn, smoothing)
        if len(runs) > 1:
            found[f"rise by kind: {name}"] = _rises(runs, name)
    others = {
        "units that score": scoring_over_training(results),
        "scores of units": scores_of_units(results),
        "freezing": _freezing(results),
        "joined networks": _joined(results),
    }
    for name, drawn in others.items():
        if drawn is not None:
            found[name] = drawn
    return found


def _with_norms(results: Sequence[Results]) -> list[Results]:
    return [r for r in results if "gradients" in r.numbers]


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


def _freezing(results: Sequence[Results]) -> Figure | None:
    """Accuracies and savings of the trainings that B17 compares; None if nothing was frozen."""
    groups = {}
    for name, base in FREEZING.items():
        runs = by_seed(results, base).values()
        if runs:
            groups[name] = {
                "test accuracy": [r.numbers["final_accuracy"] for r in runs],
                "share of the computation saved": [_saved(r) for r in runs],
            }
    if not any(name in groups for name, base in FREEZING.items() if base.freezing != "none"):
        return None
    return ps.figures.seed_strips(
        groups,
        x_title="share",
        title="Stages frozen in sequence: accuracy and computation saved",
        seen="Rows are trainings on the same images.",
        computed="Accuracy of the trained network on all test images. Computation counts the "
        "multiplications of convolutions and the final layer, backward twice forward; against "
        f"{COSINE.n_epochs} epochs of all stages.",
        misleads="Multiplications are not time: batch norms and moving data cost time too.",
    )


def _saved(result: Results) -> float:
    """Share of the multiplications of `COSINE` that a training saves, shorter ones included."""
    used = (1 - result.numbers["stages"]["saved"]) * result.config.n_epochs
    return 1 - used / COSINE.n_epochs


def _joined(results: Sequence[Results]) -> Figure | None:
    """Accuracies of joined networks by stage; None if none were joined."""
    runs = [r for r in by_seed(results, STITCHED).values() if "stitched" in r.numbers]
    if not runs:
        return None
    fronts = {
        "front of another network": "other",
        "own front": "same",
        "untrained front": "untrained",
    }
    groups: dict[str, dict[str, list[float]]] = {
        f"after stage {stage}": {
            label: [r.numbers["stitched"][key][i] for r in runs] for label, key in fronts.items()
        }
        for i, stage in enumerate(runs[0].numbers["stitched"]["stages"])
    }
    groups["second network alone"] = {
        "front of another network": [],
        "own front": [r.numbers["stitched"]["alone"] for r in runs],
    }
    return ps.figures.seed_strips(
        groups,
        x_title="test accuracy",
        title="Front of one network before the back of another",
        seen="Rows are the stages after which networks are joined.",
        computed="Both parts fixed, with a 1 x 1 convolution between them that is found by least "
        "squares and trained for two epochs. All test images.",
        misleads="The convolution between them learns too: an untrained front shows how much.",
    )
