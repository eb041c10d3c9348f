"""Figure of singular values beside their nulls."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float64
from torch import Tensor

from phasescope.analysis.edges import NoiseEdges
from phasescope.analysis.flips import FlipRankTest
from phasescope.analysis.frozen import FrozenComparison
from phasescope.analysis.matching import check_same_rows
from phasescope.analysis.ranks import count_above
from phasescope.analysis.spectrum import NormNull, Spectrum
from phasescope.analysis.walks import WalkNull
from phasescope.figures.points import dots
from phasescope.figures.spectra import variant
from phasescope.figures.theme import DATA, GREEN, INK, MUTED, NULL, ORANGE, PURPLE, log_axis, styled

Null = NormNull | FlipRankTest | FrozenComparison | WalkNull
_HEIGHT = 460
_PLOT_HEIGHT = 340  # what remains for the plot beside margins and legend, about
_LEGEND_ROW = 22
_LABEL_HEIGHT = 16
_MARKS = ((NULL, "circle-open"), (GREEN, "diamond-open"), (PURPLE, "square-open"), (ORANGE, "x"))
_NO_NULL = ". No null was given: by itself the count cannot be read as a dimension."


@dataclass(frozen=True)
class _Kind:
    """What the figure says about one kind of null."""

    name: str
    advice: str
    seen: str


_KINDS: dict[type, _Kind] = {
    NormNull: _Kind(
        "norm null",
        "norm_null(spectrum)",
        "the norm-only null, the singular values if the steps were independent directions "
        "with the recorded norms. Where both agree, the count says nothing beyond the norms.",
    ),
    FlipRankTest: _Kind(
        "random signs",
        "flip_rank_test(A, center=..., normalize=..., steps=...) with those of the spectrum",
        "the median over copies of the data with a random sign for every entry, in units of the "
        "data's largest value; the line is what each value of the data must exceed to count.",
    ),
    FrozenComparison: _Kind(
        "frozen weights",
        "compare_with_frozen(gram, frozen, center=..., normalize=..., steps=...) with those of "
        "the spectrum",
        "gradients at weights that do not move (median over draws). What both show is minibatch "
        "noise.",
    ),
    WalkNull: _Kind(
        "random walk",
        "path_walk_null(gram, center=..., steps=...) with those of the spectrum",
        "random walks (median over draws). Where both agree, the path goes nowhere in particular.",
    ),
}


def scree(
    spectrum: Spectrum,
    null: Null | Sequence[Null] | None = None,
    thresholds: Sequence[float] = (0.05, 0.10, 0.15),
    *,
    edges: NoiseEdges | None = None,
) -> go.Figure:
    """Singular values, relative to the largest, against their index, beside their nulls.

    Both axes are logarithmic. Each threshold is a horizontal line that says how many singular
    values lie above it, in the data and in the nulls. The count is no dimension: it moves with the
    number of steps, the batch size and the decay of the gradient norms, so it means something only
    beside its null. Nulls are drawn relative to their own largest value, as the counts are; random
    signs and edges relative to the data's largest, since they say which value is large.

    Args:
        spectrum: The spectrum.
        null: One null or several, from the same steps, centring and normalisation: of the norms,
            random signs, frozen weights, or a random walk.
        thresholds: Fractions of the largest singular value.
        edges: Where independent noise ends, drawn as lines.

    Returns:
        The figure.

    Raises:
        ValueError: If a null was made from other steps, or with other centring or normalisation,
            or of another matrix, or a threshold is no fraction between 0 and 1.

    Example:
        >>> import torch
        >>> import phasescope as ps
        >>> A = torch.randn(20, 50, generator=torch.Generator().manual_seed(1))
        >>> spectrum = ps.spectrum(ps.gram(A))
        >>> figure = scree(spectrum, [ps.norm_null(spectrum), ps.flip_rank_test(A)])
        >>> [trace.name for trace in figure.data]
        ['data', 'norm null', 'random signs: rank 0', 'threshold of the flip test']
    """
    if not all(0 < threshold < 1 for threshold in thresholds):
        raise ValueError(
            "the thresholds of scree must be fractions between 0 and 1 of the largest singular "
            f"value, but are {tuple(thresholds)}. Write 10% as 0.1."
        )
    if not isinstance(spectrum, Spectrum):
        raise TypeError(
            f"scree draws a Spectrum, but a {type(spectrum).__name__} arrived. Make one with "
            "phasescope.spectrum(phasescope.gram(A))."
        )
    nulls = [] if null is None else [null] if isinstance(null, Null) else list(null)
    for one in nulls:
        check_same_rows(spectrum, one, "scree", _KINDS[type(one)].advice)
        _check_same_matrix(spectrum, one)
    unit = max(float(spectrum.S.max()), np.finfo(np.float64).tiny)
    # What lies at or below the resolution is rounding noise and would only stretch the axis.
    resolution = spectrum.resolution / unit
    figure, curves = go.Figure(), [_relative(spectrum.S)]
    figure.add_trace(_points(curves[0], "data", DATA, "circle"))
    for one, (color, symbol) in zip(nulls, itertools.cycle(_MARKS), strict=False):
        flips = isinstance(one, FlipRankTest)
        curves.append(np.asarray(one.S) / unit if flips else _relative(one.S))
        kind = _KINDS[type(one)].name
        name = f"{kind}: {_rank(one)}" if isinstance(one, FlipRankTest) else kind
        figure.add_trace(_points(curves[-1], name, color, symbol))
        if isinstance(one, FlipRankTest):
            figure.add_trace(_threshold_line(np.asarray(one.thresholds) / unit, color))
    if edges is not None:
        _draw_edges(figure, spectrum, edges, unit)
    every = np.concatenate(curves)
    floor = min([*every[every > resolution].tolist(), *thresholds]) / 1.5
    counted = {_KINDS[type(n)].name: n.S for n in nulls if not isinstance(n, FlipRankTest)}
    labels = [(level, _count_label(level, spectrum.S, counted)) for level in thresholds]
    _draw_thresholds(figure, sorted(labels), curves, floor)
    top = 1.4 * max(1.0, *(float(curve.max()) for curve in curves))
    figure.update_layout(legend_itemsizing="constant", showlegend=True)
    figure.update_xaxes(type="log", title_text="index of the singular value (largest first)")
    figure.update_yaxes(
        **log_axis(floor, top, _PLOT_HEIGHT),
        title_text="singular value / largest",
        range=[math.log10(floor), math.log10(top)],
    )
    n_below = int((curves[0] <= resolution).sum())
    values = f"{n_below:,} values" if n_below > 1 else "1 value"
    outside = f" Rounding noise ({values} at or below {resolution:.1g}) is not shown."
    return styled(
        figure,
        title="Singular values of the trajectory",
        seen=(
            f"Every singular value divided by the largest ({variant(spectrum)}; "
            f"{len(spectrum.steps):,} steps of {spectrum.n_columns:,} parameters), with the number "
            "of values above each threshold"
            + (_seen(nulls) or _NO_NULL)
            + _edges_seen(edges)
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
        height=_HEIGHT + _LEGEND_ROW * (len(curves) > 2 or edges is not None),
    )


def _rank(test: FlipRankTest) -> str:
    """Rank of a flip test; where deflation did not end, the count before it as well."""
    if test.converged:
        return f"rank {test.rank}"
    return f"rank {test.first_rank}, with deflation ≥ {test.rank}"


def _check_same_matrix(spectrum: Spectrum, null: Null) -> None:
    """A flip test has the data's values: they must be the spectrum's."""
    if isinstance(null, FlipRankTest) and not (
        len(null.observed) == len(spectrum.S)
        and torch.allclose(null.observed[:1], spectrum.S[:1], rtol=1e-3)
    ):
        raise ValueError(
            "scree needs a flip test of the matrix of the spectrum, but its largest singular value "
            f"is {float(null.observed[0]):.4g} of {len(null.observed)} and that of the spectrum "
            f"{float(spectrum.S[0]):.4g} of {len(spectrum.S)}. A test with equalize=True is one of "
            "another matrix: its rank can be reported, its values not be laid beside these."
        )


def _points(values: np.ndarray, name: str, color: str, symbol: str) -> go.Scattergl:
    drawn = np.where(values > 0, values, np.nan)
    index = np.arange(1, len(values) + 1)
    return dots(index, drawn, name=name, color=color, size=5).update(marker_symbol=symbol)


def _threshold_line(values: np.ndarray, color: str) -> go.Scatter:
    return go.Scatter(
        x=np.arange(1, len(values) + 1),
        y=np.where(values > 0, values, np.nan),
        name="threshold of the flip test",
        mode="lines",
        line={"color": color, "width": 1.5, "shape": "hv"},
    )


def _draw_edges(figure: go.Figure, spectrum: Spectrum, edges: NoiseEdges, unit: float) -> None:
    T = len(spectrum.steps)
    possible = {T, T - (spectrum.center in ("steps", "both"))}
    if edges.n_steps not in possible or edges.n_columns != spectrum.n_columns:
        raise ValueError(
            f"scree needs noise edges of {' or '.join(map(str, sorted(possible)))} steps and "
            f"{spectrum.n_columns} parameters, but they are of {edges.n_steps} steps and "
            f"{edges.n_columns} parameters. Make them with "
            "noise_edges(parameter_variances(A, spectrum), n_steps)."
        )
    for value, what in ((edges.upper, "upper"), (edges.lower, "lower")):
        if value > 0:
            figure.add_scatter(
                x=[1, T],
                y=[value / unit, value / unit],
                name=f"{what} edge of independent noise",
                mode="lines",
                line={"color": INK, "width": 1.5, "dash": "dashdot"},
            )


def _seen(nulls: Sequence[Null]) -> str:
    said = [f"{_KINDS[type(one)].name}: {_KINDS[type(one)].seen}" for one in nulls]
    if len(nulls) == 1:
        said = [_KINDS[type(nulls[0])].seen]
    return "; hollow: " + " ".join(said) if said else ""


def _edges_seen(edges: NoiseEdges | None) -> str:
    if edges is None:
        return ""
    loud = f" {edges.n_outliers} parameters are louder than any noise of the others."
    return " Dash-dotted: where independent noise with the variances of the parameters ends." + (
        loud if edges.n_outliers else ""
    )


def _relative(S: Float64[Tensor, " k"]) -> Float64[np.ndarray, " k"]:
    values = np.asarray(S)
    return values / values[0] if len(values) and values[0] > 0 else values


def _count_label(
    threshold: float, S: Float64[Tensor, " k"], nulls: dict[str, Float64[Tensor, " n"]]
) -> str:
    counts = {name: f"{count_above(null, threshold):,}" for name, null in nulls.items()}
    several = ", ".join(f"{name} {count}" for name, count in counts.items())
    beside = several if len(counts) > 1 else "".join(f"null {n}" for n in counts.values())
    count = f"<b>{100 * threshold:g}%</b>: {count_above(S, threshold):,}"
    return f"{count} ({beside})" if beside else count


def _draw_thresholds(
    figure: go.Figure,
    labels: list[tuple[float, str]],
    curves: list[Float64[np.ndarray, " k"]],
    floor: float,
) -> None:
    """Lines with labels; a label stands in the widest gap between curves, and on no other label."""
    pixels = _PLOT_HEIGHT / math.log10(1.4 / floor)
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
