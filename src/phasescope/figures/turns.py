"""Figures of where a path turns beside random walks, and of when components act."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from plotly.subplots import make_subplots

from phasescope.figures.theme import DATA, GREEN, INK, MUTED, NULL, plain, styled


def path_and_bends(
    points: Float[np.ndarray, "n 2"],
    walk: Float[np.ndarray, "n 2"],
    steps: Int[np.ndarray, " n"],
    bends: Float[np.ndarray, " n"],
    band: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]],
    *,
    turns: tuple[int, ...] = (),
    boundaries: tuple[int, ...] = (),
    what: str,
) -> go.Figure:
    """A path in its first two principal components, a random walk in its own, and their bends.

    Args:
        points: The path's coordinates.
        walk: Those of a random walk with the same lengths of increments.
        steps: Step of every point.
        bends: How much the path bends at each point, see `turning_test`.
        band: Lower and upper quantile of the same over many walks.
        turns: Steps at which the path bends more than walks do anywhere.
        boundaries: Other steps to mark: epochs, changes of the loss.
        what: What the path is of, such as "logits of 1,000 test images".

    Returns:
        The figure.

    Example:
        >>> t = np.arange(9.0)
        >>> line = np.stack([t, t], axis=1)
        >>> figure = path_and_bends(line, line, np.arange(9), 0 * t, (0 * t, t), what="logits")
        >>> [trace.name for trace in figure.data][:2]
        ['path', 'one random walk']
    """
    figure = make_subplots(
        rows=2,
        cols=2,
        specs=[[{}, {}], [{"colspan": 2}, None]],
        vertical_spacing=0.16,
        horizontal_spacing=0.12,
        row_heights=[0.55, 0.45],
        subplot_titles=("the path", "a random walk, in its own components", ""),
    )
    size = float(np.abs(points).max())
    scale = size / max(float(np.abs(walk).max()), np.finfo(np.float64).tiny)
    for column, (name, xy, colour) in enumerate(
        (("path", points, DATA), ("one random walk", walk * scale, NULL)), start=1
    ):
        figure.add_scatter(
            x=xy[:, 0],
            y=xy[:, 1],
            text=[f"step {step}" for step in steps],
            name=name,
            mode="lines+markers",
            line={"color": colour, "width": 1},
            marker={
                "size": 5,
                "color": np.arange(len(steps)) / max(1, len(steps) - 1),
                "colorscale": [[0, "#FFFFFF"], [1, colour]],
                "line": {"width": 0.6, "color": colour},
            },
            row=1,
            col=column,
        )
    # Where not all points are drawn, at the nearest of them.
    marked = [int(np.abs(steps - turn).argmin()) for turn in turns]
    figure.add_scatter(
        x=points[marked, 0],
        y=points[marked, 1],
        text=[f"turn at step {turn}" for turn in turns],
        name="turn",
        mode="markers",
        marker={"symbol": "star", "size": 13, "color": INK},
        row=1,
        col=1,
    )
    low, high = band
    for edge, fill in ((high, None), (low, "tonexty")):
        figure.add_scatter(
            x=steps,
            y=edge,
            name="random walks, 95%",
            mode="lines",
            line={"width": 0, "color": NULL},
            fill=fill,
            fillcolor="rgba(213,94,0,0.18)",
            showlegend=fill is not None,
            hoverinfo="skip",
            row=2,
            col=1,
        )
    figure.add_scatter(
        x=steps,
        y=bends,
        name="bend of the path",
        mode="lines",
        line={"color": DATA, "width": 1.6},
        row=2,
        col=1,
    )
    below: Any = {"row": 2, "col": 1}  # plotly's stubs want strings here
    for steps_marked, colour, dash in ((turns, INK, "solid"), (boundaries, GREEN, "dot")):
        for step in steps_marked:
            figure.add_vline(step, line={"color": colour, "width": 1.2, "dash": dash}, **below)
    for column in (1, 2):
        figure.update_xaxes(title_text="first component", row=1, col=column)
        figure.update_yaxes(title_text="second component" if column == 1 else "", row=1, col=column)
    figure.update_xaxes(title_text="step", row=2, col=1)
    figure.update_yaxes(title_text="bend / size of the path", rangemode="tozero", row=2, col=1)
    figure.update_annotations(font={"size": 12, "color": INK})
    return styled(
        figure,
        title=f"Path of the {plain(what)}",
        seen=(
            "Above, the first two principal components over training, pale at the start, beside "
            "those of one random walk with increments of the same lengths (scaled to the same "
            "size). Below, how much the path bends at each point, the band of 95% of walks, "
            f"{len(turns)} turns (stars and solid lines) and other marks (dotted)."
        ),
        computed=(
            "Principal components of the centred path. A bend is the change of direction between "
            "the windows before and after a point times the shorter displacement, over the root "
            "mean square distance from the mean; a turn lies beyond what 95% of walks reach "
            "anywhere."
        ),
        misleads=(
            "Any smooth path bends in its first two components: a random walk is a parabola there. "
            "A path that fluctuates around one place turns everywhere; and a change of the "
            "learning rate turns a path, too."
        ),
        height=640,
    )


def component_profiles(
    steps: Int[np.ndarray, " T"],
    energy: Float[np.ndarray, "n T"],
    labels: tuple[str, ...],
    *,
    n_steps: int | None = None,
) -> go.Figure:
    """Share of every step in the energy of each component, beside the share of a step by chance.

    Args:
        steps: Steps.
        energy: One row for each component; over all steps it sums to one.
        labels: Title of every panel: the component and what its statistics say.
        n_steps: Number of all steps, if those that are drawn are some of them.

    Returns:
        The figure.

    Raises:
        ValueError: There is not one label for each component.

    Example:
        >>> len(component_profiles(np.arange(4), np.full((2, 4), 0.25), ("1", "2")).data)
        2
    """
    n = len(energy)
    if len(labels) != n or n == 0:
        raise ValueError(
            f"component_profiles needs one label for each of at least one component, but got "
            f"{len(labels)} labels for {n} components."
        )
    figure = make_subplots(
        rows=n,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.22 / n if n > 1 else 0,
        subplot_titles=[plain(label) for label in labels],
    )
    for i, row in enumerate(energy):
        figure.add_scatter(
            x=steps,
            y=100 * row,
            name=plain(labels[i]),
            mode="markers",
            marker={"color": DATA, "size": 3},
            row=i + 1,
            col=1,
        )
        panel: Any = {"row": i + 1, "col": 1}
        chance = {"color": NULL, "width": 1.2, "dash": "dash"}
        figure.add_hline(100 / (n_steps or len(steps)), line=chance, **panel)
    figure.update_annotations(
        font={"size": 12, "color": INK}, x=0, xanchor="left", xref="paper", yshift=-1
    )
    figure.update_yaxes(nticks=4, rangemode="tozero", tickfont={"color": MUTED})
    figure.update_yaxes(title_text="share of the energy (%)", row=(n + 1) // 2, col=1)
    figure.update_xaxes(title_text="step", row=n, col=1)
    figure.update_layout(showlegend=False)
    return styled(
        figure,
        title="When the leading components act",
        seen=(
            f"One dot per sampled step ({len(steps):,}): how much of a component's energy it has; "
            "dashed: the same share for every step. The titles give the centre of mass and how "
            "many standard deviations of permuted steps it lies off the middle."
        ),
        computed=(
            "Squared entries of the time vectors of steps scaled to norm one and centred; the "
            "null permutes the steps."
        ),
        misleads=(
            "Components with nearly equal singular values are arbitrary rotations of each other. "
            "Without scaling the steps, every component of pure noise sits on the loudest of them."
        ),
        height=130 + 100 * n,
    )
