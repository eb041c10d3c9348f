"""Figures of networks that grok: curves with phases and spikes, measures, a slider over time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from plotly.subplots import make_subplots

from phasescope.figures.points import dots, drawing_note
from phasescope.figures.theme import (
    BLUE,
    COLOURS,
    GREEN,
    MUTED,
    ORANGE,
    VERMILLION,
    log_axis,
    plain,
    styled,
)

_SHADES = ("rgba(0,114,178,.08)", "rgba(184,120,0,.10)", "rgba(0,122,90,.10)", "rgba(0,0,0,0)")
_STEP_AXIS = {"type": "log", "dtick": 1, "exponentformat": "power"}


@dataclass(frozen=True)
class Stretch:
    """A phase or a spike, as a figure shades it."""

    name: str
    """What it is."""
    start: int
    """First step."""
    end: int
    """Last step."""


@dataclass(frozen=True)
class NetworkFrame:
    """What a network looks like at one step, in the coordinates of its group."""

    step: int
    """The step."""
    embedding_power: Float[np.ndarray, " k"]
    """Power of W_E in frequencies 1, 2, ..., as shares of their sum."""
    readout_power: Float[np.ndarray, " k"]
    """The same of the neuron-to-logit map along the results."""
    singular_values: Float[np.ndarray, " r"]
    """Singular values of W_E over the largest."""
    purity: Float[np.ndarray, " m"]
    """Share of every neuron's variance in its best frequency."""
    neuron: Float[np.ndarray, "n n"]
    """Output of the neuron with the largest variance at the end, by both operands."""
    attention: Float[np.ndarray, "n n"]
    """Attention of the first head to the left operand, by both operands."""


def grokking_curves(
    steps: Int[np.ndarray, " t"],
    losses: Mapping[str, Float[np.ndarray, " t"]],
    accuracies: Mapping[str, Float[np.ndarray, " t"]],
    *,
    phases: Sequence[Stretch] = (),
    spikes: Sequence[Stretch] = (),
) -> go.Figure:
    """Losses and accuracies of every step on logarithmic axes, phases and spikes shaded.

    Args:
        steps: Steps.
        losses: By name, such as ``"train"`` and ``"test"``, in nats.
        accuracies: By the same names.
        phases: Stretches that are shaded in the colour of their order.
        spikes: Stretches that are marked at the top.

    Returns:
        The figure.

    Example:
        >>> t = np.arange(4)
        >>> figure = grokking_curves(t, {"test": np.ones(4)}, {"test": np.zeros(4)})
        >>> [trace.name for trace in figure.data]
        ['test', 'test']
    """
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.05, row_heights=[0.65, 0.35]
    )
    shown = steps > 0
    x = steps[shown]
    colors = {name: COLOURS[i] for i, name in enumerate(losses)}
    drawable = np.stack([np.isfinite(y) & (y > 0) for y in losses.values()])
    for (name, y), good in zip(losses.items(), drawable, strict=True):
        curve = np.where(good, y, np.nan)[shown]
        figure.add_trace(dots(x, curve, name=plain(name), color=colors[name], size=3), 1, 1)
    for name, y in accuracies.items():
        trace = dots(x, y[shown], name=plain(name), color=colors[name], size=3)
        figure.add_trace(trace.update(showlegend=False), 2, 1)
    _shade(figure, phases, int(steps[-1]))
    values = np.concatenate([y[g] for y, g in zip(losses.values(), drawable, strict=True)])
    if len(spikes):
        figure.add_scattergl(
            x=[(spike.start + spike.end) / 2 for spike in spikes],
            y=[1.02] * len(spikes),
            text=[plain(spike.name) for spike in spikes],
            name="spike",
            mode="markers",
            marker={"symbol": "triangle-down", "color": VERMILLION, "size": 7},
            row=2,
            col=1,
        )
    axis = log_axis(float(values.min()), float(values.max()), 300) if len(values) else {}
    figure.update_yaxes(title_text="loss (nats)", **axis, row=1, col=1)
    figure.update_yaxes(title_text="accuracy (share)", range=[-0.03, 1.08], row=2, col=1)
    figure.update_xaxes(**_STEP_AXIS)
    figure.update_xaxes(title_text="step", row=2, col=1)
    figure.update_layout(legend_itemsizing="constant")
    seen = f"Every one of {len(x):,} steps from step 1 on, one dot per curve, on logarithmic axes."
    if phases:
        seen += f" Shaded, in this order: {', '.join(phase.name for phase in phases)}."
    if spikes:
        seen += f" Triangles: {len(spikes):,} spikes."
    return styled(
        figure,
        title="Losses and accuracies",
        seen=seen + drawing_note(drawable[:, shown], "zero or not finite"),
        computed=(
            "On all training and all test pairs before each update, losses in float64 unless the "
            "configuration says otherwise. Phases by grokking_phases, spikes by find_spikes."
        ),
        misleads=(
            "A logarithmic axis of steps gives half of its width to the first hundred. Phases are "
            "definitions applied to noisy curves: their boundaries have intervals, which the "
            "numbers give. Dots of later curves hide those of earlier ones."
        ),
        height=620,
    )


