"""Figures of one spectrum: singular values beside their null, and singular vectors over time."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64
from plotly.subplots import make_subplots
from torch import Tensor

from phasescope.analysis.ranks import count_above
from phasescope.analysis.spectrum import NormNull, Spectrum, check_time_vectors
from phasescope.figures.points import dots, drawing_note
from phasescope.figures.theme import DATA, GRID, INK, MUTED, NULL, log_axis, styled

_SCREE_HEIGHT = 460
_SCREE_PLOT_HEIGHT = 340  # what remains for the plot beside margins and legend, about
_LABEL_HEIGHT = 16

_SCREE_MARKS = (("data", DATA, "circle"), ("norm null", NULL, "circle-open"))
_NO_NULL = ". No null was given: by itself the count cannot be read as a dimension."
_WITH_NULL = (
    "; hollow: the norm-only null, the singular values if the steps were independent directions "
    "with the recorded norms. Where both agree, the count says nothing beyond the norms."
)

_CENTRING = {
    "none": "not centred",
    "steps": "centred over steps",
    "parameters": "centred over parameters",
    "both": "centred over steps and parameters",
}


def _variant(spectrum: Spectrum | NormNull) -> str:
    normalised = "steps scaled to norm 1" if spectrum.normalize else "steps not normalised"
    return f"{_CENTRING[spectrum.center]}, {normalised}"


def _require_matching(spectrum: Spectrum, null: NormNull) -> None:
    problems = [
        f"{name} is {getattr(spectrum, name)!r} in the spectrum but {getattr(null, name)!r} in the "
        "null"
        for name in ("center", "normalize")
        if getattr(spectrum, name) != getattr(null, name)
    ]
    ours, theirs = np.asarray(spectrum.steps), np.asarray(null.steps)
    if not np.array_equal(ours, theirs):
        problems.append(
            f"steps are {len(ours)} values {_ends(ours)} in the spectrum but "
            f"{len(theirs)} values {_ends(theirs)} in the null"
        )
    if problems:
        raise ValueError(
            "scree needs a null made from the same steps, centring and normalisation as the "
            f"spectrum, but {'; '.join(problems)}. Make it from this spectrum: norm_null(spectrum)."
        )


def _ends(steps: np.ndarray) -> str:
    return f"({steps[0]} to {steps[-1]})" if len(steps) else "(none)"


def scree(
    spectrum: Spectrum,
    null: NormNull | None = None,
    thresholds: Sequence[float] = (0.05, 0.10, 0.15),
) -> go.Figure:
    """Singular values, relative to the largest, against their index, beside the norm null.

    Both axes are logarithmic. Each threshold is a horizontal line that says how many singular
    values lie above it, in the data and in the null. The count is no dimension: it moves with the
    number of steps, the batch size and the decay of the gradient norms, so it means something only
    beside its null.

    Args:
        spectrum: The spectrum.
        null: Its norm-only null, from the same steps, centring and normalisation.
        thresholds: Fractions of the largest singular value.

    Returns:
        The figure.

    Raises:
        ValueError: If the null was made from other steps, or with other centring or normalisation,
            or a threshold is no fraction between 0 and 1.

    Example:
        >>> import torch
        >>> import phasescope as ps
        >>> A = torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
        >>> spectrum = ps.spectrum(ps.gram(A))
        >>> figure = scree(spectrum, ps.norm_null(spectrum))
        >>> [trace.name for trace in figure.data]
        ['data', 'norm null']
    """
    if not all(0 < threshold < 1 for threshold in thresholds):
        raise ValueError(
            "the thresholds of scree must be fractions between 0 and 1 of the largest singular "
            f"value, but are {tuple(thresholds)}. Write 10% as 0.1."
        )
    if null is not None:
        _require_matching(spectrum, null)
    spectra = [spectrum.S] if null is None else [spectrum.S, null.S]
    relative = [_relative(S) for S in spectra]
    # What lies at or below the resolution is rounding noise and would only stretch the axis.
    resolution = spectrum.resolution / max(float(spectrum.S.max()), np.finfo(np.float64).tiny)
    every = np.concatenate(relative)
    floor = min([*every[every > resolution].tolist(), *thresholds]) / 1.5
    figure = go.Figure(
        [
            dots(
                np.arange(1, len(values) + 1),
                np.where(values > 0, values, np.nan),
                name=name,
                color=color,
                size=5,
            ).update(marker_symbol=symbol)
            for values, (name, color, symbol) in zip(relative, _SCREE_MARKS, strict=False)
        ]
    )
    labels = [(threshold, _count_label(threshold, spectra)) for threshold in sorted(thresholds)]
    _draw_thresholds(figure, labels, relative, floor)
    figure.update_layout(legend_itemsizing="constant", showlegend=True)
    figure.update_xaxes(type="log", title_text="index of the singular value (largest first)")
    figure.update_yaxes(
        **log_axis(floor, 1.4, _SCREE_PLOT_HEIGHT),
        title_text="singular value / largest",
        range=[math.log10(floor), math.log10(1.4)],
    )
    n_below = int((every <= resolution).sum())
    outside = f" {n_below:,} values at or below {resolution:.1g}, rounding noise, are not shown."
    return styled(
        figure,
        title="Singular values of the trajectory",
        seen=(
            f"Every singular value divided by the largest ({_variant(spectrum)}; "
            f"{len(spectrum.steps):,} steps of {spectrum.n_columns:,} parameters), with the number "
            "of values above each threshold"
            + (_NO_NULL if null is None else _WITH_NULL)
            + (outside if n_below else "")
        ),
        computed=(
            "Square roots of the eigenvalues of the Gram matrix of the steps, summed in float64; a "
            "value counts when it is strictly greater than threshold × largest."
        ),
        misleads=(
            "The count cannot exceed the number of steps and grows with it; it also moves with "
            "batch size, number of classes, centring and the decay of the norms. Counts from "
            "different numbers of steps are not comparable."
        ),
        height=_SCREE_HEIGHT,
    )


def _relative(S: Float64[Tensor, " k"]) -> Float64[np.ndarray, " k"]:
    values = np.asarray(S)
    return values / values[0] if len(values) and values[0] > 0 else values


def _count_label(threshold: float, spectra: list[Float64[Tensor, " k"]]) -> str:
    counts = [f"{count_above(S, threshold):,}" for S in spectra]
    null = f" (null {counts[1]})" if len(counts) > 1 else ""
    return f"<b>{100 * threshold:g}%</b>: {counts[0]}{null}"


def _draw_thresholds(
    figure: go.Figure,
    labels: list[tuple[float, str]],
    curves: list[Float64[np.ndarray, " k"]],
    floor: float,
) -> None:
    """Lines with labels; a label stands in the widest gap between curves, and on no other label."""
    pixels = _SCREE_PLOT_HEIGHT / math.log10(1.4 / floor)
    longest = math.log(max(len(curve) for curve in curves) + 1)
    bottom = -math.inf
    for threshold, text in labels:
        line = pixels * math.log10(threshold / floor)
        bottom = max(line + 1, bottom + _LABEL_HEIGHT)
        # Where the curves cross this threshold, as shares of the logarithmic axis.
        crossings = sorted(math.log((curve > threshold).sum() + 1) / longest for curve in curves)
        edges = [0.0, *crossings, 1.0]
        left, right = max(itertools.pairwise(edges), key=lambda gap: gap[1] - gap[0])
        anchor = "left" if left == 0 else "right" if right == 1 else "center"
        figure.add_hline(y=threshold, line={"color": MUTED, "width": 1, "dash": "dash"})
        figure.add_annotation(
            x={"left": 0.01, "right": 0.99, "center": (left + right) / 2}[anchor],
            xref="x domain",
            xanchor=anchor,
            y=math.log10(threshold),
            yanchor="bottom",
            yshift=bottom - line,
            text=text,
            showarrow=False,
            font={"size": 12, "color": INK},
            bgcolor="rgba(255,255,255,0.8)",
            borderpad=0,
        )


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
            f"dot per step ({_variant(spectrum)}).{note}"
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
