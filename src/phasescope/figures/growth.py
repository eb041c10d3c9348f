"""Figures of ensembles: curves of every seed, alignments over training, statistics by setting."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from plotly.subplots import make_subplots

from phasescope.figures.matrices import MatrixFrame, matrices_on_slider
from phasescope.figures.theme import DATA, INK, MUTED, NULL, log_axis, plain, styled

_EMPTY = np.empty(0)


@dataclass(frozen=True, eq=False)
class SeedCurves:
    """Loss curves of the seeds of one setting, and what theory says of them.

    Example:
        >>> SeedCurves("rank 1", np.arange(3), np.ones((2, 3))).title
        'rank 1'
    """

    title: str
    """What the panel shows."""
    steps: Int[np.ndarray, " steps"]
    """Steps of the losses."""
    losses: Float[np.ndarray, "seeds steps"]
    """One row per seed; drawn relative to their first value."""
    theory_steps: Int[np.ndarray, " points"] | Float[np.ndarray, " points"] = field(
        default_factory=lambda: _EMPTY
    )
    """Steps of the theory; none if there is none."""
    theory: Float[np.ndarray, "seeds points"] = field(default_factory=lambda: np.empty((0, 0)))
    """Losses by theory, one row per seed: their median is drawn."""


def seed_curves(panels: Sequence[SeedCurves], floor: float = 1e-4) -> go.Figure:
    """Loss of every seed over the steps, thin, with the median over seeds and that of the theory.

    Args:
        panels: One panel each, two to a row.
        floor: Share of the first loss where the axes end.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no panel.

    Example:
        >>> panel = SeedCurves("rank 1", np.arange(3), np.exp(-np.arange(6.0).reshape(2, 3)))
        >>> [trace.name for trace in seed_curves([panel]).data]
        ['seed', 'median over seeds']
    """
    if not panels:
        raise ValueError("seed_curves needs at least one panel, but got none. Pass SeedCurves.")
    n_columns = min(2, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure = make_subplots(
        rows=n_rows,
        cols=n_columns,
        subplot_titles=[_two_lines(panel.title) for panel in panels],
        vertical_spacing=min(0.3, 96 / (310 * n_rows)),
        horizontal_spacing=0.09,
        shared_yaxes=True,
    )
    named: set[str] = set()
    for index, panel in enumerate(panels):
        place: dict[str, Any] = {"row": index // n_columns + 1, "col": index % n_columns + 1}
        for trace in _panel_traces(panel, floor):
            trace.showlegend = trace.name not in named
            trace.legendgroup = trace.name
            named.add(str(trace.name))
            figure.add_trace(trace, **place)
        figure.update_xaxes(title_text="step", **place)
        axis = log_axis(floor, 1.6, 230)
        figure.update_yaxes(range=[np.log10(floor), np.log10(1.6)], **axis, **place)
    for row in range(1, n_rows + 1):
        figure.update_yaxes(title_text="loss / first loss", row=row, col=1)
    figure.update_annotations(font={"size": 12})
    figure.update_layout(showlegend=True)
    if any("<br>" in _two_lines(panel.title) for panel in panels[:n_columns]):
        figure.update_layout(margin_t=44)  # the first titles have two lines
    counts = ", ".join(f"{p.title}: {len(p.losses)} seeds" for p in panels)
    has_theory = any(panel.theory.size for panel in panels)
    return styled(
        figure,
        title="Loss of every seed",
        seen=(
            f"A thin line per seed ({counts}), the median over seeds at each step in black"
            + (
                " and, where there is an exact theory, the median of what it gives from the same "
                "starts, dashed"
                if has_theory
                else ""
            )
            + f". Logarithmic axes that end at {floor:g} of the first loss."
        ),
        computed=(
            "Loss at the weights before each step over the loss at the first one"
            + (
                "; the theory integrates the four equations of a rank-one factorization under "
                "gradient flow."
                if has_theory
                else "."
            )
        ),
        misleads=(
            "A median of curves is no curve of a seed: where seeds fall at different times the "
            "median is smoother than each of them."
        ),
        height=120 + 310 * n_rows,
    )


def _two_lines(title: str) -> str:
    """The title, broken after its second comma: two panels stand side by side."""
    parts = plain(title).split(", ")
    return ", ".join(parts[:2]) + ("<br>" + ", ".join(parts[2:]) if len(parts) > 2 else "")


def _panel_traces(panel: SeedCurves, floor: float) -> list[go.Scattergl]:
    def relative(losses: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            share = losses / losses[:, :1]
        return np.where(np.isfinite(share) & (share > floor / 10), share, np.nan)

    seeds = relative(panel.losses)
    # One trace for all seeds, a gap after each: hundreds of traces would stall a browser.
    n_seeds = len(seeds)
    gap = np.full((n_seeds, 1), np.nan)
    y = np.concatenate([seeds, gap], axis=1).astype(np.float32).reshape(-1)
    x = np.tile(np.append(panel.steps, panel.steps[-1]).astype(np.int32), n_seeds)
    thin = {"color": DATA, "width": 1}
    traces = [go.Scattergl(x=x, y=y, name="seed", mode="lines", line=thin, opacity=0.22)]
    lines = [("median over seeds", panel.steps, panel.losses, {"color": INK, "width": 2.2})]
    if panel.theory.size:
        dashed = {"color": NULL, "width": 2.2, "dash": "dash"}
        lines.append(("theory, median", panel.theory_steps, panel.theory, dashed))
    for name, steps, losses, line in lines:
        with np.errstate(all="ignore"):
            middle = np.median(losses / losses[:, :1], axis=0)
        middle = np.where(np.isfinite(middle) & (middle > floor / 10), middle, np.nan)
        traces.append(go.Scattergl(x=steps, y=middle, name=name, mode="lines", line=line))
    return traces


def alignment_over_training(
    steps: Int[np.ndarray, " steps"], alignments: Float[np.ndarray, "steps columns targets"]
) -> go.Figure:
    """Alignment of every learned with every true column, one heat map per step on a slider.

    Args:
        steps: Steps at which the alignments were taken.
        alignments: absolute cosines between the columns.

    Returns:
        The figure; it opens at the last step.

    Raises:
        ValueError: If there is not one matrix per step.

    Example:
        >>> figure = alignment_over_training(np.array([0, 5]), np.zeros((2, 3, 3)))
        >>> len(figure.data), figure.layout.sliders[0].steps[1].label
        (2, '5')
    """
    n = len(alignments)
    if n != len(steps) or n == 0:
        raise ValueError(
            f"one alignment matrix per step is needed, at least one, but there are {n} matrices "
            f"and {len(steps)} steps."
        )
    return matrices_on_slider(
        [
            MatrixFrame(str(int(step)), matrix)
            for step, matrix in zip(steps, alignments, strict=True)
        ],
        slider="step",
        x_title="column of A (target)",
        y_title="column of X (learned)",
        value="|cos|",
        span=(0.0, 1.0),
        title="Which column turns to which target",
        seen=(
            f"Absolute cosine between every learned column (rows) and every true one (columns) of "
            f"one seed; the slider goes through {n} steps of the training."
        ),
        computed="|x_i · a_j| / (|x_i| |a_j|), of the left factor.",
        misleads=(
            "The product can match the target while no column matches one: columns may be any "
            "mixture of the true ones, since X G and Y G⁻ᵀ have the same product. One seed."
        ),
    )


@dataclass(frozen=True, eq=False)
class SettingValues:
    """A statistic of every seed of one setting.

    Example:
        >>> SettingValues("rank 1", np.array([1.0, 2.0]), 1.5, (1.0, 2.0)).setting
        'rank 1'
    """

    setting: str
    """Name of the setting."""
    values: Float[np.ndarray, " seeds"]
    """One value per seed; NaN where a seed has none."""
    mean: float
    """Their mean, of whichever kind."""
    interval: tuple[float, float] | None = None
    """Its 95% interval."""


def values_by_setting(
    rows: Sequence[SettingValues],
    *,
    title: str,
    axis: str,
    computed: str,
    misleads: str,
    log: bool = False,
    mean_name: str = "mean",
    null: float | None = None,
    null_name: str = "null",
) -> go.Figure:
    """A statistic of every seed in every setting, with its mean and 95% interval.

    Args:
        rows: One row per setting, drawn from top to bottom.
        title: What the statistic is.
        axis: Title of the axis, with the unit.
        computed: How it was computed, a sentence.
        misleads: When it misleads, a sentence.
        log: Whether the axis is logarithmic; values that are not positive are left out then.
        mean_name: Which mean the rows carry.
        null: What the value would be if nothing were going on.
        null_name: What that is.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no row.

    Example:
        >>> row = SettingValues("rank 1", np.array([1.0, 2.0]), 1.5, (1.2, 1.8))
        >>> figure = values_by_setting(
        ...     [row], title="t", axis="bumps", computed="Counted.", misleads="Often."
        ... )
        >>> [trace.name for trace in figure.data]
        ['seed', 'mean and 95% interval']
    """
    if not rows:
        raise ValueError("values_by_setting needs at least one row, but got none.")
    figure = go.Figure()
    kept = [r.values[np.isfinite(r.values) & ((r.values > 0) | (not log))] for r in rows]
    y = np.concatenate([np.full(len(v), i - 0.14) for i, v in enumerate(kept)])
    spread = np.random.default_rng(0).uniform(-0.16, 0.16, len(y))
    x = np.concatenate(kept) if kept else _EMPTY
    names = [plain(r.setting) for r, v in zip(rows, kept, strict=True) for _ in v]
    marker = {"color": DATA, "size": 4, "opacity": 0.45}
    hover = "%{text}: %{x:.4g}"
    figure.add_scattergl(
        x=x,
        y=y + spread,
        text=names,
        name="seed",
        mode="markers",
        marker=marker,
        hovertemplate=hover,
    )
    low, high = (
        [abs(row.mean - row.interval[i]) if row.interval else 0.0 for row in rows] for i in (0, 1)
    )
    figure.add_scatter(
        x=[row.mean for row in rows],
        y=np.arange(len(rows)) + 0.24,
        error_x={"type": "data", "array": high, "arrayminus": low, "thickness": 2, "width": 5},
        name=f"{mean_name} and 95% interval",
        mode="markers",
        marker={"color": INK, "size": 8, "symbol": "diamond"},
        hovertemplate="%{x:.4g}",
    )
    if null is not None:
        line = {"color": NULL, "width": 1.5, "dash": "dot"}
        figure.add_vline(null, line=line, showlegend=True, name=null_name)
    span = x if len(x) else np.array([1.0, 10.0])
    extra: dict[str, Any] = log_axis(float(span.min()), float(span.max()), 620) if log else {}
    figure.update_xaxes(title_text=axis, **extra)
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[plain(r.setting).replace(", ", "<br>", 1) for r in rows],
        range=[len(rows) - 0.4, -0.6],
        showgrid=False,
        ticks="",
        tickfont={"size": 11, "color": MUTED},
    )
    figure.update_layout(showlegend=True)
    return styled(
        figure,
        title=title,
        seen=(
            "One row per setting; a dot per seed (moved up or down a little at random), and below "
            f"the dots their {mean_name} with its 95% interval"
            + (f"; the dotted line is {null_name}." if null is not None else ".")
        ),
        computed=computed,
        misleads=misleads,
        height=150 + 46 * len(rows),
    )