def measures_over_training(
    steps: Int[np.ndarray, " t"],
    panels: Mapping[str, Mapping[str, Float[np.ndarray, " t"]]],
    *,
    phases: Sequence[Stretch] = (),
) -> go.Figure:
    """Progress measures over the kept weights of a run, one panel for each unit.

    Args:
        steps: Steps of the kept weights.
        panels: Curves by name under the label of their axis; a label that ends in ``(nats)`` is
            drawn on a logarithmic axis.
        phases: Stretches that are shaded.

    Returns:
        The figure.

    Example:
        >>> figure = measures_over_training(np.arange(3), {"share": {"purity": np.ones(3)}})
        >>> figure.data[0].name
        'purity'
    """
    figure = make_subplots(
        rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.12 / len(panels)
    )
    count = 0
    for row, (label, curves) in enumerate(panels.items(), start=1):
        for name, y in curves.items():
            trace = dots(steps, y, name=plain(name), color=COLOURS[count % len(COLOURS)], size=5)
            figure.add_trace(trace.update(mode="lines+markers", line={"width": 1}), row, 1)
            count += 1
        values = np.concatenate([y[np.isfinite(y) & (y > 0)] for y in curves.values()])
        log = label.endswith("(nats)") and len(values) > 0
        axis = log_axis(float(values.min()), float(values.max()), 180) if log else {}
        figure.update_yaxes(title_text=plain(label), **axis, row=row, col=1)
    _shade(figure, phases, int(steps[-1]))
    figure.update_xaxes(title_text="step", row=len(panels), col=1)
    return styled(
        figure,
        title="Progress measures",
        seen=(
            f"One mark for each of the {len(steps):,} steps whose weights were kept; the first is "
            "the untrained network, the control of every measure."
            + (f" Shaded: {', '.join(phase.name for phase in phases)}." if phases else "")
        ),
        computed=(
            "From all pairs of operands in the coordinates of the operation's group, in float64, "
            "with the key frequencies of the final network. The glossary defines each measure."
        ),
        misleads=(
            "Keys of the final network favour it: a frequency that was used for a while and left "
            "is not seen. Marks are joined by straight lines, and between them nothing is known."
        ),
        height=140 + 210 * len(panels),
    )


