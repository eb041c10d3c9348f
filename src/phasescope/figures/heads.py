"""Figures of attention heads over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from phasescope.figures.grokking import Stretch
from phasescope.figures.theme import COLOURS, INK, log_axis, plain, styled

# Black is that of losses; the last two are after Tol (2021) like the others.
_OF_HEADS = (*COLOURS[:6], "#882255", "#8A8A00")


def heads_over_training(
    heads: Sequence[str],
    panels: Mapping[str, tuple[Sequence[int], Mapping[str, Float[np.ndarray, " t"]]]],
    *,
    phases: Sequence[Stretch] = (),
    title: str = "Heads over training",
) -> go.Figure:
    """Curves of heads (and of losses) one below the other; a head has one colour in all panels.

    Args:
        heads: Names of the heads, which have colours in this order.
        panels: Steps and curves by name under the label of their axis; a label that ends in
            ``(log)`` is drawn on a logarithmic axis. Curves that are not of a head are black.
        phases: Stretches that are shaded.
        title: Of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: There are no panels.

    Example:
        >>> panels = {"stripe": ([0, 1], {"l0h0": np.zeros(2), "l1h0": np.ones(2)})}
        >>> figure = heads_over_training(["l0h0", "l1h0"], panels)
        >>> [trace.name for trace in figure.data]
        ['l0h0', 'l1h0']
    """
    if not panels:
        raise ValueError("heads_over_training needs at least one panel of curves, but got none.")
    figure = make_subplots(
        rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.15 / len(panels)
    )
    colours = {name: _OF_HEADS[i % len(_OF_HEADS)] for i, name in enumerate(heads)}
    shown: set[str] = set()
    for row, (label, (steps, curves)) in enumerate(panels.items(), start=1):
        for i, (name, y) in enumerate(curves.items()):
            is_head = name in colours
            dash = "solid" if is_head or not i else "dot"
            later = is_head and list(colours).index(name) >= len(_OF_HEADS)
            figure.add_scatter(
                x=list(steps),
                y=y,
                name=plain(name),
                mode="lines+markers",
                marker={"size": 4, "symbol": "diamond" if later else "circle"},
                line={"width": 1.2, "color": colours.get(name, INK), "dash": dash},
                legendgroup=name,
                showlegend=name not in shown,
                row=row,
                col=1,
            )
            shown.add(name)
        log = label.endswith("(log)")
        values = np.concatenate([y[np.isfinite(y) & (y > 0)] for y in curves.values()])
        axis = (
            log_axis(float(values.min()), float(values.max()), 180) if log and len(values) else {}
        )
        text = plain(label.removesuffix(" (log)"))
        figure.update_yaxes(title_text=text, **axis, row=row, col=1)
    for phase in phases:
        figure.add_vrect(
            x0=phase.start, x1=phase.end, fillcolor=INK, opacity=0.08, line_width=0, layer="below"
        )
    figure.update_xaxes(title_text="step", row=len(panels), col=1)
    return styled(
        figure,
        title=title,
        seen=(
            "One mark per checkpoint, or per interval between two of them; a head has one colour "
            "in all panels."
            + (f" Shaded: {', '.join(phase.name for phase in phases)}." if phases else "")
        ),
        computed=(
            "Scores on fixed sequences that are not trained on. Changes per parameter are squared "
            "and in the coordinates of the weights; gauge-free ones are squared relative changes "
            "of W_Q W_Kᵀ and W_V W_O, added up."
        ),
        misleads=(
            "Changes between checkpoints mix learning rate, spacing and noise of the batches: "
            "compare heads with each other. One seed shows what happens, not how often."
        ),
        height=140 + 190 * len(panels),
    )


def paths_of_losses(
    paths: Mapping[str, tuple[Sequence[int], Float[np.ndarray, "2 t"]]],
    phases: Mapping[str, Stretch],
) -> go.Figure:
    """Paths of single-token losses in their first two principal components.

    Args:
        paths: Steps and coordinates of each network.
        phases: The phase of each network that has one; its checkpoints are drawn larger.

    Returns:
        The figure.

    Raises:
        ValueError: There are no paths.

    Example:
        >>> figure = paths_of_losses({"two layers": ([0, 1], np.ones((2, 2)))}, {})
        >>> figure.data[0].name
        'two layers'
    """
    if not paths:
        raise ValueError("paths_of_losses needs at least one path, but got none.")
    figure = go.Figure()
    for i, (name, (steps, xy)) in enumerate(paths.items()):
        inside = [
            name in phases and phases[name].start <= step <= phases[name].end for step in steps
        ]
        figure.add_scatter(
            x=xy[0],
            y=xy[1],
            name=plain(name),
            mode="lines+markers",
            marker={"size": [9 if x else 4 for x in inside], "color": COLOURS[i % len(COLOURS)]},
            line={"width": 1},
            customdata=list(steps),
            hovertemplate="step %{customdata}<extra></extra>",
        )
    figure.update_xaxes(title_text="first component (nats)")
    figure.update_yaxes(title_text="second component (nats)")
    figure.update_layout(showlegend=True)
    return styled(
        figure,
        title="Paths of single-token losses",
        seen="One mark per checkpoint; larger ones lie in the network's phase change.",
        computed=(
            "Loss of one fixed token in each of 256 sequences, centred over checkpoints; principal "
            "components of each network by itself, so directions are not shared between them."
        ),
        misleads=(
            "The first two components of any smooth path bend; the turning test compares with "
            "random walks."
        ),
        height=520,
    )
