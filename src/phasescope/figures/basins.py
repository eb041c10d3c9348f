"""Figures of the loss between models: along paths and on planes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float

from phasescope.analysis.planes import PlaneValues
from phasescope.figures.theme import COLOURS, INK, MUTED, NULL, plain, styled
from phasescope.interventions.basins import BasinReport


def basin_paths(report: BasinReport) -> go.Figure:
    """The number that decides along every path between two models, beside random targets.

    Args:
        report: From `same_basin`.

    Returns:
        The figure.

    Example:
        >>> import torch
        >>> from phasescope.interventions import same_basin
        >>> from phasescope.models import MLP
        >>> x, y = torch.randn(64, 4), torch.arange(64) % 2
        >>> a, b = MLP((4, 8, 2)).state_dict(), MLP((4, 8, 2)).state_dict()
        >>> figure = basin_paths(same_basin(MLP((4, 8, 2)), a, b, {"train": (x, y)}))
        >>> [trace.name for trace in figure.data][-1]
        'activations matched'
    """
    figure = go.Figure()
    for number, path in enumerate(report.random):
        figure.add_scatter(
            x=path.t.numpy(),
            y=path.values[report.name].numpy(),
            mode="lines",
            line={"color": NULL, "width": 1, "dash": "dot"},
            name="to random targets as far away",
            legendgroup="random",
            showlegend=number == 0,
        )
    colours = [c for c in COLOURS if c != NULL]
    for (name, path), colour in zip(report.paths.items(), colours, strict=False):
        figure.add_scatter(
            x=path.t.numpy(),
            y=path.values[report.name].numpy(),
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 5},
            name=plain(name),
        )
    first = next(iter(report.paths.values())).values[report.name]
    for offset in (0.0, report.tolerance):
        figure.add_scatter(
            x=[0, 1],
            y=[first[0].item() + offset, first[-1].item() + offset],
            mode="lines",
            line={"color": MUTED, "width": 1, "dash": "solid" if not offset else "dash"},
            name="between the ends" if not offset else "tolerance above it",
            visible=True,
        )
    # The lines of reference lie below the data.
    n = len(report.random)
    data = list(figure.data)
    figure = go.Figure([*data[-2:], *data[:n], *data[n:-2]])
    figure.update_xaxes(title_text="place on the path: first model (0) to second (1)")
    shown = torch.cat([path.values[report.name] for path in report.paths.values()])
    low, high = shown.min().item(), max(shown.max().item(), first.max().item() + report.tolerance)
    room = 0.08 * (high - low) or 1.0
    figure.update_yaxes(title_text=plain(report.name), range=[low - room, high + room])
    verdict = str(report).split("\n")[0]
    return styled(
        figure,
        title=f"Between two models: {verdict}",
        seen=(
            f"{report.name} at evenly spaced places of each path. Thin grey: the line between the "
            "values at both ends; dashed: the tolerance above it. Dotted: straight lines to random "
            "targets, which leave the figure at the top."
        ),
        computed=(
            "Barriers are rises over the line between the ends: "
            + "; ".join(f"{name} {b:.4g}" for name, b in report.barriers.items())
            + f". Tolerance {report.tolerance:.4g}, {report.tolerance_source}."
        ),
        misleads=(
            "A low line shows one basin; a high one only that no better permutation was found. "
            "Narrow ridges fall between the places."
        ),
    )


def loss_plane(
    values: PlaneValues,
    name: str,
    *,
    labels: tuple[str, str, str] = ("first", "second", "third"),
    trajectories: Mapping[str, Float[np.ndarray, "points 2"]] | None = None,
    log: bool = False,
) -> go.Figure:
    """A number on the plane through three models, with trajectories projected on it.

    Args:
        values: From `plane_values`.
        name: Of the number.
        labels: Names of the three models.
        trajectories: Coordinates of successive states, from `Plane.coordinates`.
        log: Whether colours follow the decimal logarithm.

    Returns:
        The figure.

    Raises:
        ValueError: There is no such number.

    Example:
        >>> import torch, phasescope as ps
        >>> o, x, y = ({"w": torch.tensor(v)} for v in ([0.0, 0.0], [2.0, 0.0], [1.0, 2.0]))
        >>> norm = lambda state: {"loss": state["w"].norm().item()}
        >>> values = ps.plane_values(norm, ps.Plane.through(o, x, y), n_points=5)
        >>> loss_plane(values, "loss").data[0].z.shape
        (5, 5)
    """
    if name not in values.values:
        raise ValueError(f"name must be one of {', '.join(values.values)}, but it is {name!r}.")
    z = values.values[name].numpy()
    shown = np.log10(np.maximum(z, np.finfo(float).tiny)) if log else z
    title = f"log₁₀ {name}" if log else name
    figure = go.Figure(
        go.Contour(
            x=values.x.numpy(),
            y=values.y.numpy(),
            z=shown,
            colorscale="Blues",
            reversescale=True,
            ncontours=24,
            line={"width": 0.5, "color": "#FFFFFF"},
            colorbar={"title": {"text": plain(title), "side": "right"}, "thickness": 14},
            name=plain(name),
        )
    )
    colours = [c for c in COLOURS if c not in (INK, COLOURS[0])]
    for (label, points), colour in zip((trajectories or {}).items(), colours, strict=False):
        figure.add_scatter(
            x=points[:, 0],
            y=points[:, 1],
            mode="lines+markers",
            line={"color": colour, "width": 1.5},
            marker={"size": 4},
            name=plain(label),
        )
    corners = values.corners.numpy()
    figure.add_scatter(
        x=corners[:, 0],
        y=corners[:, 1],
        mode="markers",
        marker={"size": 10, "color": INK, "line": {"width": 1.5, "color": "#FFFFFF"}},
        showlegend=False,
    )
    for label, (x, y) in zip(labels, corners, strict=True):
        figure.add_annotation(
            x=x,
            y=y,
            text=plain(label),
            yshift=18,
            showarrow=False,
            bgcolor="rgba(255, 255, 255, 0.85)",
            borderpad=2,
        )
    figure.update_xaxes(
        title_text="distance towards the second model", showgrid=False, constrain="domain"
    )
    figure.update_yaxes(
        title_text="distance off their line", scaleanchor="x", scaleratio=1, showgrid=False
    )
    return styled(
        figure,
        title=f"{name} on the plane through three models",
        seen="Darker is lower. Black dots: the three models, which lie in the plane."
        + (" Lines: trajectories, projected." if trajectories else ""),
        computed=(
            f"{z.shape[1]} x {z.shape[0]} places of the plane, in an orthonormal basis "
            "(Gram–Schmidt), so that distances are those of the weights."
        ),
        misleads=(
            "A projected trajectory need not come near the plane: the loss at its points is not "
            "the one shown there. Barriers in a plane can be walked around outside it."
        ),
        height=560,
    )