def network_over_training(frames: Sequence[NetworkFrame]) -> go.Figure:
    """Spectra, singular values, neurons and attention at one step; a slider chooses the step.

    Args:
        frames: Steps in order; the last one is shown first.

    Returns:
        The figure.

    Raises:
        ValueError: There are no frames.

    Example:
        >>> one, square = np.ones(2), np.zeros((5, 5))
        >>> frame = NetworkFrame(0, one / 2, one / 2, one, one, square, square)
        >>> len(network_over_training([frame, frame]).layout.sliders[0].steps)
        2
    """
    if not frames:
        raise ValueError("network_over_training needs at least one frame, but got none.")
    titles = (
        "embedding W_E",
        "neurons to logits W_L",
        "singular values of W_E",
        "best frequency of neurons",
        "strongest neuron",
        "attention of head 0 to a",
    )
    figure = make_subplots(
        rows=3, cols=2, subplot_titles=titles, vertical_spacing=0.12, horizontal_spacing=0.16
    )
    panels = 0
    for index, frame in enumerate(frames):
        traces = _frame_traces(frame)
        panels = len(traces)
        for place, trace in enumerate(traces):
            trace.update(visible=index == len(frames) - 1)
            figure.add_trace(trace, place // 2 + 1, place % 2 + 1)
    steps = []
    for index, frame in enumerate(frames):
        visible = [i // panels == index for i in range(panels * len(frames))]
        steps.append(
            {"method": "restyle", "label": f"{frame.step:,}", "args": [{"visible": visible}]}
        )
    top = max(float(f.embedding_power.max()) for f in frames)
    top_readout = max(float(f.readout_power.max()) for f in frames)
    figure.update_xaxes(title_text="frequency", row=1)
    figure.update_yaxes(title_text="share of power", range=[0, 1.05 * top], row=1, col=1)
    figure.update_yaxes(range=[0, 1.05 * top_readout], row=1, col=2)
    figure.update_xaxes(title_text="rank", row=2, col=1)
    figure.update_yaxes(title_text="share of the largest", range=[0, 1.05], row=2, col=1)
    figure.update_xaxes(title_text="share of variance", range=[0, 1.02], row=2, col=2)
    figure.update_yaxes(title_text="neurons", row=2, col=2)
    figure.update_xaxes(title_text="place of b", row=3)
    figure.update_yaxes(title_text="place of a", row=3, col=1)
    figure.update_layout(
        showlegend=False,
        bargap=0.1,
        margin={"t": 64},  # the titles of the panels stand below the buttons of the figure
        sliders=[
            {
                "active": len(frames) - 1,
                "steps": steps,
                "currentvalue": {"prefix": "step "},
                "pad": {"t": 50, "b": 10},
            }
        ],
    )
    return styled(
        figure,
        title="The network over training",
        seen=(
            "Six views of the network at the step that the slider shows: power of embedding and "
            "of neuron-to-logit map by frequency, singular values of the embedding, how well its "
            "best frequency explains each neuron, and the output of one neuron and the attention "
            "of one head for every pair. Steps: "
            f"{', '.join(f'{frame.step:,}' for frame in frames)}."
        ),
        computed=(
            "In the coordinates of the operation's group: places are tokens for addition, "
            "discrete logarithms for multiplication. The neuron is the one with the largest "
            "variance over pairs at the end. Heat maps have the colours of their own range in "
            "each step, in 256 levels."
        ),
        misleads=(
            "One neuron and one head of many. Colours of different steps are not comparable; look "
            "at stripes, not at heights. A network without training has spectra that are flat, "
            "not zero."
        ),
        height=980,
    )


def _frame_traces(frame: NetworkFrame) -> list[go.Bar | go.Scatter | go.Histogram | go.Heatmap]:
    frequencies = np.arange(1, len(frame.embedding_power) + 1)
    ranks = np.arange(1, len(frame.singular_values) + 1)
    bins = {"start": 0.0, "end": 1.0001, "size": 0.05}
    return [
        go.Bar(x=frequencies, y=frame.embedding_power, marker_color=BLUE),
        go.Bar(x=frequencies, y=frame.readout_power, marker_color=GREEN),
        go.Scatter(x=ranks, y=frame.singular_values, mode="markers", marker_color=ORANGE),
        go.Histogram(x=frame.purity, xbins=bins, marker_color=MUTED),
        _heat(frame.neuron),
        _heat(frame.attention),
    ]


def _heat(values: Float[np.ndarray, "n n"]) -> go.Heatmap:
    """Values in 256 levels of their own range: a byte each in the report."""
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    levels = np.round(255 * scaled).astype(np.uint8)
    return go.Heatmap(z=levels, zmin=0, zmax=255, colorscale="Viridis", showscale=False)


def _shade(figure: go.Figure, stretches: Sequence[Stretch], last: int) -> None:
    for i, stretch in enumerate(stretches):
        figure.add_vrect(
            x0=max(stretch.start, 1),
            x1=min(stretch.end, last),
            fillcolor=_SHADES[i % len(_SHADES)],
            line_width=0,
            layer="below",
        )
