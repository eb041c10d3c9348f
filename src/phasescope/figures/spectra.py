"""Figure of singular vectors over time, and what a spectrum is called in a caption."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from phasescope.analysis.spectrum import Spectrum, check_time_vectors
from phasescope.figures.points import dots, drawing_note
from phasescope.figures.theme import DATA, GRID, INK, styled

_CENTRING = {
    "none": "not centred",
    "steps": "centred over steps",
    "parameters": "centred over parameters",
    "both": "centred over steps and parameters",
}


def variant(spectrum: Spectrum) -> str:
    """What was subtracted and scaled, in words.

    Args:
        spectrum: The spectrum.

    Returns:
        Words for a caption.

    Example:
        >>> import torch
        >>> import phasescope as ps
        >>> variant(ps.spectrum(ps.gram(torch.eye(3)), center="steps"))
        'centred over steps, steps not normalised'
    """
    normalised = "steps scaled to norm 1" if spectrum.normalize else "steps not normalised"
    return f"{_CENTRING[spectrum.center]}, {normalised}"


def time_vectors(spectrum: Spectrum, k: int = 6) -> go.Figure:
    r"""The first k time-side singular vectors over the steps, one panel each.

    Every step is a dot. Each panel names its component's share of the energy, $s_i^2 / \sum_j
    s_j^2$. The sign of a singular vector is arbitrary, and vectors of nearly equal singular values
    are an arbitrary basis of their common plane.

    Args:
        spectrum: The spectrum.
        k: Number of panels; fewer are drawn if the spectrum has fewer components.

    Returns:
        The figure.

    Raises:
        ValueError: If k is less than 1.

    Example:
        >>> import torch
        >>> import phasescope as ps
        >>> A = torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
        >>> len(time_vectors(ps.spectrum(ps.gram(A)), k=2).data)
        2
    """
    if k < 1:
        raise ValueError(f"time_vectors needs at least one component, but got k={k}. Pass k >= 1.")
    check_time_vectors(spectrum)
    S, steps = np.asarray(spectrum.S), np.asarray(spectrum.steps)
    vectors = np.asarray(spectrum.time_vectors)[:, :k]
    energy = S**2 / max((S**2).sum(), np.finfo(np.float64).tiny)
    k = vectors.shape[1]
    figure = make_subplots(
        rows=k,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.22 / k if k > 1 else 0,
        subplot_titles=[
            f"component {i + 1}: {100 * energy[i]:.3g}% of the energy" for i in range(k)
        ],
    )
    for i in range(k):
        panel: Any = {"row": i + 1, "col": 1}  # plotly's stubs want strings here
        trace = dots(steps, vectors[:, i], name=f"component {i + 1}", color=DATA, size=3)
        figure.add_trace(trace, **panel)
        figure.add_hline(y=0, line={"color": GRID, "width": 1}, layer="below", **panel)
    figure.update_annotations(
        font={"size": 12, "color": INK}, x=0, xanchor="left", xref="paper", yshift=-1
    )
    figure.update_xaxes(title_text="step", row=k, col=1)
    figure.update_yaxes(nticks=4)
    figure.update_yaxes(title_text="unit-vector entry", row=(k + 1) // 2, col=1)
    figure.update_layout(showlegend=False)
    note = drawing_note(np.isfinite(vectors.T), "not finite")
    return styled(
        figure,
        title="Singular vectors over time",
        seen=(
            f"How much every step contributes to each of the leading components ({k} drawn), one "
            f"dot per step ({variant(spectrum)}).{note}"
        ),
        computed=(
            "Eigenvectors of the Gram matrix (the time side of A = U S V^T with one row per "
            "step), each of norm 1; energy is the squared singular value as a share of the sum of "
            "all squares."
        ),
        misleads=(
            "The sign of a vector is arbitrary. Components with nearly equal singular values are "
            "an arbitrary basis of their plane. Without centring, the first one may be the "
            "mean; and a step with a large norm stands out in every component unless steps are "
            "normalised."
        ),
        height=130 + 110 * k,
    )
