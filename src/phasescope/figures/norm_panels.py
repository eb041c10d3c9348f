"""Norms of layers over training, by kind and depth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from phasescope.figures.points import dots, drawn_rows
from phasescope.figures.theme import log_axis, plain, styled

Panel = Mapping[str, tuple[int, Float[np.ndarray, " steps"]]]


def norms_by_kind(
    steps: Int[np.ndarray, " steps"],
    panels: Mapping[str, Panel],
    *,
    title: str,
    computed: str,
) -> go.Figure:
    """Norms of every layer on a logarithmic axis, a panel for each kind, coloured by depth.

    Args:
        steps: Steps.
        panels: Per kind the layers by name, each with its depth and its norms.
        title: Of the figure.
        computed: Caption: how.

    Returns:
        The figure.

    Raises:
        ValueError: There is no panel, or one without layers.

    Example:
        >>> figure = norms_by_kind(
        ...     np.arange(3), {"conv": {"conv1": (0, np.ones(3))}}, title="t", computed="c."
        ... )
        >>> [len(trace.y) for trace in figure.data]
        [3]
    """
    if not panels or not all(panels.values()):
        raise ValueError(
            "norms_by_kind needs at least one kind and a layer in each, but got "
            f"{ {name: list(layers) for name, layers in panels.items()} }."
        )
    deepest = max(depth for layers in panels.values() for depth, _ in layers.values())
    figure = make_subplots(
        rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.1 / len(panels)
    )
    left_out = 0
    for row, (kind, layers) in enumerate(panels.items(), start=1):
        positive = np.concatenate([y[np.isfinite(y) & (y > 0)] for _, y in layers.values()])
        for name, (depth, y) in layers.items():
            drawable = np.isfinite(y) & (y > 0)
            left_out += int((~drawable).sum())
            trace = dots(
                steps,
                np.where(drawable, y, np.nan),
                name=plain(name),
                color=str(sample_colorscale("Viridis", [0.92 * depth / max(deepest, 1)])[0]),
                size=3,
            )
            figure.add_trace(trace, row=row, col=1)
        axis = log_axis(float(positive.min()), float(positive.max()), 200) if len(positive) else {}
        figure.update_yaxes(title_text=plain(kind), **axis, row=row, col=1)
    figure.update_xaxes(title_text="step", row=len(panels), col=1)
    thinned = len(drawn_rows(np.ones(len(steps)))) < len(steps)
    figure.update_layout(showlegend=True, legend_itemsizing="constant")
    return styled(
        figure,
        title=title,
        seen="Gradient norms (loss per unit of parameter), one dot per step and layer, on "
        "logarithmic axes; dark layers lie near the input, light ones near the output."
        + (" Lowest and highest of neighbouring steps only." if thinned else "")
        + (f" {left_out} norms that are zero or not finite are left out." if left_out else ""),
        computed=computed,
        misleads=(
            "Larger tensors have larger norms at the same gradient per parameter. One seed shows "
            "what happens, not how often. Smoothed curves lag behind and hide how noisy norms are."
        ),
        height=160 + 210 * len(panels),
    )
