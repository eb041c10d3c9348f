"""A map of many models: which of them share a basin, coloured by a property of theirs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from phasescope.analysis.basin_map import BasinMap
from phasescope.figures.theme import INK, MUTED, plain, styled


def basin_map(
    found: BasinMap,
    values: Float[np.ndarray, " n"],
    *,
    value: str,
    names: Sequence[str] | None = None,
    title: str = "Basins of many models",
) -> go.Figure:
    """Models in groups of low barriers, coloured by a property; beside them all barriers.

    Args:
        found: From `phasescope.basin_map`.
        values: The property of every model, such as its monosemantic share.
        value: What the property is, with its unit.
        names: Of the models; numbers from 1 by default.
        title: Of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: There are not as many values and names as models.

    Example:
        >>> import phasescope as ps, torch
        >>> barriers = torch.tensor([[0.0, 0.1, 5.0], [0.1, 0.0, 4.0], [5.0, 4.0, 0.0]]).double()
        >>> figure = basin_map(ps.basin_map(barriers, 0.2), np.array([0.1, 0.2, 0.9]), value="mono")
        >>> figure.data[1].text
        ('1', '2', '3')
    """
    n = len(found.basin)
    names = [str(i + 1) for i in range(n)] if names is None else names
    if len(values) != n or len(names) != n:
        raise ValueError(
            f"a value and a name of each of the {n} models are required, but {len(values)} values "
            f"and {len(names)} names arrived."
        )
    places = _places(found)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n) if found.joined[i, j]]
    figure = make_subplots(
        cols=2,
        column_widths=[0.5, 0.5],
        horizontal_spacing=0.2,
    )
    figure.add_scatter(
        x=[x for i, j in pairs for x in (places[i, 0], places[j, 0], None)],
        y=[y for i, j in pairs for y in (places[i, 1], places[j, 1], None)],
        mode="lines",
        line={"color": MUTED, "width": 1 if n <= 16 else 0.3},
        name="barrier within the tolerance",
        hoverinfo="skip",
        row=1,
        col=1,
    )
    labels = [plain(name) for name in names]
    figure.add_scatter(
        x=places[:, 0],
        y=places[:, 1],
        mode="markers+text" if n <= 16 else "markers",
        text=labels,
        textposition="bottom center",
        textfont={"size": 11},
        marker={
            "size": 16 if n <= 40 else 9,
            "color": values,
            "colorscale": "Viridis",
            "line": {"color": INK, "width": 1},
            "colorbar": {
                "title": {"text": plain(value), "side": "bottom"},
                "orientation": "h",
                "thickness": 12,
                "len": 0.4,
                "x": 0.2,
                "y": 0,
                "yanchor": "top",
            },
        },
        customdata=np.stack([values, found.basin.numpy()], axis=1),
        hovertemplate=f"%{{text}}: {plain(value)} %{{customdata[0]:.3g}}, basin %{{customdata[1]}}"
        "<extra></extra>",
        showlegend=False,
        row=1,
        col=1,
    )
    order = sorted(range(n), key=lambda i: (int(found.basin[i]), i))
    figure.add_heatmap(
        z=found.barriers.numpy()[np.ix_(order, order)],
        x=list(range(n)),
        y=list(range(n)),
        colorscale="Blues",
        colorbar={"title": {"text": "barrier", "side": "right"}, "thickness": 12, "x": 1.01},
        hovertemplate="%{z:.4g}<extra></extra>",
        name="barrier",
        row=1,
        col=2,
    )
    (left, low), (right, high) = places.min(0) - 0.8, places.max(0) + 0.8
    figure.update_xaxes(visible=False, range=[left, right], row=1, col=1)
    figure.update_yaxes(range=[low, high], row=1, col=1)
    figure.update_yaxes(visible=False, scaleanchor="x", row=1, col=1)
    ticks = (
        {"tickvals": list(range(n)), "ticktext": [labels[i] for i in order]}
        if n <= 16
        else {"showticklabels": False, "ticks": ""}
    )
    figure.update_xaxes(title_text="model, by basin", showgrid=False, row=1, col=2, **ticks)
    figure.update_yaxes(
        title_text="model, by basin", autorange="reversed", showgrid=False, row=1, col=2, **ticks
    )
    number = "1 basin" if found.n_basins == 1 else f"{found.n_basins} basins"
    return styled(
        figure,
        title=f"{title}: {n} models, {number}",
        seen="Left: a dot is a model, coloured by the property; dots stand together, joined by "
        "lines, where a chain of low barriers leads from one to the other. Their places mean "
        "nothing else. Right: the barrier of every pair, models in the order of their basins.",
        computed=f"Components of the graph of barriers up to the tolerance, {found.tolerance:.4g}.",
        misleads="Two models of a basin need not be joined directly, and with many models chance "
        "links join basins; a slightly larger tolerance may change the picture: the barriers tell.",
    )


def _places(found: BasinMap) -> Float[np.ndarray, "n 2"]:
    """Circles of models, basin beside basin in rows, larger basins with more room."""
    sizes = found.sizes
    radius = [0.0 if size == 1 else 0.5 / math.sin(math.pi / size) for size in sizes]
    room = 2 * max(radius) + 1.4
    columns = math.ceil(math.sqrt(len(sizes)))
    places = np.zeros((len(found.basin), 2))
    for basin, size in enumerate(sizes):
        middle = np.array([basin % columns, -(basin // columns)]) * room
        angles = 2 * math.pi * np.arange(size) / size + math.pi / 2
        circle = radius[basin] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        places[(found.basin == basin).numpy()] = middle + circle
    return places
