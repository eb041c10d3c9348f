"""Figures of the principal components of a path beside those of random walks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from phasescope.analysis.matching import check_same_rows
from phasescope.analysis.spectrum import Spectrum, check_time_vectors
from phasescope.analysis.walks import WalkNull
from phasescope.figures.points import dots, drawn_rows
from phasescope.figures.theme import DATA, INK, MUTED, NULL, log_axis, styled

_ADVICE = "path_walk_null(gram, center=..., steps=...) with those of the spectrum"
_WALK = (
    "a random walk has the same picture without going anywhere: cosines of falling size, of which "
    "the first looks like a trend and the second like a turn."
)


def explained_variance(spectrum: Spectrum, null: WalkNull, k: int = 10) -> go.Figure:
    """Share of the variance of each principal component of a path, beside random walks.

    Args:
        spectrum: Of the path: weights, logits or losses over training.
        null: Random walks of the same points: `path_walk_null`, or `walk_null` of an optimizer.
        k: Number of components.

    Returns:
        The figure.

    Raises:
        ValueError: The null is of other points or another centring, or k is less than 1.

    Example:
        >>> import torch
        >>> import phasescope as ps
        >>> g = ps.gram(torch.randn(30, 200).cumsum(0))
        >>> figure = explained_variance(ps.spectrum(g, center="steps"), ps.path_walk_null(g))
        >>> [trace.name for trace in figure.data]
        ['random walks: 95% of the draws', 'random walks: median', 'data']
    """
    _check(spectrum, null, k, "explained_variance")
    S2 = np.asarray(spectrum.S) ** 2
    shares, k = null.shares.numpy(), min(k, len(S2), null.shares.shape[1])
    low, middle, high = np.quantile(shares[:, :k], [0.025, 0.5, 0.975], axis=0)
    index = np.arange(1, k + 1)
    figure = go.Figure()
    figure.add_scatter(
        x=np.concatenate([index, index[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        fill="toself",
        fillcolor="rgba(213,94,0,0.18)",
        line={"width": 0, "color": NULL},
        mode="lines",
        hoverinfo="skip",
        name="random walks: 95% of the draws",
    )
    figure.add_scatter(
        x=index, y=middle, name="random walks: median", mode="lines+markers",
        line={"color": NULL, "width": 1.5}, marker={"symbol": "circle-open", "size": 8},
    )  # fmt: skip
    data = S2[:k] / max(S2.sum(), np.finfo(np.float64).tiny)
    figure.add_scatter(
        x=index, y=data, name="data", mode="markers", marker={"color": DATA, "size": 9}
    )
    drawn = np.concatenate([data, low, high])
    floor = max(float(drawn[drawn > 0].min()), 1e-8) / 1.4
    figure.update_xaxes(title_text="principal component", dtick=1)
    figure.update_yaxes(
        **log_axis(floor, 1.2), title_text="share of the variance",
        range=[np.log10(floor), np.log10(1.2)],
    )  # fmt: skip
    return styled(
        figure,
        title="Variance that principal components explain",
        seen=(
            f"Share of each of the first {k} components in the variance of {len(spectrum.steps):,} "
            f"points; {len(shares):,} random walks of the same points: median and 95% band."
        ),
        computed=(
            "Squared singular values over their sum. The walks have the increments of the path "
            "with random signs, or those of the simulated optimizer."
        ),
        misleads=(
            "A few components explain most of any walk, however many dimensions it has (centred: "
            "61, 15, 7, 4%): only a share outside the band says something. Momentum alone puts a "
            "path above walks of its increments."
        ),
    )


def principal_scores(
    spectrum: Spectrum, null: WalkNull, k: int = 4, boundaries: Sequence[int] = ()
) -> go.Figure:
    """Scores of the first principal components of a path over the steps, beside a random walk's.

    Args:
        spectrum: Of the path, with time vectors.
        null: Random walks of the same points.
        k: Number of panels.
        boundaries: Steps at which phases end, drawn as vertical lines.

    Returns:
        The figure.

    Raises:
        ValueError: The null is of other points or another centring, or k is less than 1.

    Example:
        >>> import torch
        >>> import phasescope as ps
        >>> g = ps.gram(torch.randn(30, 200).cumsum(0))
        >>> figure = principal_scores(ps.spectrum(g, center="steps"), ps.path_walk_null(g), k=2)
        >>> [trace.name for trace in figure.data]
        ['data', 'random walk', 'data', 'random walk']
    """
    _check(spectrum, null, k, "principal_scores")
    check_time_vectors(spectrum)
    steps, k = np.asarray(spectrum.steps), min(k, spectrum.time_vectors.shape[1])
    data, walk = _scores(spectrum, null, k)
    titles = [f"component {i + 1}" for i in range(k)]
    figure = make_subplots(
        rows=k, cols=1, shared_xaxes=True, vertical_spacing=0.22 / k if k > 1 else 0,
        subplot_titles=titles,
    )  # fmt: skip
    for i in range(k):
        place: Any = {"row": i + 1, "col": 1}
        trace = dots(steps, data[:, i], name="data", color=DATA)
        figure.add_trace(trace.update(showlegend=i == 0), **place)
        rows = drawn_rows(walk[:, i])
        line = go.Scatter(
            x=steps[rows], y=walk[rows, i], name="random walk", mode="lines",
            line={"color": NULL, "width": 2, "dash": "dash"}, showlegend=i == 0,
        )  # fmt: skip
        figure.add_trace(line, **place)
        for step in boundaries:
            figure.add_vline(step, line={"color": INK, "width": 1, "dash": "dot"}, **place)
    figure.update_annotations(
        font={"size": 12, "color": INK}, x=0, xanchor="left", xref="paper", yshift=-1
    )
    figure.update_xaxes(title_text="step", row=k, col=1)
    figure.update_yaxes(nticks=4)
    figure.update_yaxes(title_text="score, unit of the path", row=(k + 1) // 2, col=1)
    return styled(
        figure,
        title="Principal components over training",
        seen=(
            "Dots: position of every point along each component; dashed: the component of a "
            "random walk of the same points, signed and as large as typical of it"
            + ("; dotted: boundaries between phases." if boundaries else ".")
        ),
        computed=(
            "Time vectors times singular values; for the walk, eigenvectors of its expected inner "
            "products times the median singular value."
        ),
        misleads=(
            f"In such a figure {_WALK} Only what departs from the dashed lines is the path's own. "
            "Components of nearly equal size may be swapped or rotated."
        ),
        height=130 + 120 * k,
    )


def principal_plane(
    spectrum: Spectrum, null: WalkNull, boundaries: Sequence[int] = ()
) -> go.Figure:
    """A path in the plane of its first two principal components, beside a random walk in its own.

    Args:
        spectrum: Of the path, with time vectors.
        null: Random walks of the same points.
        boundaries: Steps at which phases end: the nearest point is ringed and named.

    Returns:
        The figure.

    Raises:
        ValueError: The null is of other points or another centring, or there are fewer than two
            components.

    Example:
        >>> import torch
        >>> import phasescope as ps
        >>> g = ps.gram(torch.randn(30, 200).cumsum(0))
        >>> figure = principal_plane(ps.spectrum(g, center="steps"), ps.path_walk_null(g), [10])
        >>> len(figure.data)
        4
    """
    _check(spectrum, null, 2, "principal_plane")
    check_time_vectors(spectrum)
    if spectrum.time_vectors.shape[1] < 2:
        raise ValueError(
            "principal_plane needs two components, but the spectrum has one. Use principal_scores."
        )
    steps = np.asarray(spectrum.steps)
    figure = make_subplots(
        rows=1, cols=2, subplot_titles=["data", "random walk of the same points"],
        horizontal_spacing=0.12,
    )  # fmt: skip
    for column, scores in enumerate(_scores(spectrum, null, 2), start=1):
        place: Any = {"row": 1, "col": column}
        marker = {
            "color": steps, "colorscale": "Viridis", "size": 5, "showscale": column == 2,
            "colorbar": {"title": {"text": "step"}, "thickness": 12},
        }  # fmt: skip
        figure.add_trace(
            go.Scattergl(
                x=scores[:, 0], y=scores[:, 1], mode="lines+markers", marker=marker,
                line={"color": MUTED, "width": 0.7}, text=[f"step {t}" for t in steps],
                hovertemplate="%{text}", name="data" if column == 1 else "random walk",
            ),
            **place,
        )  # fmt: skip
        for step in boundaries:
            row = int(np.abs(steps - step).argmin())
            figure.add_trace(
                go.Scatter(
                    x=scores[row : row + 1, 0], y=scores[row : row + 1, 1],
                    mode="markers+text", text=[f"{steps[row]:,}"], textposition="top center",
                    marker={"symbol": "circle-open", "size": 13, "color": INK},
                    name="boundary between phases",
                ),
                **place,
            )  # fmt: skip
        figure.update_xaxes(title_text="component 1, unit of the path", row=1, col=column)
        figure.update_yaxes(title_text="component 2" if column == 1 else None, row=1, col=column)
    figure.update_annotations(font={"size": 12, "color": INK})
    figure.update_layout(showlegend=False)
    return styled(
        figure,
        title="The path in the plane of its first two principal components",
        seen=(
            "Every point, coloured by step, and beside it what a random walk of the same points "
            "looks like" + ("; rings: boundaries between phases." if boundaries else ".")
        ),
        computed=(
            "Time vectors times singular values; for the walk, eigenvectors of its expected inner "
            "products times the median singular value."
        ),
        misleads=(
            f"Any smooth curve bends in this plane, and {_WALK} A bend means something only where "
            "the walk has none."
        ),
        height=430,
    )


def _scores(spectrum: Spectrum, null: WalkNull, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the data and of the walk, the walk's with the signs that fit the data."""
    data = (spectrum.time_vectors[:, :k] * spectrum.S[:k]).numpy()
    walk = (null.time_vectors[:, :k] * null.S[:k]).numpy()
    # A walk made of unit increments has no unit: it is drawn as large as the path.
    size = np.linalg.norm(spectrum.S) / max(float(np.linalg.norm(null.S)), 1e-300)
    signs = np.sign((data[:, : walk.shape[1]] * walk).sum(0))
    return data, walk * np.where(signs == 0, 1, signs) * size


def _check(spectrum: Spectrum, null: WalkNull, k: int, caller: str) -> None:
    check_same_rows(spectrum, null, caller, _ADVICE)
    if k < 1:
        raise ValueError(f"{caller} needs at least one component, but got k={k}. Pass k >= 1.")
