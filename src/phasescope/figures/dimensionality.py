"""Figure of the dimensionalities of features over a sweep of densities, beside known levels."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from plotly.subplots import make_subplots

from phasescope.figures.theme import DATA, INK, NULL, log_axis, plain, styled


def dimensionality_levels(
    densities: Float[np.ndarray, " densities"],
    edges: Float[np.ndarray, " edges"],
    counts: Int[np.ndarray, "densities bins"],
    control: Int[np.ndarray, "densities bins"],
    levels: Mapping[str, float],
) -> go.Figure:
    """How many features have which dimensionality: by density, and over all densities.

    Args:
        densities: Probability of a feature, one per row of the counts.
        edges: Of the bins of dimensionality, one more than there are bins.
        counts: Features of all seeds in each bin.
        control: The same of a control.
        levels: Dimensionalities in regular polytopes, by their names.

    Returns:
        The figure.

    Raises:
        ValueError: The shapes do not belong together.

    Example:
        >>> counts = np.ones((3, 4), dtype=int)
        >>> figure = dimensionality_levels(
        ...     np.array([1.0, 0.3, 0.1]), np.linspace(0, 1, 5), counts, counts, {"1/2": 0.5}
        ... )
        >>> [trace.name for trace in figure.data]
        ['trained', 'all densities', 'control']
    """
    shape = (len(densities), len(edges) - 1)
    if counts.shape != shape or control.shape != shape:
        raise ValueError(
            f"counts by density and bin, {shape}, are needed for {shape[0]} densities and "
            f"{len(edges)} edges, but they have the shapes {counts.shape} and {control.shape}."
        )
    figure = make_subplots(
        cols=2, shared_yaxes=True, horizontal_spacing=0.03, column_widths=[0.62, 0.38]
    )
    middle = (edges[:-1] + edges[1:]) / 2
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure.add_heatmap(
        x=1 / densities,
        y=middle,
        z=np.sqrt(shares.T),
        colorscale=[[0, "#FFFFFF"], [1, DATA]],
        showscale=False,
        name="trained",
        customdata=counts.T,
        hovertemplate="1/density %{x:.3g}, dimensionality %{y:.3f}: %{customdata} features",
        row=1,
        col=1,
    )
    for name, values, colour in (("all densities", counts, DATA), ("control", control, NULL)):
        figure.add_scatter(
            x=values.sum(0),
            y=middle,
            name=name,
            mode="lines",
            line={"color": colour, "width": 1.4, "shape": "vh"},
            hovertemplate="dimensionality %{y:.3f}: %{x} features",
            row=1,
            col=2,
        )
    for name, level in levels.items():
        crowded = any(0 < other - level < 0.04 for other in levels.values())
        figure.add_hline(level, line={"color": INK, "width": 0.6, "dash": "dot"})
        figure.add_annotation(
            x=1,
            xref="paper",
            y=level,
            yref="y",
            text=plain(name),
            showarrow=False,
            xanchor="right",
            yanchor="top" if crowded else "bottom",
            font={"size": 11},
        )
    axis = log_axis(float(1 / densities.max()), float(1 / densities.min()), 420)
    figure.update_xaxes(title_text="1 / density", **axis, row=1, col=1)
    figure.update_xaxes(title_text="features", row=1, col=2)
    figure.update_yaxes(range=[0, 1.06], showgrid=False)
    figure.update_yaxes(title_text="dimensionality of a feature", row=1, col=1)
    figure.update_layout(showlegend=True)
    return styled(
        figure,
        title="Share of a dimension that each feature has",
        seen=(
            f"Left, of {counts.sum():,} represented features of all seeds the share in each bin of "
            "dimensionality, a column for each density (darker is more, as the square root); "
            "right, their number over all densities, with that of a control. Dotted: regular "
            "polytopes."
        ),
        computed=(
            "|W_i|^2 / sum_j (W_i/|W_i| . W_j)^2 of every feature; the control has directions at "
            "random with the same norms. Features without a direction (0) are left out."
        ),
        misleads=(
            "Pooled counts hide seeds: a line may come from a few of them. The value 1 is also "
            "that of features that are simply not in superposition."
        ),
        height=540,
    )
