"""Figures of counts over seeds: by setting, and against the early steps that are left out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from phasescope.figures.theme import DATA, INK, MUTED, NULL, plain, styled


@dataclass(frozen=True, eq=False)
class SettingCounts:
    """Counts of one setting (model, optimizer, batch), one per seed, beside those of its null.

    Example:
        >>> SettingCounts("MLP, SGD 0.1", np.array([80, 92]), np.array([85, 90])).setting
        'MLP, SGD 0.1'
    """

    setting: str
    """Name of the setting, such as "MLP, SGD 0.1, batch 64"."""
    counts: Float[np.ndarray, " seeds"] | Int[np.ndarray, " seeds"]
    """Count of each seed (a mean over samplings need not be whole)."""
    null_counts: Float[np.ndarray, " seeds"] | Int[np.ndarray, " seeds"]
    """Count of the norm-only null of each seed."""


def counts_by_setting(
    rows: Sequence[SettingCounts],
    published: tuple[float, float] | None = (80.9, 104.1),
    published_center: float | None = 92.5,
    threshold: float = 0.1,
) -> go.Figure:
    """Count above the threshold in every setting, every seed a mark, beside the norm-only null.

    The published interval is a band. A count inside the band reproduces the number; a null inside
    the band says that the number needs no explanation beyond the gradient norms.

    Args:
        rows: One row per setting, drawn from top to bottom.
        published: Published interval.
        published_center: Published mean.
        threshold: The fraction of the largest singular value that was counted.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no row.

    Example:
        >>> row = SettingCounts("MLP", np.array([80, 92]), np.array([85, 90]))
        >>> [trace.name for trace in counts_by_setting([row]).data]
        ['seed', 'median over seeds', 'norm null, seed', 'norm null, median']
    """
    if not rows:
        raise ValueError(
            "counts_by_setting needs at least one setting, but got none. Pass one SettingCounts "
            "per setting."
        )
    figure = go.Figure()
    series = (
        ("seed", "norm null, seed", lambda values: values),
        ("median over seeds", "norm null, median", lambda values: np.median(values, keepdims=True)),
    )
    for null in (False, True):
        for ours, theirs, reduce in series:
            values = [reduce(row.null_counts if null else row.counts) for row in rows]
            figure.add_scatter(
                x=np.concatenate(values),
                y=np.repeat(
                    np.arange(len(rows)) + (0.22 if null else -0.12), [len(v) for v in values]
                ),
                text=[plain(row.setting) for row, v in zip(rows, values, strict=True) for _ in v],
                name=theirs if null else ours,
                mode="markers",
                marker=_mark(null=null, median=reduce is series[1][2]),
                hovertemplate="%{text}: %{x}",
            )
    if published is not None:
        figure.add_vrect(
            *published,
            fillcolor=MUTED,
            opacity=0.16,
            line_width=0,
            layer="below",
            showlegend=True,
            name=f"published: {published[0]:g} to {published[1]:g}",
        )
    if published_center is not None:
        figure.add_vline(published_center, line={"color": MUTED, "width": 1, "dash": "dot"})
    figure.update_xaxes(
        title_text=f"count above {100 * threshold:g}%",
        rangemode="tozero",
    )
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[_wrapped(row.setting) for row in rows],
        range=[len(rows) - 0.4, -0.6],
        showgrid=False,
        ticks="",
    )
    n_seeds = sorted({len(row.counts) for row in rows})
    return styled(
        figure,
        title=f"Singular values above {100 * threshold:g}%, by setting",
        seen=(
            f"One row per setting; thin marks are seeds ({' or '.join(map(str, n_seeds))} per "
            "setting), the heavy mark is their median; hollow marks are the norm-only null of the "
            "same seeds"
            + (
                f"; the band is the published interval {published[0]:g} to {published[1]:g}."
                if published
                else "."
            )
        ),
        computed=(
            f"Count of singular values strictly greater than {threshold:g} × the largest; for the "
            f"null, count of steps whose gradient norm is greater than {threshold:g} × the largest "
            "norm."
        ),
        misleads=(
            "Where the null lies on the data, the count is explained by how the gradient norms "
            "decay. Counts depend on the number of steps in the matrix, which must be equal for "
            "all rows."
        ),
        height=150 + 54 * len(rows),
    )


def _mark(*, null: bool, median: bool) -> dict:
    if null:
        line = {"color": NULL, "width": 2.5 if median else 1}
        return {
            "symbol": "diamond-open" if median else "circle-open",
            "size": 11 if median else 6,
            "line": line,
            "color": NULL,
        }
    line = {"color": INK if median else DATA, "width": 3.5 if median else 1.2}
    return {
        "symbol": "line-ns-open",
        "size": 22 if median else 14,
        "line": line,
        "color": line["color"],
    }


def _wrapped(setting: str) -> str:
    """The setting over two lines, broken after its first comma, to leave a phone room to plot."""
    return plain(setting).replace(", ", "<br>", 1)


def counts_against_dropped_steps(
    dropped: Int[np.ndarray, " n"],
    counts: Float[np.ndarray, "seeds n"] | Int[np.ndarray, "seeds n"],
    null_counts: Float[np.ndarray, "seeds n"] | Int[np.ndarray, "seeds n"],
    threshold: float = 0.1,
) -> go.Figure:
    """Count above the threshold without the first steps, beside its norm-only null.

    If the count only described the large gradients of the first steps, it would change, with its
    null, as they are left out.

    Args:
        dropped: Numbers of first steps left out, increasing; drawn evenly spaced.
        counts: Counts, one row per seed.
        null_counts: Counts of the norm-only null, one row per seed.
        threshold: The fraction of the largest singular value that was counted.

    Returns:
        The figure.

    Example:
        >>> dropped, counts = np.array([0, 100]), np.array([[90, 60], [80, 66]])
        >>> len(counts_against_dropped_steps(dropped, counts, counts + 5).data)
        6
    """
    figure = go.Figure()
    labels = [str(t) for t in dropped.tolist()]
    for null, values in ((True, null_counts), (False, counts)):
        name, color = ("norm null", NULL) if null else ("data", DATA)
        symbol = "circle-open" if null else "circle"
        for seed, row in enumerate(values):
            figure.add_scatter(
                x=labels,
                y=row,
                name=f"{name}, seed {seed}",
                mode="lines",
                line={"color": color, "width": 1, "dash": "dot" if null else "solid"},
                opacity=0.45,
                showlegend=False,
            )
        figure.add_scatter(
            x=labels,
            y=np.median(values, axis=0),
            name=f"{name}, median over seeds",
            mode="lines+markers",
            line={"color": color, "width": 2.5, "dash": "dash" if null else "solid"},
            marker={"symbol": symbol, "size": 8},
        )
    figure.update_xaxes(title_text="first steps left out (not to scale)", type="category")
    figure.update_yaxes(
        title_text=f"count above {100 * threshold:g}% of the largest", rangemode="tozero"
    )
    return styled(
        figure,
        title="The count without the early steps",
        seen=(
            f"Count above {100 * threshold:g}% when the first steps are left out: thin lines are "
            f"seeds ({len(counts)}), the heavy line is their median; dashed and hollow: the "
            "norm-only null of the same steps."
        ),
        computed=(
            "The spectrum of the remaining steps, from the same Gram matrix; the null counts "
            f"remaining steps whose norm is greater than {threshold:g} × the largest remaining "
            "norm."
        ),
        misleads=(
            "Leaving out steps makes the matrix smaller, and the count cannot exceed what "
            "remains. The largest singular value, to which all is compared, changes too: a count "
            "may rise because the largest fell."
        ),
    )
