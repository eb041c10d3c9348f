"""Scores of the units of a vision network over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float, Int
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from phasescope.figures.points import dots
from phasescope.figures.theme import VERMILLION, plain, styled

Panel = tuple[Float[np.ndarray, "units t"], Bool[np.ndarray, "units t"]]


def unit_scores(
    steps: Int[np.ndarray, " t"],
    panels: Mapping[str, Panel],
    layer: Int[np.ndarray, " units"],
    layers: Sequence[str],
    *,
    title: str,
    computed: str,
) -> go.Figure:
    """Scores of every unit at every checkpoint, a panel for each score, coloured by layer.

    Args:
        steps: Of the checkpoints.
        panels: Per score its values, and which of them random networks rarely reach.
        layer: Index of the layer of every unit.
        layers: Names of the layers, from the input on.
        title: Of the figure.
        computed: Caption: how.

    Returns:
        The figure.

    Raises:
        ValueError: There is no panel.

    Example:
        >>> scores = np.array([[0.1, 0.6], [0.2, 0.1]])
        >>> panels = {"edge": (scores, scores > 0.5)}
        >>> layer, names = np.array([0, 1]), ["conv1", "conv2"]
        >>> figure = unit_scores(np.arange(2), panels, layer, names, title="t", computed="c.")
        >>> [len(trace.y) for trace in figure.data]
        [2, 2, 1]
    """
    if not panels:
        raise ValueError("unit_scores needs at least one score to draw, but got none.")
    figure = make_subplots(
        rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.1 / len(panels)
    )
    for row, (name, (scores, exceeded)) in enumerate(panels.items(), start=1):
        for i, label in enumerate(layers):
            values = scores[layer == i]
            trace = dots(
                np.tile(steps, len(values)),
                values.flatten(),
                name=plain(label),
                color=str(sample_colorscale("Viridis", [0.92 * i / max(len(layers) - 1, 1)])[0]),
                size=3,
            )
            figure.add_trace(trace.update(showlegend=row == 1, legendgroup=label), row=row, col=1)
        units, places = np.nonzero(exceeded)
        above = go.Scattergl(
            x=steps[places],
            y=scores[units, places],
            name="above random networks",
            mode="markers",
            marker={"symbol": "circle-open", "size": 7, "color": VERMILLION},
            showlegend=row == 1,
            legendgroup="above",
        )
        figure.add_trace(above, row=row, col=1)
        figure.update_yaxes(title_text=plain(name), range=[-0.04, 1.04], row=row, col=1)
    figure.update_xaxes(title_text="step", row=len(panels), col=1)
    figure.update_layout(legend_itemsizing="constant")
    return styled(
        figure,
        title=title,
        seen="Scores between 0 and 1, one dot per unit and checkpoint; dark layers lie near the "
        "input, light ones near the output. Rings: above the threshold of the layer.",
        computed=computed,
        misleads="Dots hide each other: most units have scores near 0. A unit of a random network "
        "may score as high, only not often. One seed shows what happens, not how often.",
        height=160 + 200 * len(panels),
    )
