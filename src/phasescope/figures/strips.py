"""Figure of one number over seeds, by group, beside its nulls: every seed a mark."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from phasescope.figures.theme import (
    DATA,
    GREEN,
    INK,
    MUTED,
    NULL,
    ORANGE,
    PURPLE,
    SKY,
    log_axis,
    plain,
    styled,
)

# The first series is the data; the others are nulls or controls, hollow.
_COLOURS = (DATA, NULL, ORANGE, PURPLE, GREEN, SKY, MUTED, INK)
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "triangle-down", "star", "x", "cross")
_BAND = 0.72  # of a row's height
Values = Sequence[float | int] | Float[np.ndarray, " seeds"] | Int[np.ndarray, " seeds"]


def seed_strips(
    groups: Mapping[str, Mapping[str, Values]],
    *,
    x_title: str,
    title: str,
    seen: str,
    computed: str,
    misleads: str,
    log: bool = False,
    line: float | None = None,
) -> go.Figure:
    """One row for each group, one lane in it for each series, one mark for each seed.

    The first series of the first group is the data and filled; the others are what it is to be
    compared with, and hollow. The median of a series is a vertical stroke.

    Args:
        groups: Values of every series over seeds, by group (from top to bottom) and by series.
            Series keep their colour through all groups; a group may lack some.
        x_title: What is measured, with its unit.
        title: Of the figure.
        seen: Caption: what a row and a lane are.
        computed: Caption: how.
        misleads: Caption: when it misleads.
        log: Whether the axis is logarithmic; values that are not positive are left out then.
        line: A value to mark by a vertical line.

    Returns:
        The figure.

    Raises:
        ValueError: There is no group, or one without series.

    Example:
        >>> figure = seed_strips(
        ...     {"SGD": {"training": [35, 36], "frozen weights": [40, 41]}},
        ...     x_title="components", title="Counts", seen="s.", computed="c.", misleads="m.",
        ... )
        >>> [trace.name for trace in figure.data if trace.showlegend]
        ['training', 'frozen weights']
    """
    if not groups or not all(groups.values()):
        raise ValueError(
            "seed_strips needs at least one group and one series in each, but got "
            f"{ {name: list(series) for name, series in groups.items()} }."
        )
    names = list(dict.fromkeys(name for series in groups.values() for name in series))
    lanes = {name: (i + 0.5) / len(names) - 0.5 for i, name in enumerate(names)}
    figure = go.Figure()
    left_out, drawn_values = 0, list[float]()
    for i, name in enumerate(names):
        colour = _COLOURS[i % len(_COLOURS)]
        symbol = _SYMBOLS[i % len(_SYMBOLS)] + ("" if i == 0 else "-open")
        xs, ys, texts, medians, rows = [], [], [], [], []
        for row, (group, series) in enumerate(groups.items()):
            values = np.asarray(series.get(name, ()), dtype=np.float64)
            drawn = values[np.isfinite(values) & ((values > 0) | (not log))]
            left_out += len(values) - len(drawn)
            drawn_values += drawn.tolist()
            y = row + _BAND * lanes[name]
            xs += drawn.tolist()
            ys += [y] * len(drawn)
            texts += [plain(group)] * len(drawn)
            if len(drawn):
                medians.append(float(np.median(drawn)))
                rows.append(y)
        figure.add_scatter(
            x=xs,
            y=ys,
            text=texts,
            name=plain(name),
            mode="markers",
            marker={"symbol": symbol, "color": colour, "size": 7, "opacity": 0.7},
            hovertemplate="%{text}: %{x}",
            showlegend=True,
        )
        figure.add_scatter(
            x=medians,
            y=rows,
            name=f"{plain(name)}, median",
            mode="markers",
            marker={
                "symbol": "line-ns-open",
                "size": 15,
                "color": colour,
                "line": {"width": 2.5, "color": colour},
            },
            showlegend=False,
        )
    if line is not None:
        figure.add_vline(line, line={"color": MUTED, "width": 1, "dash": "dot"})
    axis: dict[str, Any] = {"rangemode": "tozero"}
    if log and drawn_values:
        axis = log_axis(min(drawn_values), max(drawn_values), 620)
    figure.update_xaxes(title_text=x_title, **axis)
    figure.update_yaxes(
        tickvals=list(range(len(groups))),
        ticktext=[plain(group).replace(", ", "<br>", 1) for group in groups],
        range=[len(groups) - 0.45, -0.55],
        showgrid=False,
        ticks="",
    )
    figure.update_layout(legend_itemsizing="constant")
    which = "not positive" if log else "infinite or missing"
    note = f" {left_out} values that are {which} are not drawn." if left_out else ""
    return styled(
        figure,
        title=title,
        seen=f"{seen} One mark for each seed; strokes are medians.{note}",
        computed=computed,
        misleads=misleads,
        height=150 + max(44, 15 * len(names)) * len(groups),
    )
