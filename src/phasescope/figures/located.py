"""Figure of which components are detected, and how far their vectors can be trusted."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from phasescope.analysis.located import LocatedComponents
from phasescope.figures.theme import DATA, GREEN, INK, MUTED, NULL, styled


def component_overlaps(located: LocatedComponents, k: int = 20) -> go.Figure:
    """Strength of the first k components, and how much of their vectors is expected to be signal.

    Args:
        located: From `phasescope.located_components`.
        k: Number of components.

    Returns:
        The figure.

    Raises:
        ValueError: If k is less than 1.

    Example:
        >>> import torch
        >>> import phasescope as ps
        >>> A = torch.randn(40, 900, generator=torch.Generator().manual_seed(0))
        >>> located = ps.located_components(ps.spectrum(ps.gram(A)), 1.0)
        >>> [trace.name for trace in component_overlaps(located, 5).data][0]
        'strength'
    """
    if k < 1:
        raise ValueError(f"component_overlaps needs at least one component, but got k={k}.")
    k = min(k, len(located.strength))
    index = np.arange(1, k + 1)
    detected = located.detected[:k].numpy()
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.12,
        subplot_titles=["strength of the signal", "share of the vector that is signal (expected)"],
    )  # fmt: skip
    series = (
        (1, "strength", located.strength, DATA, "circle"),
        (2, "time vector", located.time_overlap, DATA, "circle"),
        (2, "parameter vector", located.parameter_overlap, GREEN, "diamond"),
    )
    for row, name, values, color, symbol in series:
        place: Any = {"row": row, "col": 1}
        marks = [symbol if found else f"{symbol}-open" for found in detected]
        figure.add_trace(
            go.Scatter(
                x=index, y=values[:k].numpy(), name=name, mode="markers",
                marker={"color": color, "size": 8, "symbol": marks},
                customdata=located.p[:k].numpy(),
                hovertemplate="%{y:.3g} (p = %{customdata:.2g})",
            ),
            **place,
        )  # fmt: skip
    figure.update_annotations(
        font={"size": 12, "color": INK}, x=0, xanchor="left", xref="paper", yshift=-1
    )
    for row, height, text in ((1, 1.0, "located above"), (2, 0.5, "one half")):
        place = {"row": row, "col": 1}
        figure.add_hline(
            height, line={"color": NULL, "width": 1, "dash": "dash"}, **place,
            annotation={"text": text, "font": {"size": 11, "color": MUTED}, "xanchor": "right"},
            annotation_position="top right",
        )  # fmt: skip
    top = max(1.0, float(located.strength[:k].max()))
    figure.update_xaxes(title_text="component (largest first)", row=2, col=1)
    figure.update_yaxes(title_text="noise of a row", range=[-0.05 * top, 1.1 * top], row=1, col=1)
    figure.update_yaxes(title_text="squared cosine", range=[-0.05, 1.08], row=2, col=1)
    return styled(
        figure,
        title="Components detected and located",
        seen=(
            f"{located.n_detected} components are detected (filled; Tracy–Widom p < "
            f"{located.level:g}), {located.n_located} of them located: at least half of their "
            "parameter vector is signal. Hollow: not detected."
        ),
        computed=(
            "Each singular value is solved for the strength of a signal in noise of one variance "
            f"(standard deviation {located.sigma:.3g} of an entry), which gives the expected "
            "squared cosines of its vectors with the signal's."
        ),
        misleads=(
            "It holds for noise of equal variance: whiten the trajectory first. Noise that is "
            "correlated between parameters counts as signal, and with ten components or more in a "
            "thousand steps the overlaps are too high."
        ),
        height=520,
    )
