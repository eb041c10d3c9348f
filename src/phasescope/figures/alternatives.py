"""Figures of alternative models: what they reach against the number of directions they keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from plotly.subplots import make_subplots

from phasescope.figures.theme import COLOURS, INK, log_axis, plain, styled

_MARKS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "hexagon")


@dataclass(frozen=True, eq=False)
class DirectionCurve:
    """A quantity against a number of directions, for every seed, with its mean and interval.

    Example:
        >>> DirectionCurve("top k", np.array([1, 10]), np.array([[0.2, 0.9]])).name
        'top k'
    """

    name: str
    """Which alternative it is, such as "top k" or "complement"."""
    ks: Int[np.ndarray, " n"]
    """Numbers of directions, increasing."""
    values: Float[np.ndarray, "seeds n"]
    """The quantity; NaN where it is not finite."""
    low: Float[np.ndarray, " n"] | None = None
    """Lower end of the 95% interval over seeds; None where there is one seed."""
    high: Float[np.ndarray, " n"] | None = None
    """Upper end of the same."""
    look: int | None = None
    """Number of its colour and mark, to keep them from figure to figure; by default in order."""


@dataclass(frozen=True, eq=False)
class DirectionPanel:
    """One panel of `curves_by_directions`.

    Example:
        >>> DirectionPanel("test accuracy (share)", ()).log
        False
    """

    quantity: str
    """Title of the vertical axis, with its unit."""
    curves: Sequence[DirectionCurve]
    """What is drawn."""
    levels: Mapping[str, float] = field(default_factory=dict)
    """Horizontal lines, such as the full training's, by name."""
    log: bool = False
    """Whether the vertical axis is logarithmic."""


def curves_by_directions(
    panels: Sequence[DirectionPanel], *, title: str, computed: str, misleads: str
) -> go.Figure:
    """Quantities against a number of directions, panels below each other, a colour per alternative.

    Args:
        panels: From top to bottom; curves of one name have one colour and mark.
        title: What the figure shows, in a few words.
        computed: For the caption: how the numbers were computed.
        misleads: For the caption: when the figure misleads.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no curve.

    Example:
        >>> curve = DirectionCurve("top k", np.array([1, 10]), np.array([[0.2, 0.9], [0.1, 0.8]]))
        >>> panel = DirectionPanel("accuracy", [curve], {"full training": 0.95})
        >>> figure = curves_by_directions([panel], title="Replay", computed="c.", misleads="m.")
        >>> [trace.name for trace in figure.data if trace.showlegend]
        ['top k']
    """
    names = list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))
    if not names:
        raise ValueError(
            "curves_by_directions needs at least one curve in one of its panels, but got none."
        )
    figure = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.07)
    shown: set[str] = set()
    for row, panel in enumerate(panels, start=1):
        for curve in panel.curves:
            index = names.index(curve.name) if curve.look is None else curve.look
            look = COLOURS[index % len(COLOURS)], _MARKS[index % len(_MARKS)]
            _draw(figure, row, curve, *look, legend=curve.name not in shown)
            shown.add(curve.name)
        for name, level in panel.levels.items():
            number = str(row) if row > 1 else ""
            axes = {"xref": f"x{number} domain", "yref": f"y{number}"}
            dotted = {"color": INK, "width": 1.2, "dash": "dot"}
            figure.add_shape(type="line", x0=0, x1=1, y0=level, y1=level, line=dotted, **axes)
            figure.add_annotation(
                x=0.005,
                y=np.log10(level) if panel.log else level,  # annotations take the exponent
                text=plain(name),
                font={"size": 11},
                showarrow=False,
                xanchor="left",
                yanchor="top",
                **axes,
            )
        figure.update_yaxes(title_text=panel.quantity, **_axis(panel), row=row, col=1)
    figure.update_xaxes(type="log", dtick="D2")
    figure.update_xaxes(title_text="directions k", row=len(panels), col=1)
    n_seeds = max(len(curve.values) for panel in panels for curve in panel.curves)
    several = f"dots are seeds ({n_seeds}), lines their mean" if n_seeds > 1 else "one seed"
    bars = ", bars its 95% interval" if n_seeds > 1 else ""
    missing = sum(int((~np.isfinite(c.values)).sum()) for p in panels for c in p.curves)
    left_out = f" {missing} values that are not finite are not drawn." if missing else ""
    return styled(
        figure,
        title=title,
        seen=(
            f"Against the number of directions, on a logarithmic axis; {several}{bars}; dotted: "
            f"{', '.join(dict.fromkeys(n for p in panels for n in p.levels)) or 'nothing'}."
            + left_out
        ),
        computed=computed,
        misleads=misleads,
        height=140 + 270 * len(panels) + 12 * len(names),
    )


