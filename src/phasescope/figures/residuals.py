"""Figure of held-out residuals against the number of sampled steps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from phasescope.figures.theme import COLOURS, plain, styled


@dataclass(frozen=True, eq=False)
class ResidualCurve:
    """Relative residual of held-out steps against the number of steps sampled.

    Example:
        >>> steps = np.array([100, 200])
        >>> curve = ResidualCurve("centred", steps, np.array([0.5, 0.4]), np.zeros(2), np.ones(2))
        >>> curve.label
        'centred'
    """

    label: str
    """What the curve is, such as "centred over steps"."""
    n_sampled: Int[np.ndarray, " n"]
    """Numbers of sampled steps."""
    median: Float[np.ndarray, " n"]
    """Median over held-out steps of the residual's norm divided by the step's norm."""
    low: Float[np.ndarray, " n"]
    """Lowest decile of the same."""
    high: Float[np.ndarray, " n"]
    """Highest decile of the same."""


def residual_curve(
    curves: Sequence[ResidualCurve], nulls: Sequence[ResidualCurve] = ()
) -> go.Figure:
    """Relative residual of held-out steps against the number of sampled steps.

    One line with a band (lowest to highest decile) per curve; nulls are dashed, in the colour of
    the curve at the same position. A residual that falls with more samples also falls for noise
    with decaying norms or for a random subspace, only more slowly: read it beside the null.

    Args:
        curves: One curve per way of sampling or centring.
        nulls: The null or control of each curve, in the same order; may be fewer.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no curve, or there are more nulls than curves.

    Example:
        >>> n = np.array([100, 200])
        >>> curve = ResidualCurve("centred", n, np.array([0.5, 0.4]), np.zeros(2), np.ones(2))
        >>> residual_curve([curve]).layout.xaxis.title.text
        'sampled steps'
    """
    if not curves or len(nulls) > len(curves):
        raise ValueError(
            "residual_curve needs at least one curve and at most one null per curve, but got "
            f"{len(curves)} curves and {len(nulls)} nulls. Pass the null of curve i as nulls[i]."
        )
    figure = go.Figure()
    pairs = [(curve, "solid", i) for i, curve in enumerate(curves)]
    pairs += [(curve, "dash", i) for i, curve in enumerate(nulls)]
    for curve, dash, i in pairs:
        color, label = COLOURS[i % len(COLOURS)], plain(curve.label)
        for edge, fill in ((curve.high, None), (curve.low, "tonexty")):
            figure.add_scatter(
                x=curve.n_sampled,
                y=edge,
                name=f"{label}, {'highest' if fill is None else 'lowest'} decile",
                mode="lines",
                line={"width": 0, "color": color},
                fill=fill,
                fillcolor=f"rgba({_rgb(color)},{0.16 if dash == 'solid' else 0.07})",
                showlegend=False,
                hoverinfo="skip",
            )
        figure.add_scatter(
            x=curve.n_sampled,
            y=curve.median,
            name=label,
            mode="lines+markers",
            line={"color": color, "width": 2.5 if dash == "solid" else 1.5, "dash": dash},
            marker={"symbol": "circle" if dash == "solid" else "circle-open", "size": 7},
        )
    top = max(float(np.nanmax(curve.high)) for curve, _, _ in pairs)
    figure.update_xaxes(title_text="sampled steps", rangemode="tozero")
    figure.update_yaxes(
        title_text="held-out residual / norm of the step", range=[0, max(1.0, top) * 1.05]
    )
    return styled(
        figure,
        title="What sampled steps leave of the others",
        seen=(
            "Median over held-out steps of the part of a step that the sampled steps do not "
            "explain (1: nothing is explained, 0: everything); bands from the lowest to the "
            "highest decile"
            + ("; dashed: the null of the same colour." if nulls else "; no null was given.")
        ),
        computed=(
            "Each held-out step is projected on the span of the leading singular vectors of the "
            "sampled steps; the norm of what is left is divided by the step's norm. From blocks "
            "of the Gram matrix."
        ),
        misleads=(
            "A step near a sampled one is easy if consecutive steps are alike; a small median "
            "hides few steps that are explained badly; and relative residuals give small steps "
            "the weight of large ones."
        ),
    )


def _rgb(color: str) -> str:
    return ",".join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))
