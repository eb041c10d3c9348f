"""Figures of a run in progress: curves and norms in blocks of logarithmic time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from phasescope.figures.grokking import Stretch
from phasescope.figures.theme import COLOURS, DATA, INK, VERMILLION, log_axis, plain, styled

MOST_LINES = 8  # more norms than that are drawn as a map
MOST_ROWS = 120  # of a map
_PANEL = 200
_BLOCKS = (
    "Means over blocks equally wide in ln(1 + step): {percent} per cent of the steps so far, so "
    "early steps stand by themselves."
)


@dataclass(frozen=True, eq=False)
class BlockCurve:
    """A curve in blocks, and what was noticed about it."""

    steps: Float[np.ndarray, " b"]
    """Mean step of each block."""
    mean: Float[np.ndarray, " b"]
    """Mean of each block; NaN leaves a gap."""
    low: Float[np.ndarray, " b"]
    """Smallest value of each block."""
    high: Float[np.ndarray, " b"]
    """Largest value of each block."""
    phases: Sequence[Stretch] = ()
    """Shaded."""
    alarms: Mapping[int, str] = field(default_factory=dict)
    """Steps that are marked, and what the mark says."""


def curves_so_far(curves: Mapping[str, BlockCurve]) -> go.Figure:
    """Metrics of a run in progress, one panel each, with phases and alarms.

    Args:
        curves: Under the name of each metric.

    Returns:
        The figure; a metric that is positive and spans more than a decade has a logarithmic axis.

    Raises:
        ValueError: There is no curve.

    Example:
        >>> x = np.arange(1.0, 4.0)
        >>> figure = curves_so_far({"loss": BlockCurve(x, x, x, x, alarms={2: "fell"})})
        >>> [trace.name for trace in figure.data]
        ['loss, range', 'loss', 'alarm']
    """
    if not curves:
        raise ValueError("curves_so_far needs at least one curve, but got none.")
    n = len(curves)
    height = 96 + _PANEL * n
    figure = make_subplots(rows=n, cols=1, shared_xaxes=True, vertical_spacing=34 / height)
    for row, (name, curve) in enumerate(curves.items(), start=1):
        colour = COLOURS[(row - 1) % len(COLOURS)] if n > 1 else DATA
        band = np.concatenate([curve.high, curve.low[::-1]])
        known = np.isfinite(band)
        figure.add_scatter(
            x=np.concatenate([curve.steps, curve.steps[::-1]])[known],
            y=band[known],
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=colour,
            opacity=0.22,
            hoverinfo="skip",
            name=plain(f"{name}, range"),
            row=row,
            col=1,
        )
        figure.add_scatter(
            x=curve.steps,
            y=curve.mean,
            mode="lines+markers" if len(curve.steps) < 40 else "lines",
            line={"width": 1.6, "color": colour},
            connectgaps=True,
            name=plain(name),
            row=row,
            col=1,
        )
        for phase in curve.phases:
            figure.add_vrect(
                x0=phase.start,
                x1=phase.end,
                fillcolor=INK,
                opacity=0.1,
                line_width=0,
                layer="below",
                row=row,  # pyright: ignore[reportArgumentType]
                col=1,  # pyright: ignore[reportArgumentType]
            )
        if curve.alarms:
            known = np.isfinite(curve.mean)
            at = np.array(list(curve.alarms), np.float64)
            figure.add_scatter(
                x=at,
                y=np.interp(at, curve.steps[known], curve.mean[known]),
                mode="markers",
                marker={
                    "symbol": "diamond-open",
                    "size": 10,
                    "color": VERMILLION,
                    "line": {"width": 2},
                },
                text=[plain(text) for text in curve.alarms.values()],
                hovertemplate="%{text}<extra></extra>",
                name="alarm",
                row=row,
                col=1,
            )
        figure.update_yaxes(title_text=plain(name), **_axis(curve.low, curve.high), row=row, col=1)
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title_text="step", row=n, col=1)
    return styled(
        figure,
        title="Metrics so far",
        seen=(
            "Line: mean of each block of steps; band: smallest and largest value in it. Shaded: "
            "phases found so far in that metric. Diamonds: where it left its forecast while it was "
            "recorded."
        ),
        computed=_BLOCKS.format(percent="half a")
        + " What the loop logged, under the step of the weights on which it was evaluated.",
        misleads=(
            "A phase that is still going on is found late or not at all, and its end is a guess. "
            "A few in a hundred curves without a phase raise an alarm."
        ),
        height=height,
    )


def norms_so_far(
    steps: Float[np.ndarray, " b"],
    norms: Float[np.ndarray, "b c"],
    names: Sequence[str],
    *,
    quantity: str,
    phases: Sequence[Stretch] = (),
) -> go.Figure:
    """Norms of the parts of a network so far: lines, or a map where there are more than 8.

    In the map every part is compared with its own median over the run, since larger parts have
    larger norms. Of more than 120 parts those are drawn whose norm varied most.

    Args:
        steps: Mean step of each block.
        norms: Mean norm of each part in each block.
        names: Of the parts.
        quantity: Norms of what, such as ``updates``.
        phases: Shaded in lines; their ends are drawn as dotted lines in a map.

    Returns:
        The figure.

    Raises:
        ValueError: There is not one name per part.

    Example:
        >>> figure = norms_so_far(np.arange(3.0), np.ones((3, 9)), list("abcdefghi"), quantity="u")
        >>> figure.data[0].type, figure.data[0].z.shape
        ('heatmap', (9, 3))
    """
    if norms.shape[1] != len(names):
        raise ValueError(
            f"norms_so_far needs one name per part, but norms has {norms.shape[1]} columns and "
            f"there are {len(names)} names."
        )
    drawable = np.where(np.isfinite(norms) & (norms > 0), norms, np.nan)
    draw = _lines if len(names) <= MOST_LINES else _map
    figure, seen, height = draw(steps, drawable, names, quantity, phases)
    figure.update_xaxes(title_text="step")
    return styled(
        figure,
        title=f"Norms of {quantity} so far",
        seen=seen,
        computed=_BLOCKS.format(percent="two") + " Euclidean norms, not divided by the size.",
        misleads=(
            "A learning rate that changes moves all parts: compare them with each other. Norms of "
            "mini-batch gradients are signal and noise."
        ),
        height=height,
    )


def _lines(
    steps: np.ndarray,
    norms: np.ndarray,
    names: Sequence[str],
    quantity: str,
    phases: Sequence[Stretch],
) -> tuple[go.Figure, str, int]:
    figure = go.Figure(
        [
            go.Scatter(
                x=steps,
                y=norms[:, i],
                mode="lines+markers" if len(steps) < 40 else "lines",
                line={"width": 1.6, "color": COLOURS[i]},
                connectgaps=True,
                name=plain(name),
            )
            for i, name in enumerate(names)
        ]
    )
    for phase in phases:
        figure.add_vrect(
            x0=phase.start, x1=phase.end, fillcolor=INK, opacity=0.1, line_width=0, layer="below"
        )
    figure.update_yaxes(title_text=plain(f"norm of {quantity}"), **_axis(norms, norms, always=True))
    figure.update_layout(showlegend=True)
    seen = f"One line per part, {len(names)} of them. Shaded: phases found so far in any metric."
    return figure, seen, 440 + 12 * len(names)


def _map(
    steps: np.ndarray,
    norms: np.ndarray,
    names: Sequence[str],
    quantity: str,
    phases: Sequence[Stretch],
) -> tuple[go.Figure, str, int]:
    known = np.isfinite(norms).any(0)
    logs = np.full(norms.shape, np.nan)
    logs[:, known] = np.log2(norms[:, known]) - np.log2(np.nanmedian(norms[:, known], axis=0))
    chosen = list(range(len(names)))
    if len(names) > MOST_ROWS:
        spread = np.zeros(len(names))
        spread[known] = np.nanstd(logs[:, known], axis=0)
        chosen = sorted(np.argsort(-spread, kind="stable")[:MOST_ROWS].tolist())
    z = logs[:, chosen].T
    finite = np.abs(z[np.isfinite(z)])
    reach = max(float(np.quantile(finite, 0.99)), 0.1) if len(finite) else 1.0
    figure = go.Figure(
        go.Heatmap(
            x=steps,
            y=np.arange(len(chosen)),
            z=z.astype(np.float32),
            zmin=-reach,
            zmax=reach,
            colorscale="RdBu_r",
            colorbar={"title": {"text": "log2"}, "thickness": 14},
            text=[[plain(names[i])] * len(steps) for i in chosen],
            hovertemplate="%{text}, step %{x:.0f}: 2^%{z:.2f} of its median<extra></extra>",
        )
    )
    for edge in (edge for phase in phases for edge in (phase.start, phase.end)):
        figure.add_vline(x=edge, line={"width": 1, "dash": "dot", "color": INK})
    every = max(1, len(chosen) // 40)
    shown = list(range(0, len(chosen), every))
    figure.update_yaxes(
        tickvals=shown,
        ticktext=[plain(_short(names[chosen[i]])) for i in shown],
        tickfont={"size": 10},
        autorange="reversed",
        showgrid=False,
    )
    seen = (
        f"One row per part, {len(chosen)} of {len(names)}"
        f"{' (those whose norm varied most)' if len(chosen) < len(names) else ''}. Colour: "
        f"log2 of the norm of its {quantity} over its own median so far; red is more. Dotted: "
        "where phases found in any metric begin and end."
    )
    return figure, seen, 160 + max(12 * len(chosen), 200)


def _short(name: str, most: int = 34) -> str:
    return name if len(name) <= most else "…" + name[1 - most :]


def _axis(low: np.ndarray, high: np.ndarray, *, always: bool = False) -> dict[str, Any]:
    """A logarithmic axis for positive values that span more than a decade."""
    known = np.isfinite(low) & np.isfinite(high)
    if not known.any() or not (low[known] > 0).all():
        return {}
    smallest, largest = float(low[known].min()), float(high[known].max())
    if not (always or largest > 10 * smallest) or smallest == largest:
        return {}
    return log_axis(smallest, largest, _PANEL - 40)