def _draw(
    figure: go.Figure, row: int, curve: DirectionCurve, color: str, mark: str, *, legend: bool
) -> None:
    name = plain(curve.name)
    n_seeds = len(curve.values)
    if n_seeds > 1:
        figure.add_scatter(
            x=np.tile(curve.ks, n_seeds),
            y=curve.values.ravel(),
            name=f"{name}, seeds",
            mode="markers",
            marker={"color": color, "size": 4, "opacity": 0.3},
            showlegend=False,
            legendgroup=name,
            row=row,
            col=1,
        )
    finite = np.isfinite(curve.values)
    mean = np.where(finite, curve.values, 0).sum(0) / np.maximum(finite.sum(0), 1)
    mean = np.where(finite.all(0), mean, np.nan)
    bars = None
    if curve.low is not None and curve.high is not None:
        bars = {"array": curve.high - mean, "arrayminus": mean - curve.low, "symmetric": False}
        bars |= {"type": "data", "thickness": 1.2, "width": 3}
    figure.add_scatter(
        x=curve.ks,
        y=mean,
        name=name,
        mode="lines+markers",
        line={"color": color, "width": 2},
        marker={"symbol": mark, "size": 8},
        error_y=bars,
        showlegend=legend,
        legendgroup=name,
        row=row,
        col=1,
    )


def _axis(panel: DirectionPanel) -> dict:
    if not panel.log:
        return {}
    values = np.concatenate([curve.values.ravel() for curve in panel.curves])
    values = values[np.isfinite(values) & (values > 0)]
    return log_axis(float(values.min()), float(values.max()), 230)


def losses_over_steps(
    steps: Int[np.ndarray, " n"],
    losses: Mapping[str, Float[np.ndarray, " n"]],
    *,
    reference: str,
    title: str = "Loss of the alternative models over the training",
) -> go.Figure:
    """Loss over the steps, a line per alternative model, the reference thick and dark.

    Args:
        steps: Steps, from 0.
        losses: Loss in nats at each step, by name; NaN from where a model diverged.
        reference: Which of them the others are compared with.
        title: What the figure shows.

    Returns:
        The figure.

    Raises:
        ValueError: If the reference is not among the losses.

    Example:
        >>> steps, full = np.array([0, 10]), np.array([2.3, 0.3])
        >>> figure = losses_over_steps(steps, {"full": full, "k = 1": full + 1}, reference="full")
        >>> [trace.name for trace in figure.data]
        ['full', 'k = 1']
    """
    if reference not in losses:
        raise ValueError(f"the reference must be one of {list(losses)}, but it is {reference!r}.")
    figure = go.Figure()
    others = [name for name in losses if name != reference]
    for name, values in losses.items():
        i = others.index(name) if name in others else -1
        figure.add_scatter(
            x=np.maximum(steps, 0.5),
            y=np.where(np.isfinite(values) & (values > 0), values, np.nan),
            name=plain(name),
            mode="lines+markers",
            line={
                "color": INK if i < 0 else COLOURS[i % (len(COLOURS) - 2)],
                "width": 3 if i < 0 else 1.8,
                "dash": "solid" if i < len(COLOURS) - 2 else "dash",
            },
            marker={"size": 5},
        )
    drawn = np.concatenate(list(losses.values()))
    drawn = drawn[np.isfinite(drawn) & (drawn > 0)]
    # A model that blew up must not press the others together.
    high = min(float(drawn.max()), 3 * float(max(values[0] for values in losses.values())))
    low = float(drawn.min())
    ticks = [0.5, *(t for t in (1, 10, 100, 1000, 10_000, 100_000) if t <= steps[-1])]
    figure.update_xaxes(
        title_text="step (0 at the left edge)",
        type="log",
        tickvals=ticks,
        ticktext=["0", *(f"{t:,}" for t in ticks[1:])],
    )
    figure.update_yaxes(title_text="test loss (nats)", **log_axis(low, high, 340))
    figure.update_yaxes(range=[np.log10(low) - 0.05, np.log10(high) + 0.05])
    return styled(
        figure,
        title=title,
        seen=(
            f"Test loss over the steps of one seed, both on logarithmic axes; thick and dark: "
            f"{reference}. Values above {high:.3g} are cut off."
        ),
        computed=(
            "Mean cross-entropy on a fixed part of the test set at log-spaced steps; every model "
            "starts from the same weights and sees the same minibatches."
        ),
        misleads=(
            "One seed: the spread between seeds is in the figures over k. A model may end at the "
            "same loss by another way."
        ),
        height=470,
    )
