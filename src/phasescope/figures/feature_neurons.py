"""Figures of neurons that serve features: responses, biases, and means against a setting."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from plotly.subplots import make_subplots

from phasescope.figures.matrices import MatrixFrame, matrices_on_slider
from phasescope.figures.points import dots
from phasescope.figures.theme import COLOURS, DATA, INK, MUTED, VERMILLION, log_axis, plain, styled

MOST_TICKS = 12  # values of a setting that are written below the axis one by one


def activations_over_training(
    steps: Int[np.ndarray, " records"],
    activations: Float[np.ndarray, "records neurons features"],
    *,
    setting: str,
) -> go.Figure:
    """Response of every neuron to every feature alone, one sorted heat map per record.

    Neurons are sorted by how much their strongest feature stands out, and features by the neuron
    that responds to them most, in every record anew: a monosemantic layer is a diagonal above
    nothing.

    Args:
        steps: Steps of the records.
        activations: Single-feature activations; negative ones are drawn as none.
        setting: What the network is.

    Returns:
        The figure; it opens at the last record.

    Raises:
        ValueError: There is not one matrix for each step.

    Example:
        >>> S = np.random.default_rng(0).random((2, 4, 3))
        >>> len(activations_over_training(np.array([10, 20]), S, setting="toy").data)
        2
    """
    if len(steps) != len(activations) or not len(steps):
        raise ValueError(
            f"one matrix of activations per step is needed, at least one, but there are "
            f"{len(activations)} and {len(steps)} steps."
        )
    frames = []
    for step, S in zip(steps, activations, strict=True):
        positive = np.clip(S, 0, None)
        strength = positive.max(1) / (1e-10 + positive.mean(1))
        neurons = np.argsort(-strength, kind="stable")
        features = np.argsort(positive[neurons].argmax(0), kind="stable")
        frames.append(MatrixFrame(str(int(step)), positive[neurons][:, features]))
    return matrices_on_slider(
        frames,
        slider="step",
        x_title="feature, by the neuron that responds to it most",
        y_title="neuron, by how much one feature stands out",
        value="response",
        title=f"Responses to single features: {setting}",
        seen=(
            f"Activation of every neuron for each feature alone at value 1, of the first seed; "
            f"the slider goes through {len(steps)} records. A neuron with one bright cell serves "
            "one feature."
        ),
        computed=(
            "ReLU (or the model's activation) of W_in P e_i + b, sorted in each record anew; "
            "negative responses are drawn as zero."
        ),
        misleads=(
            "Rows are other neurons in other records. Responses to single features say nothing "
            "of what a neuron does where several meet. One seed."
        ),
        height=640,
    )


def bias_against_selectivity(
    biases: Float[np.ndarray, "seeds neurons"],
    selectivity: Float[np.ndarray, "seeds neurons"],
    *,
    setting: str,
    n_features: int | None = None,
    threshold: float = 0.9,
) -> go.Figure:
    """Bias of every neuron against the share of its response that one feature has, and sorted.

    Args:
        biases: Of every neuron of every seed.
        selectivity: The same; 0 for a neuron that responds to nothing.
        setting: What the network is.
        n_features: Marked among the sorted biases: so many neurons would serve one feature each.
        threshold: Above it a neuron counts as monosemantic: a vertical line.

    Returns:
        The figure.

    Raises:
        ValueError: The shapes differ.

    Example:
        >>> figure = bias_against_selectivity(-np.ones((1, 3)), np.ones((1, 3)), setting="toy")
        >>> len(figure.data[0].x)
        3
    """
    if biases.shape != selectivity.shape:
        raise ValueError(
            "a bias and a selectivity are needed for each neuron, but they have the shapes "
            f"{biases.shape} and {selectivity.shape}."
        )
    b, r = biases.ravel(), selectivity.ravel()
    dead = r == 0
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.05)
    for name, chosen, colour in (("neuron", ~dead, DATA), ("responds to nothing", dead, MUTED)):
        trace = dots(r[chosen], b[chosen], name=name, color=colour, size=4)
        figure.add_trace(trace.update(opacity=0.45), row=1, col=1)
    n_seeds, n_neurons = biases.shape
    gap = np.full((n_seeds, 1), np.nan)  # one trace for all seeds, a gap after each
    figure.add_scattergl(
        x=np.tile(np.arange(1, n_neurons + 2), n_seeds),
        y=np.concatenate([np.sort(biases, axis=1), gap], axis=1).ravel(),
        name="biases of a seed, sorted",
        mode="lines",
        line={"color": VERMILLION, "width": 1},
        opacity=0.3,
        row=1,
        col=2,
    )
    dotted = {"width": 1.2, "dash": "dot"}
    left: dict[str, Any] = {"row": 1, "col": 1}  # plotly's own annotation asks for strings
    right: dict[str, Any] = {"row": 1, "col": 2}
    figure.add_vline(threshold, line={"color": VERMILLION, **dotted}, **left)
    if n_features is not None:
        figure.add_vline(n_features, line={"color": INK, **dotted}, **right)
    figure.add_hline(0, line={"color": INK, "width": 0.8})
    figure.update_xaxes(title_text="share of its strongest feature", range=[-0.03, 1.03], col=1)
    figure.update_xaxes(title_text="neurons, by their bias", col=2)
    figure.update_yaxes(title_text="bias", col=1)
    figure.update_layout(showlegend=True)
    marked = "" if n_features is None else f"; the dotted line is at the {n_features} features"
    return styled(
        figure,
        title=f"Bias against selectivity: {setting}",
        seen=(
            f"Left, a dot for each of the {n_neurons} neurons of {n_seeds} seeds at the end; "
            f"beyond the dotted line ({threshold:g}) a neuron counts as monosemantic. Right, the "
            f"biases of every seed in order{marked}."
        ),
        computed="Largest positive response to a single feature over the sum of all of them.",
        misleads="Dots overlap where neurons are alike, so a dark patch may be many of them.",
        height=460,
    )


@dataclass(frozen=True, eq=False)
class MeanCurve:
    """Means over seeds against a setting.

    Example:
        >>> ends = np.array([[0.0, 2.0], [1.0, 3.0]])
        >>> MeanCurve("uniform", np.array([1.0, 2.0]), np.array([1.0, 2.0]), ends).name
        'uniform'
    """

    name: str
    """What the curve is."""
    x: Float[np.ndarray, " points"]
    """The setting."""
    means: Float[np.ndarray, " points"]
    """Mean over seeds."""
    intervals: Float[np.ndarray, "points 2"]
    """Ends of its interval."""


def means_against(
    curves: Sequence[MeanCurve],
    *,
    x_title: str,
    y_title: str,
    title: str,
    computed: str,
    misleads: str,
    log_x: bool = False,
) -> go.Figure:
    """Means over seeds with their intervals against a setting, a curve for each family.

    Args:
        curves: What is drawn; each has a colour of its own.
        x_title: What is varied, with its unit.
        y_title: What was measured, with its unit.
        title: Of the figure.
        computed: Caption: how.
        misleads: Caption: when it misleads.
        log_x: Whether the horizontal axis is logarithmic.

    Returns:
        The figure.

    Raises:
        ValueError: There is no curve.

    Example:
        >>> curve = MeanCurve("uniform", np.ones(1), np.ones(1), np.ones((1, 2)))
        >>> figure = means_against(
        ...     [curve], x_title="k", y_title="mono / N", title="t", computed="c.", misleads="m.",
        ... )
        >>> figure.data[0].name
        'uniform'
    """
    if not curves:
        raise ValueError("means_against needs at least one curve, but got none.")
    figure = go.Figure()
    for i, curve in enumerate(curves):
        figure.add_scatter(
            x=curve.x,
            y=curve.means,
            error_y={
                "type": "data",
                "array": curve.intervals[:, 1] - curve.means,
                "arrayminus": curve.means - curve.intervals[:, 0],
                "thickness": 1.4,
                "width": 4,
            },
            name=plain(curve.name),
            mode="lines+markers",
            line={"color": COLOURS[i % len(COLOURS)], "width": 1.6},
            marker={"size": 6},
        )
    positions = np.concatenate([curve.x for curve in curves])
    axis: dict[str, Any] = {}
    if log_x:
        axis = log_axis(float(positions.min()), float(positions.max()), 700)
        places = sorted(set(positions.tolist()))
        if len(places) <= MOST_TICKS:
            axis = {"type": "log", "tickvals": places, "ticktext": [f"{x:g}" for x in places]}
    figure.update_xaxes(title_text=x_title, **axis)
    figure.update_yaxes(title_text=y_title, rangemode="tozero")
    figure.update_layout(showlegend=True)
    return styled(
        figure,
        title=title,
        seen="Means over seeds with their intervals, a curve for each family of settings.",
        computed=computed,
        misleads=misleads,
        height=440 + 14 * len(curves),
    )
