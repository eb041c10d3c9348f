"""Figures of a network over training: one slider for all views, and the same as an animation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from plotly.subplots import make_subplots

from phasescope.figures.points import dots, drawn_rows
from phasescope.figures.theme import (
    BLUE,
    COLOURS,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    log_axis,
    plain,
    styled,
)

TITLES = (
    "embedding W_E",
    "neurons to logits W_L",
    "singular values of W_E",
    "best frequency of neurons",
    "strongest neuron",
    "attention of head 0 to a",
)
# Above the titles of the panels, which its own margin would be taken for.
_TITLE = {"y": 0.985, "yanchor": "top", "automargin": False}
_MOVING_POINTS = 2000  # of a loss curve in an animation, which is drawn again at every step


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


def network_over_training(
    frames: Sequence[NetworkFrame],
    *,
    steps: Int[np.ndarray, " t"] | None = None,
    losses: Mapping[str, Float[np.ndarray, " t"]] | None = None,
) -> go.Figure:
    """Losses, spectra, singular values, neurons and attention; one slider moves all of them.

    Args:
        frames: Steps in order; the last one is shown first.
        steps: Steps of the losses.
        losses: By name, such as ``"train"`` and ``"test"``, in nats: drawn on top, every step a
            dot, with a line at the step that the slider shows.

    Returns:
        The figure.

    Raises:
        ValueError: There are no frames, or losses without steps.

    Example:
        >>> one, square = np.ones(2), np.zeros((5, 5))
        >>> frame = NetworkFrame(0, one / 2, one / 2, one, one, square, square)
        >>> len(network_over_training([frame, frame]).layout.sliders[0].steps)
        2
    """
    figure = _panels(frames, steps, losses or {}, None)
    fixed = len(figure.data)
    moving = 0
    for index, frame in enumerate(frames):
        traces = _moving_traces(frame, losses or {})
        moving = len(traces)
        for trace, place in traces:
            trace.update(visible=index == len(frames) - 1)
            figure.add_trace(trace, *place)
    slider = []
    for index, frame in enumerate(frames):
        visible = [True] * fixed + [i // moving == index for i in range(moving * len(frames))]
        slider.append(
            {"method": "restyle", "label": f"{frame.step:,}", "args": [{"visible": visible}]}
        )
    figure.update_layout(sliders=[_slider(slider, len(frames) - 1)])
    _captioned(figure, frames, bool(losses))
    return figure.update_layout(title=_TITLE)


def network_animation(
    frames: Sequence[NetworkFrame],
    *,
    steps: Int[np.ndarray, " t"] | None = None,
    losses: Mapping[str, Float[np.ndarray, " t"]] | None = None,
    milliseconds: int = 250,
) -> go.Figure:
    """The same views as an animation with a button to play it, to be exported as a page.

    ``network_animation(frames).write_html("training.html", auto_play=False)`` is a file that needs
    nothing else; `network_movie` makes a picture file. Of longer loss curves the extremes of runs
    of neighbouring points are drawn.

    Args:
        frames: Steps in order.
        steps: Steps of the losses.
        losses: By name, in nats; drawn on top.
        milliseconds: Time that each step is shown.

    Returns:
        The figure.

    Raises:
        ValueError: There are no frames, or losses without steps.

    Example:
        >>> one, square = np.ones(2), np.zeros((5, 5))
        >>> frame = NetworkFrame(0, one / 2, one / 2, one, one, square, square)
        >>> figure = network_animation([frame, frame])
        >>> len(figure.frames), figure.layout.updatemenus[0].buttons[0].label
        (2, 'play')
    """
    losses = losses or {}
    figure = _panels(frames, steps, losses, _MOVING_POINTS)
    fixed = len(figure.data)
    for trace, place in _moving_traces(frames[0], losses):
        figure.add_trace(trace, *place)
    where = list(range(fixed, len(figure.data)))
    names = [str(index) for index in range(len(frames))]
    figure.frames = [
        go.Frame(
            name=name,
            data=[
                # A frame's trace says in which panel it is, or it would move to the first one.
                trace.update(xaxis=figure.data[i].xaxis, yaxis=figure.data[i].yaxis)
                for i, (trace, _) in zip(where, _moving_traces(frame, losses), strict=True)
            ],
            traces=where,
        )
        for name, frame in zip(names, frames, strict=True)
    ]
    at_once = {"mode": "immediate", "transition": {"duration": 0}}
    play = at_once | {"frame": {"duration": milliseconds, "redraw": True}, "fromcurrent": True}
    still = at_once | {"frame": {"duration": 0, "redraw": True}}
    figure.update_layout(
        sliders=[
            _slider(
                [
                    {"method": "animate", "label": f"{frame.step:,}", "args": [[name], still]}
                    for name, frame in zip(names, frames, strict=True)
                ],
                0,
            )
        ],
        updatemenus=[
            {
                "type": "buttons",
                "direction": "left",
                "x": 0,
                "xanchor": "left",
                "y": -0.16,
                "yanchor": "top",
                "pad": {"t": 40},
                "buttons": [
                    {"label": "play", "method": "animate", "args": [None, play]},
                    {"label": "pause", "method": "animate", "args": [[None], still]},
                ],
            }
        ],
    )
    _captioned(figure, frames, bool(losses))
    return figure.update_layout(height=1160 if losses else 1000, title=_TITLE, margin={"t": 80})


def _panels(
    frames: Sequence[NetworkFrame],
    steps: Int[np.ndarray, " t"] | None,
    losses: Mapping[str, Float[np.ndarray, " t"]],
    limit: int | None,
) -> go.Figure:
    """Empty panels with their axes, and the losses on top if there are some."""
    if not frames:
        raise ValueError("network_over_training needs at least one frame, but got none.")
    if losses and steps is None:
        raise ValueError(
            "losses need their steps, but none arrived. Pass steps=, one for each value."
        )
    top = int(bool(losses))
    figure = make_subplots(
        rows=3 + top,
        cols=2,
        specs=[[{"colspan": 2}, None]] * top + [[{}, {}]] * 3,
        subplot_titles=("",) * top + TITLES,
        vertical_spacing=0.09 if top else 0.12,
        horizontal_spacing=0.16,
    )
    if steps is not None:
        for i, (name, y) in enumerate(losses.items()):
            good = np.isfinite(y) & (y > 0) & (steps > 0)
            x, y = steps[good], y[good]
            rows = np.arange(len(y)) if limit is None else drawn_rows(y, limit)
            trace = dots(x[rows], y[rows], name=plain(name), color=COLOURS[i], size=3)
            figure.add_trace(trace.update(showlegend=True), 1, 1)
        low, high = _span(losses)
        figure.update_xaxes(title_text="step", type="log", dtick=1, row=1, col=1)
        figure.update_xaxes(exponentformat="power", row=1, col=1)
        axis = log_axis(low, high, 150)
        figure.update_yaxes(title_text="loss (nats)", **axis, row=1, col=1)
        figure.update_yaxes(range=[np.log10(low) - 0.1, np.log10(high) + 0.1], row=1, col=1)
    first = 1 + top
    embedding = max(float(f.embedding_power.max()) for f in frames)
    readout = max(float(f.readout_power.max()) for f in frames)
    n = len(frames[0].purity)
    figure.update_xaxes(title_text="frequency", row=first)
    figure.update_yaxes(title_text="share of power", range=[0, 1.05 * embedding], row=first, col=1)
    figure.update_yaxes(range=[0, 1.05 * readout], row=first, col=2)
    figure.update_xaxes(title_text="rank", row=first + 1, col=1)
    figure.update_yaxes(title_text="share of the largest", range=[0, 1.05], row=first + 1, col=1)
    figure.update_xaxes(title_text="share of variance", range=[0, 1.02], row=first + 1, col=2)
    figure.update_yaxes(title_text="neurons", range=[0, 1.02 * n], row=first + 1, col=2)
    figure.update_xaxes(title_text="place of b", row=first + 2)
    figure.update_yaxes(title_text="place of a", row=first + 2, col=1)
    return figure.update_layout(
        showlegend=False,
        bargap=0.1,
        margin={"t": 64},  # the titles of the panels stand below the buttons of the figure
    )


def _moving_traces(
    frame: NetworkFrame, losses: Mapping[str, Float[np.ndarray, " t"]]
) -> list[tuple[Any, tuple[int, int]]]:
    """What a step looks like, with the row and the column of every trace."""
    top = int(bool(losses))
    traces: list[tuple[Any, tuple[int, int]]] = [
        (trace, (i // 2 + 1 + top, i % 2 + 1)) for i, trace in enumerate(_frame_traces(frame))
    ]
    if losses:
        low, high = _span(losses)
        at = max(frame.step, 1)
        line = {"color": INK, "width": 1.5}
        traces.append((go.Scatter(x=[at, at], y=[low, high], mode="lines", line=line), (1, 1)))
    return traces


def _span(losses: Mapping[str, Float[np.ndarray, " t"]]) -> tuple[float, float]:
    values = np.concatenate([y[np.isfinite(y) & (y > 0)] for y in losses.values()])
    return (float(values.min()), float(values.max())) if len(values) else (0.1, 1.0)


def _slider(steps: list[dict[str, Any]], active: int) -> dict[str, Any]:
    return {
        "active": active,
        "steps": steps,
        "currentvalue": {"prefix": "step "},
        "pad": {"t": 50, "b": 10},
    }


def _captioned(figure: go.Figure, frames: Sequence[NetworkFrame], has_losses: bool) -> go.Figure:
    above = "On top the losses of all steps, with a line at the step shown. " if has_losses else ""
    return styled(
        figure,
        title="The network over training",
        seen=(
            f"{above}Six views of the network at the step that the slider shows: power of "
            "embedding and of neuron-to-logit map by frequency, singular values of the embedding, "
            "how well its best frequency explains each neuron, and the output of one neuron and "
            "the attention of one head for every pair. Steps: "
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
        height=1180 if has_losses else 980,
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
    levels = heat_levels(values)
    return go.Heatmap(z=levels, zmin=0, zmax=255, colorscale="Viridis", showscale=False)


def heat_levels(values: Float[np.ndarray, "n n"]) -> np.ndarray:
    """Values in 256 levels of their own range: a byte each in the report."""
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return np.round(255 * scaled).astype(np.uint8)
