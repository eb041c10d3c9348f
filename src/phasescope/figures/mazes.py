"""Figures of an agent in mazes: its ways before and after an ablation, its goals over training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from plotly.subplots import make_subplots

from phasescope.datasets import Walks
from phasescope.figures.grokking import Stretch
from phasescope.figures.theme import BLUE, COLOURS, GREEN, INK, ORANGE, PURPLE, plain, styled

_COLUMNS = 4
_SHADES = [[0.0, "#FFFFFF"], [0.5, "#CDE8DE"], [1.0, "#1F2933"]]  # floor, corner, wall


def maze_walks(walks: Mapping[str, Walks]) -> go.Figure:
    """The ways of agents through the same mazes; a slider chooses the agent.

    Args:
        walks: By name of the agent, such as ``"trained"`` and ``"without late gradients"``: through
            the same levels. The last one is shown first.

    Returns:
        The figure.

    Raises:
        ValueError: There are no walks, or they are through different levels.

    Example:
        >>> from phasescope.datasets import draw_mazes, walk
        >>> levels = draw_mazes(4, size=5, seed=0)
        >>> at_random = walk(levels, lambda seen: np.zeros((len(seen), 4)))
        >>> len(maze_walks({"at random": at_random}).layout.sliders[0].steps)
        1
    """
    if not walks:
        raise ValueError("maze_walks needs the walks of at least one agent, but got none.")
    levels = next(iter(walks.values())).levels
    for name, ways in walks.items():
        if not np.array_equal(ways.levels.walls, levels.walls):
            raise ValueError(
                f"all walks must be through the same levels, but those of {name!r} are through "
                "others. Send every agent through one set of levels."
            )
    n_levels = len(levels)
    rows = -(-n_levels // _COLUMNS)
    figure = make_subplots(
        rows=rows, cols=min(n_levels, _COLUMNS), horizontal_spacing=0.02, vertical_spacing=0.03
    )
    n_static = 0
    for level in range(n_levels):
        at: Any = {"row": level // _COLUMNS + 1, "col": level % _COLUMNS + 1}
        drawn = _maze(walks, level)
        n_static += len(drawn)
        for trace in drawn:
            figure.add_trace(trace, **at)
        figure.update_yaxes(
            scaleanchor=f"x{level + 1 if level else ''}", autorange="reversed", **at
        )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    ways_drawn = []
    for index, (name, ways) in enumerate(walks.items()):
        for level in range(n_levels):
            at = {"row": level // _COLUMNS + 1, "col": level % _COLUMNS + 1}
            for trace in _way(ways, level, first=level == 0):
                trace.update(visible=index == 0)
                figure.add_trace(trace, **at)
                ways_drawn.append(name)
    steps = [
        {
            "method": "restyle",
            "label": plain(name),
            "args": [{"visible": [True] * n_static + [agent == name for agent in ways_drawn]}],
        }
        for name in walks
    ]
    figure.update_layout(
        plot_bgcolor="#FFFFFF",
        sliders=[
            {
                "active": 0,
                "steps": steps,
                "currentvalue": {"prefix": "agent: "},
                "pad": {"t": 16, "b": 40},
                "x": 0.07,
                "len": 0.86,  # labels stand centred below their ends
            }
        ],
    )
    return styled(
        figure,
        title="Ways through the same mazes",
        seen=(
            "Blue: the way of the agent that the slider names, from its start (hollow) to where it "
            "was when all was found or its time was up (filled). Orange: cheese; purple: star; "
            f"green: the corner. Agents: {', '.join(walks)}."
        ),
        computed=(
            "One walk through each level, moves drawn from the agent's policy with the same random "
            "numbers for every agent."
        ),
        misleads=(
            f"{n_levels} levels, and one walk through each of them: look for kinds of ways here, "
            "and for shares in the other figures. Ways that go there and back cover themselves."
        ),
        height=150 + 250 * rows,
    )


def goals_over_training(
    steps: Int[np.ndarray, " t"],
    goals: Mapping[str, Float[np.ndarray, " t"]],
    score_steps: Int[np.ndarray, " s"],
    scores: Sequence[Float[np.ndarray, " s"]],
    phases: Sequence[Stretch] = (),
) -> go.Figure:
    """Shares of levels in which goals are reached, over the principal components of the policy.

    Args:
        steps: Steps at which behaviour was measured.
        goals: Shares by name.
        score_steps: Steps at which the policy was recorded.
        scores: Score of each principal component of the policies at those.
        phases: Stretches between the times at which goals were learned, with their names.

    Returns:
        The figure.

    Example:
        >>> t = np.arange(3)
        >>> figure = goals_over_training(t, {"corner": np.ones(3)}, t, [np.zeros(3)])
        >>> [trace.name for trace in figure.data]
        ['corner', 'component 1']
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.07)
    named = [*goals.items(), *((f"component {i + 1}", y) for i, y in enumerate(scores))]
    for i, (name, y) in enumerate(named):
        at: Any = {"row": 1 if i < len(goals) else 2, "col": 1}
        figure.add_scatter(
            x=steps if i < len(goals) else score_steps,
            y=y,
            name=plain(name),
            mode="lines+markers",
            line={"color": COLOURS[i % len(COLOURS)], "width": 1.5},
            marker={"size": 4},
            **at,
        )
    for i, phase in enumerate(phases):
        figure.add_vrect(
            x0=phase.start, x1=phase.end, line_width=0, layer="below",
            fillcolor=("rgba(0,114,178,.07)", "rgba(184,120,0,.10)", "rgba(0,122,90,.10)")[i % 3],
        )  # fmt: skip
        figure.add_annotation(
            x=(phase.start + phase.end) / 2, y=1.0, yref="y domain", yanchor="bottom",
            text=plain(phase.name), showarrow=False, font={"size": 11, "color": INK},
        )  # fmt: skip
    figure.update_yaxes(title_text="share of levels", range=[0, 1.02], row=1, col=1)
    figure.update_yaxes(title_text="score (nats)", row=2, col=1)
    figure.update_xaxes(title_text="step", row=2, col=1)
    shown = f" Shaded: {', '.join(phase.name for phase in phases)}." if phases else ""
    return styled(
        figure,
        title="Goals and policies over the training of one agent",
        seen=(
            "Above, shares of held-out levels in which a goal is reached; below, scores of the "
            f"principal components of the policies on fixed observations.{shown}"
        ),
        computed=(
            "A goal is learned when its share is half way from the first to the largest and stays "
            "there for three rollouts. Policies: logarithms of the moves' probabilities, centred "
            "over steps."
        ),
        misleads=(
            "Components of any random walk are waves of growing frequency: a bend is no phase by "
            "itself. Their signs mean nothing."
        ),
        height=560,
    )


