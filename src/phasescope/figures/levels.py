"""Figures of a statistic against the level of a control, beside its null."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from phasescope.figures.theme import DATA, INK, NULL, plain, styled

_COLUMNS = 4
_ROW_HEIGHT = 205


@dataclass(frozen=True, eq=False)
class LevelPanel:
    """A statistic at every level of one control, of every seed, beside its null.

    Example:
        >>> values = np.array([[30.0, 32.0], [10.0, 11.0]])
        >>> LevelPanel("label noise", ("0", "1"), values, values / 2).title
        'label noise'
    """

    title: str
    """What is varied, with its unit."""
    labels: tuple[str, ...]
    """Names of the levels, from left to right."""
    values: Float[np.ndarray, "levels seeds"]
    """The statistic."""
    null: Float[np.ndarray, "levels seeds"]
    """The same of the null."""
    intervals: Float[np.ndarray, "levels 2"] | None = None
    """Ends of the interval of the mean over seeds, of the statistic."""


def statistic_by_level(
    panels: Sequence[LevelPanel], statistic: str, unit: str, computed: str
) -> go.Figure:
    """A statistic against the level of several controls, one panel for each.

    Levels stand at equal distances, whatever their values. All panels have the same vertical axis,
    so that their heights can be compared.

    Args:
        panels: One per control.
        statistic: What is drawn, for the title.
        unit: What is counted or measured, for the vertical axes.
        computed: How it was computed, for the caption.

    Returns:
        The figure.

    Raises:
        ValueError: There is no panel.

    Example:
        >>> values = np.array([[30.0, 32.0], [10.0, 11.0]])
        >>> panel = LevelPanel("label noise", ("0", "1"), values, values / 2)
        >>> len(statistic_by_level([panel], "components found", "components", "FlipPA").data)
        4
    """
    if not panels:
        raise ValueError(
            "statistic_by_level needs at least one panel, but got none. Pass one LevelPanel per "
            "control."
        )
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    height = 150 + _ROW_HEIGHT * rows
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_yaxes=True,
        subplot_titles=[_wrapped(panel.title) for panel in panels],
        vertical_spacing=95 / height,
        horizontal_spacing=0.035,
    )
    for i, panel in enumerate(panels):
        row, column = i // columns + 1, i % columns + 1
        figure.add_traces(_traces(panel, first=i == 0), rows=row, cols=column)
        places = list(range(len(panel.labels)))
        figure.update_xaxes(
            tickvals=places,
            ticktext=[plain(label) for label in panel.labels],
            range=[-0.4, len(places) - 0.6],
            showgrid=False,
            row=row,
            col=column,
        )
    styled(
        figure,
        title=f"{statistic[0].upper()}{statistic[1:]}, by level of each control",
        seen=(
            "One panel per control, from the undisturbed training at the left to the strongest "
            "level at the right, levels at equal distances. Thin marks are seeds, the heavy line "
            "joins their medians, bars are 95% intervals of the mean over seeds; hollow marks and "
            "the dashed line are the null of the same seeds: gradients at frozen initial weights "
            "on the same data."
        ),
        computed=computed,
        misleads=(
            "How smooth a curve looks depends on the levels that were chosen. Panels in which the "
            "number of parameters changes (smaller images, fewer hidden units) change what the "
            "test can detect as well: read the distance to the null."
        ),
        height=height,
    )
    figure.update_annotations(font={"size": 11.5, "color": INK}, yshift=3)
    figure.update_layout(
        margin={"t": 64}, title={"y": 1 - 12 / height, "yanchor": "top", "automargin": False}
    )
    figure.update_xaxes(tickfont={"size": 10}, tickangle=0)
    figure.update_yaxes(title_text=plain(unit), col=1)
    figure.update_yaxes(matches="y", rangemode="tozero", tickfont={"size": 10.5})
    return figure


def _traces(panel: LevelPanel, *, first: bool) -> list[go.Scatter]:
    """Seeds and medians of null and data; the names of the first panel stand for all."""
    places = np.arange(len(panel.labels))
    n_seeds = panel.values.shape[1]
    error = None
    if panel.intervals is not None:
        # The bars belong to the mean; plotly hangs them on the medians that are drawn.
        medians = np.median(panel.values, axis=1)
        error = {
            "type": "data",
            "symmetric": False,
            "array": panel.intervals[:, 1] - medians,
            "arrayminus": medians - panel.intervals[:, 0],
            "color": INK,
            "thickness": 1.4,
            "width": 4,
        }
    traces = []
    for null, values in ((True, panel.null), (False, panel.values)):
        color, name = (NULL, "frozen weights") if null else (DATA, "training")
        traces.append(
            go.Scatter(
                x=np.repeat(places, n_seeds) + (0.1 if null else -0.1),
                y=values.flatten(),
                name=f"{name}, seed",
                mode="markers",
                marker={
                    "symbol": "circle-open" if null else "line-ew-open",
                    "size": 4 if null else 9,
                    "color": color,
                    "line": {"color": color, "width": 1},
                },
                legendgroup=f"{name}, seed",
                showlegend=first,
            )
        )
        traces.append(
            go.Scatter(
                x=places,
                y=np.median(values, axis=1),
                name=f"{name}, median over seeds",
                mode="lines",
                line={
                    "color": color if null else INK,
                    "width": 2,
                    "dash": "dash" if null else "solid",
                },
                error_y=None if null else error,
                legendgroup=f"{name}, median",
                showlegend=first,
            )
        )
    return traces


def _wrapped(title: str, width: int = 30) -> str:
    """The title over two lines where it is longer than a panel is wide."""
    if len(title) <= width:
        return plain(title)
    middle = min(
        (i for i, letter in enumerate(title) if letter == " "),
        key=lambda i: abs(i - len(title) / 2),
    )
    return f"{plain(title[:middle])}<br>{plain(title[middle + 1 :])}"
