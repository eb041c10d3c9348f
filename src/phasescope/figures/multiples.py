"""Small multiples: curves of every seed in a grid of settings, one panel for each pair of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from plotly.subplots import make_subplots

from phasescope.figures.theme import DATA, INK, MUTED, VERMILLION, plain, styled

_PANEL_HEIGHT = 150
_SHARED: dict[str, Any] = {"shared_xaxes": "all", "shared_yaxes": "all"}
_FIRST = 10.0  # step at which the horizontal axes begin


@dataclass(frozen=True, eq=False)
class CurvePanel:
    """Curves of all seeds of one setting, and when each seed had its event."""

    row: str
    """Name of the panel's row, such as an operation."""
    column: str
    """Name of its column, such as an activation."""
    steps: Int[np.ndarray, " t"]
    """Steps of the curves."""
    values: Float[np.ndarray, "seeds t"]
    """One curve per seed."""
    events: Float[np.ndarray, " seeds"]
    """Step of each seed's event; NaN where it did not come."""


def curves_by_setting(
    panels: Sequence[CurvePanel],
    *,
    event: str,
    y_title: str,
    title: str,
    computed: str,
    misleads: str,
) -> go.Figure:
    """Curves of every seed over the logarithm of the step, a panel for every row and column.

    Args:
        panels: Any number; a row and a column may lack one. Rows and columns stand in the order in
            which they first come.
        event: What the marks at the top of a panel are, such as ``"grokked"``.
        y_title: What is drawn, with its unit.
        title: Of the figure.
        computed: Caption: how.
        misleads: Caption: when it misleads.

    Returns:
        The figure.

    Raises:
        ValueError: There is no panel, or a row and a column have two.

    Example:
        >>> curve = CurvePanel("add", "relu", np.arange(1, 4), np.ones((2, 3)), np.full(2, np.nan))
        >>> figure = curves_by_setting([curve], event="grokked", y_title="accuracy (share)",
        ...     title="Accuracy", computed="On all pairs.", misleads="Steps are logarithmic.")
        >>> [trace.name for trace in figure.data]
        ['seed', 'median over seeds', 'grokked']
    """
    _check(panels)
    rows = list(dict.fromkeys(panel.row for panel in panels))
    columns = list(dict.fromkeys(panel.column for panel in panels))
    height = 170 + _PANEL_HEIGHT * len(rows)
    figure = make_subplots(
        rows=len(rows),
        cols=len(columns),
        **_SHARED,
        column_titles=[plain(name) for name in columns],
        row_titles=[plain(name) for name in rows],
        horizontal_spacing=0.012,
        vertical_spacing=22 / height,
    )
    top = max(float(np.nanmax(panel.values)) for panel in panels)
    for i, panel in enumerate(panels):
        row, column = rows.index(panel.row) + 1, columns.index(panel.column) + 1
        for trace in _traces(panel, event, 1.07 * top, first=i == 0):
            figure.add_trace(trace, row=row, col=column)
    n_seeds = sorted({len(panel.values) for panel in panels})
    missed = sum(int(np.isnan(panel.events).sum()) for panel in panels)
    total = sum(len(panel.events) for panel in panels)
    last = max(float(panel.steps.max()) for panel in panels)
    first = min(_FIRST, last / 10)  # before that nothing happens, and panels are narrow
    figure.update_xaxes(
        type="log",
        dtick=1,
        exponentformat="power",
        tickfont={"size": 10},
        tickangle=0,
        range=[np.log10(first), np.log10(1.2 * last)],
    )
    figure.update_xaxes(title_text="step", row=len(rows))
    figure.update_yaxes(range=[-0.03 * top, 1.14 * top], tickfont={"size": 10})
    figure.update_yaxes(title_text=plain(y_title), row=(len(rows) + 1) // 2, col=1)
    styled(
        figure,
        title=title,
        seen=(
            f"One panel per setting with {' or '.join(map(str, n_seeds))} seeds: thin curves are "
            "seeds, joined between the steps that were kept, the heavy one is their median. "
            f"Triangles at the top: {event}, one per seed; {missed} of {total} seeds did not get "
            "there. "
            f"Axes begin at step {first:g}."
        ),
        computed=computed,
        misleads=misleads,
        height=height,
    )
    figure.update_annotations(font={"size": 12, "color": INK})
    figure.update_layout(
        margin={"t": 84, "r": 40},
        title={"y": 1 - 12 / height, "yanchor": "top", "automargin": False},
    )
    return figure


def _traces(panel: CurvePanel, event: str, top: float, *, first: bool) -> list[go.Scatter]:
    n_seeds = len(panel.values)
    shown = panel.steps > 0
    gap = np.full((n_seeds, 1), np.nan)
    x = np.hstack([np.tile(panel.steps[shown].astype(float), (n_seeds, 1)), gap])
    y = np.hstack([panel.values[:, shown], gap])
    thin = go.Scatter(
        x=x.flatten(),
        y=np.round(y.flatten(), 5),
        mode="lines",
        line={"width": 1, "color": DATA},
        opacity=0.45,
        name="seed",
    )
    heavy = go.Scatter(
        x=panel.steps[shown],
        y=np.round(np.median(panel.values[:, shown], axis=0), 5),
        mode="lines",
        line={"width": 2.2, "color": INK},
        name="median over seeds",
    )
    came = panel.events[np.isfinite(panel.events)]
    marks = go.Scatter(
        x=came,
        y=np.full(len(came), top),
        mode="markers",
        marker={
            "symbol": "triangle-down",
            "size": 7,
            "color": VERMILLION,
            "line": {"width": 0.5, "color": MUTED},
        },
        name=plain(event),
    )
    return [
        trace.update(legendgroup=trace.name, showlegend=first) for trace in (thin, heavy, marks)
    ]


def _check(panels: Sequence[CurvePanel]) -> None:
    if not panels:
        raise ValueError("curves_by_setting needs at least one panel, but got none.")
    places = [(panel.row, panel.column) for panel in panels]
    twice = sorted({place for place in places if places.count(place) > 1})
    if twice:
        raise ValueError(
            f"every row and column may have one panel, but {twice[0]} has "
            f"{places.count(twice[0])}. Join their seeds into one CurvePanel."
        )
