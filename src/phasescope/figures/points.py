"""Recorded points as WebGL dots, and what a caption says about those that are not drawn."""

import itertools

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float, Int, Shaped

# Above this many points per trace a browser stalls; see `drawn_rows`.
MAX_POINTS = 200_000


def drawn_rows(y: Shaped[np.ndarray, " n"], limit: int = MAX_POINTS) -> Int[np.ndarray, " drawn"]:
    """Rows that are drawn: all of them up to the limit, beyond it the extremes of equal bins.

    A long series is cut into `limit / 2` runs of neighbouring points, and of each run the lowest
    and the highest point are kept: no excursion is lost. It misleads about density: a run with one
    outlier looks like a run of which half is outlying.

    Args:
        y: The series; values that are not finite are never an extreme.
        limit: Largest number of rows returned.

    Returns:
        Increasing row numbers.

    Example:
        >>> drawn_rows(np.array([0.0, 9.0, 1.0, 2.0, 1.0, -9.0, 0.0, 1.0]), limit=4).tolist()
        [0, 1, 4, 5]
    """
    n = len(y)
    if n <= limit:
        return np.arange(n)
    starts = np.linspace(0, n, limit // 2 + 1).astype(np.int64)
    finite = np.isfinite(y)
    low, high = np.where(finite, y, np.inf), np.where(finite, y, -np.inf)
    rows = {
        start + extreme
        for start, stop in itertools.pairwise(starts)
        for extreme in (low[start:stop].argmin(), high[start:stop].argmax())
    }
    return np.array(sorted(rows), dtype=np.int64)


def dots(
    x: Shaped[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    *,
    name: str,
    color: str,
    size: int = 4,
) -> go.Scattergl:
    """A trace of one dot per recorded point (see `drawn_rows` for more than 200,000).

    Args:
        x: Positions.
        y: Values.
        name: Name in the legend, already safe to draw.
        color: Colour of the dots.
        size: Diameter in pixels.

    Returns:
        The trace.

    Example:
        >>> len(dots(np.arange(3), np.ones(3), name="loss", color="#000").y)
        3
    """
    rows = drawn_rows(y)
    return go.Scattergl(
        x=x[rows],
        y=y[rows],
        name=name,
        mode="markers",
        marker={"color": color, "size": size, "opacity": 0.75},
    )


def drawing_note(drawable: Bool[np.ndarray, "*shape n"], where: str) -> str:
    """What a caption must say about points that are not drawn, or "" if every point is.

    Args:
        drawable: For each point (the last axis runs along a trace), whether the axes can show it.
        where: What the points that cannot be shown are, such as "not finite".

    Returns:
        One or two sentences, each with a leading space, or an empty string.

    Example:
        >>> drawing_note(np.array([True, False]), "not finite")
        ' 1 of 2 points cannot be drawn (not finite).'
    """
    note = ""
    missing = int((~drawable).sum())
    if missing:
        note += f" {missing:,} of {drawable.size:,} points cannot be drawn ({where})."
    if drawable.shape[-1] > MAX_POINTS:
        note += (
            f" Each trace has {drawable.shape[-1]:,} points, more than the {MAX_POINTS:,} that are "
            "drawn: the lowest and the highest of every run of neighbouring points are shown."
        )
    return note
