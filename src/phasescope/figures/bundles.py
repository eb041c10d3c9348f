"""Figure of curves over seeds: every seed a thin line, the median a heavy one, nulls dashed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from phasescope.figures.theme import COLOURS, log_axis, plain, styled


@dataclass(frozen=True, eq=False)
class Bundle:
    """One quantity along an axis, a curve for each seed.

    Example:
        >>> Bundle("training", np.arange(3), np.ones((2, 3))).is_null
        False
    """

    label: str
    """What it is."""
    x: Int[np.ndarray, " n"] | Float[np.ndarray, " n"]
    """Positions."""
    values: Float[np.ndarray, "seeds n"] | Int[np.ndarray, "seeds n"]
    """One row for each seed."""
    is_null: bool = False
    """Whether it is a null or control: dashed."""


def curves_beside_nulls(
    bundles: Sequence[Bundle],
    *,
    x_title: str,
    y_title: str,
    title: str,
    seen: str,
    computed: str,
    misleads: str,
    log_x: bool = False,
    log_y: bool = False,
) -> go.Figure:
    """Curves over seeds, with their medians.

    Args:
        bundles: What is drawn; each has a colour of its own.
        x_title: Title of the horizontal axis, with its unit.
        y_title: Title of the vertical axis, with its unit.
        title: Of the figure.
        seen: Caption: what is seen.
        computed: Caption: how.
        misleads: Caption: when it misleads.
        log_x: Whether the horizontal axis is logarithmic.
        log_y: Whether the vertical axis is; values that are not positive are not drawn then.

    Returns:
        The figure.

    Raises:
        ValueError: There is nothing to draw.

    Example:
        >>> figure = curves_beside_nulls(
        ...     [Bundle("training", np.arange(3), np.ones((2, 3)))],
        ...     x_title="step", y_title="count", title="t", seen="s.", computed="c.", misleads="m.",
        ... )
        >>> len(figure.data)
        3
    """
    if not bundles:
        raise ValueError("curves_beside_nulls needs at least one bundle of curves, but got none.")
    figure = go.Figure()
    for i, bundle in enumerate(bundles):
        colour, dash = COLOURS[i % len(COLOURS)], "dash" if bundle.is_null else "solid"
        if len(bundle.values) > 1:
            for seed, values in enumerate(bundle.values):
                figure.add_scatter(
                    x=bundle.x,
                    y=values,
                    name=f"{plain(bundle.label)}, seed {seed}",
                    mode="lines",
                    line={"color": colour, "width": 1, "dash": dash},
                    opacity=0.35,
                    showlegend=False,
                    hoverinfo="skip",
                )
        figure.add_scatter(
            x=bundle.x,
            y=np.median(bundle.values, axis=0),
            name=plain(bundle.label),
            mode="lines+markers",
            line={"color": colour, "width": 2.2, "dash": dash},
            marker={"symbol": "circle-open" if bundle.is_null else "circle", "size": 6},
            showlegend=True,
        )
    axis = {}
    if log_x:
        positions = np.concatenate([bundle.x for bundle in bundles])
        axis = log_axis(float(positions.min()), float(positions.max()), 700)
    figure.update_xaxes(title_text=x_title, **axis)
    upright: dict[str, Any] = {"rangemode": "tozero"}
    if log_y:
        values = np.concatenate([bundle.values[bundle.values > 0] for bundle in bundles])
        upright = log_axis(float(values.min()), float(values.max()), 340)
    figure.update_yaxes(title_text=y_title, **upright)
    n_seeds = max(len(bundle.values) for bundle in bundles)
    return styled(
        figure,
        title=title,
        seen=f"{seen} Thin lines are seeds (up to {n_seeds}), heavy ones their median; nulls and "
        "controls are dashed.",
        computed=computed,
        misleads=misleads,
        height=460,
    )
