"""Figures of parts of a network: their mass against their effect, and components by frequency."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from phasescope.figures.theme import DATA, INK, VERMILLION, log_axis, plain, styled


@dataclass(frozen=True, eq=False)
class MassAndEffect:
    """Parts of one kind: how much of a spectrum is theirs, and what the network loses without.

    Example:
        >>> MassAndEffect(np.ones(2), np.ones(2), 0.5, "head").name
        'head'
    """

    mass: Float[np.ndarray, " c"]
    """Share of the energy."""
    effect: Float[np.ndarray, " c"]
    """Change of the measure; drawn by its size."""
    rho: float
    """Rank correlation."""
    name: str
    """What a part is called, in the singular."""


def mass_against_effect(panels: Mapping[str, MassAndEffect], *, effect: str) -> go.Figure:
    """Mass of every part against its effect, a panel for each kind, on logarithmic axes.

    Args:
        panels: By kind of part.
        effect: What the vertical axis is, with its unit.

    Returns:
        The figure.

    Raises:
        ValueError: There is no kind.

    Example:
        >>> heads = MassAndEffect(np.array([0.1, 0.2]), np.array([1.0, 2.0]), 1.0, "head")
        >>> len(mass_against_effect({"heads": heads}, effect="rise of the loss (nats)").data)
        2
    """
    if not panels:
        raise ValueError("mass_against_effect needs at least one kind of parts, but got none.")
    titles = [f"{plain(kind)}: ρ = {panel.rho:.2f}" for kind, panel in panels.items()]
    figure = make_subplots(
        rows=1, cols=len(panels), subplot_titles=titles, horizontal_spacing=0.22 / len(panels)
    )
    left_out = 0
    for column, panel in enumerate(panels.values(), start=1):
        shown = (panel.mass > 0) & (panel.effect != 0)
        left_out += int((~shown).sum())
        for sign, colour, name in ((1, DATA, "raises"), (-1, VERMILLION, "lowers")):
            of_sign = shown & (np.sign(panel.effect) == sign)
            figure.add_scattergl(
                x=panel.mass[of_sign],
                y=np.abs(panel.effect[of_sign]),
                text=[f"{plain(panel.name)} {i}" for i in np.flatnonzero(of_sign)],
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                mode="markers",
                marker={"color": colour, "size": 7, "opacity": 0.7},
                row=1,
                col=column,
            )
        place: Any = {"row": 1, "col": column}
        if shown.any():
            width = 560 // len(panels)
            x = log_axis(float(panel.mass[shown].min()), float(panel.mass[shown].max()), width)
            sizes = np.abs(panel.effect[shown])
            y = log_axis(float(sizes.min()), float(sizes.max()), 300)
            figure.update_xaxes(**(x | {"nticks": 4}), **place)
            figure.update_yaxes(**y, **place)
        figure.update_xaxes(title_text="share of the energy", **place)
    figure.update_yaxes(title_text=plain(effect), row=1, col=1)
    figure.update_annotations(font={"size": 12, "color": INK})
    note = f" {left_out} parts without mass or effect are not drawn." if left_out else ""
    return styled(
        figure,
        title="What moves, and what matters",
        seen=(
            "One dot for each part: its share in the energy of the leading components against the "
            "size of what happens without it. Blue: the measure rises; red: it falls." + note
        ),
        computed=(
            "Shares of the squared leading directions, weighted by their squared singular values; "
            "ρ is Spearman's rank correlation of share and signed effect."
        ),
        misleads=(
            "Parts that back each other up have small effects one at a time. Where all parts of a "
            "kind are alike, their ranks are noise."
        ),
        height=430,
    )


def component_frequencies(
    power: Mapping[str, Float[np.ndarray, "k f"]], keys: Sequence[int]
) -> go.Figure:
    """Share of every frequency in what leading components change in the embedding.

    Args:
        power: Shares of frequencies 1, 2, ... for each component, by the kind of spectrum.
        keys: Key frequencies, marked.

    Returns:
        The figure.

    Raises:
        ValueError: There is no spectrum.

    Example:
        >>> len(component_frequencies({"raw": np.ones((2, 5)) / 5}, [3]).data)
        1
    """
    if not power:
        raise ValueError("component_frequencies needs at least one spectrum, but got none.")
    n = len(power)
    figure = make_subplots(
        rows=n,
        cols=1,
        shared_xaxes=True,
        subplot_titles=[plain(name) for name in power],
        vertical_spacing=0.3 / n if n > 1 else 0,
    )
    top = max(float(shares.max()) for shares in power.values())
    for row, shares in enumerate(power.values(), start=1):
        figure.add_heatmap(
            z=shares,
            x=np.arange(1, shares.shape[1] + 1),
            y=[str(i) for i in range(len(shares))],
            zmin=0,
            zmax=top,
            colorscale="Viridis",
            colorbar={"title": {"text": "share"}, "thickness": 14},
            showscale=row == 1,
            row=row,
            col=1,
        )
        below: Any = {"row": row, "col": 1}
        for key in keys:
            figure.add_vline(key, line={"color": VERMILLION, "width": 1, "dash": "dot"}, **below)
    figure.update_yaxes(title_text="component", autorange="reversed")
    figure.update_xaxes(title_text="frequency", row=n, col=1)
    figure.update_annotations(font={"size": 12, "color": INK})
    return styled(
        figure,
        title="Leading components of the weights, by frequency",
        seen=(
            "A row is a component, the largest on top; the colour is the share of a frequency in "
            "what it changes in the embedding. Dotted: key frequencies of the final network."
        ),
        computed=(
            "Fourier transform along the tokens of the embedding's part of each parameter "
            "direction, in the order in which the task is an addition; the constant is left out."
        ),
        misleads=(
            "The embedding is a small part of the weights: a component may act elsewhere. Of raw "
            "weights the first component is their mean."
        ),
        height=150 + 150 * n,
    )