def _maze(walks: Mapping[str, Walks], level: int) -> list[go.Heatmap | go.Scatter]:
    levels = next(iter(walks.values())).levels
    n = levels.size
    shade = np.full((n + 2, n + 2), 2, dtype=np.uint8)
    shade[1:-1, 1:-1] = 2 * levels.walls[level]
    shade[1, n] = 1
    border = np.arange(-1, n + 1)
    traces: list[go.Heatmap | go.Scatter] = [
        go.Heatmap(
            x=border, y=border, z=shade, zmin=0, zmax=2, colorscale=_SHADES, showscale=False,
            hoverinfo="skip",
        )
    ]  # fmt: skip
    for name, places, color, symbol in (
        ("cheese", levels.cheese, ORANGE, "triangle-left"),
        ("star", levels.star, PURPLE, "diamond"),
    ):
        if places[level] < 0:
            continue
        row, column = divmod(int(places[level]), n)
        marker = {"color": color, "symbol": symbol, "size": 15}
        traces.append(
            go.Scatter(
                x=[column], y=[row], mode="markers", marker=marker, name=name,
                legendgroup=name, showlegend=level == 0,
            )
        )  # fmt: skip
    if levels.corner == n - 1 and level == 0:
        square = {"color": "#CDE8DE", "symbol": "square", "size": 12, "line": {"color": GREEN}}
        traces.append(go.Scatter(x=[None], y=[None], mode="markers", marker=square, name="corner"))
    return traces


def _way(ways: Walks, level: int, *, first: bool) -> list[go.Scatter]:
    n = ways.levels.size
    end = int(ways.ended[level])
    rows, columns = np.divmod(ways.places[level, : end + 1], n)
    line = {"color": BLUE, "width": 3}
    ends = {
        "color": ["#FFFFFF", BLUE],
        "size": [11, 9],
        "line": {"color": BLUE, "width": 2},
    }
    return [
        go.Scatter(
            x=columns, y=rows, mode="lines", line=line, opacity=0.75, name="way of the agent",
            legendgroup="way", showlegend=first, hovertext=[f"move {i}" for i in range(end + 1)],
            hoverinfo="text",
        ),
        go.Scatter(
            x=columns[[0, -1]], y=rows[[0, -1]], mode="markers", marker=ends, showlegend=False,
            hovertext=["start", f"after {end} moves"], hoverinfo="text",
        ),
    ]  # fmt: skip
