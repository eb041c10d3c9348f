"""Figures of runs that grok: curves with phases and spikes, measures over training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from phasescope.analysis.curves import CurveSteps, CurveValues, as_curve
from phasescope.analysis.phases import Phase
from phasescope.analysis.spikes import Spikes
from phasescope.figures.points import dots, drawing_note
from phasescope.figures.theme import (
    COLOURS,
    VERMILLION,
    log_axis,
    plain,
    styled,
)

_SHADES = ("rgba(0,114,178,.08)", "rgba(184,120,0,.10)", "rgba(0,122,90,.10)", "rgba(0,0,0,0)")
_STEP_AXIS = {"type": "log", "dtick": 1, "exponentformat": "power"}


@dataclass(frozen=True)
class Stretch:
    """A phase or a spike, as a figure shades it."""

    name: str
    """What it is."""
    start: int
    """First step."""
    end: int
    """Last step."""


def as_stretches(found: Sequence[Stretch | Phase] | Spikes, last: int) -> list[Stretch]:
    """What `grokking_phases` or `find_spikes` found, as figures shade it.

    Args:
        found: Phases, spikes, or stretches already.
        last: Step at which a phase without an end ends.

    Example:
        >>> from phasescope.analysis.phases import Moment
        >>> as_stretches([Phase("after", Moment(5, 4, 6), None)], 9)
        [Stretch(name='after', start=5, end=9)]
    """
    if isinstance(found, Spikes):
        pairs = zip(found.start.tolist(), found.end.tolist(), strict=True)
        return [Stretch(f"spike {found.direction}", start, end) for start, end in pairs]
    return [
        Stretch(one.name, one.start.step, last if one.end is None else one.end.step)
        if isinstance(one, Phase)
        else one
        for one in found
    ]


def grokking_curves(
    steps: CurveSteps,
    losses: Mapping[str, CurveValues],
    accuracies: Mapping[str, CurveValues],
    *,
    phases: Sequence[Stretch | Phase] = (),
    spikes: Sequence[Stretch] | Spikes = (),
) -> go.Figure:
    """Losses and accuracies of every step on logarithmic axes, phases and spikes shaded.

    Args:
        steps: Steps.
        losses: By name, such as ``"train"`` and ``"test"``, in nats.
        accuracies: By the same names.
        phases: What `grokking_phases` returns, or stretches: shaded in the colour of their order.
        spikes: What `find_spikes` returns, or stretches: marked at the top.

    Returns:
        The figure.

    Raises:
        ValueError: A curve does not belong to the steps.

    Example:
        >>> t = np.arange(4)
        >>> figure = grokking_curves(t, {"test": np.ones(4)}, {"test": np.zeros(4)})
        >>> [trace.name for trace in figure.data]
        ['test', 'test']
    """
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.05, row_heights=[0.65, 0.35]
    )
    at, losses = _arrays(steps, losses)
    _, accuracies = _arrays(steps, accuracies)
    phases, spikes = as_stretches(phases, int(at[-1])), as_stretches(spikes, int(at[-1]))
    shown = at > 0
    x = at[shown]
    colors = {name: COLOURS[i] for i, name in enumerate(losses)}
    drawable = np.stack([np.isfinite(y) & (y > 0) for y in losses.values()])
    for (name, y), good in zip(losses.items(), drawable, strict=True):
        curve = np.where(good, y, np.nan)[shown]
        figure.add_trace(dots(x, curve, name=plain(name), color=colors[name], size=3), 1, 1)
    for name, y in accuracies.items():
        trace = dots(x, y[shown], name=plain(name), color=colors[name], size=3)
        figure.add_trace(trace.update(showlegend=False), 2, 1)
    _shade(figure, phases, int(at[-1]))
    values = np.concatenate([y[g] for y, g in zip(losses.values(), drawable, strict=True)])
    if len(spikes):
        figure.add_scattergl(
            x=[(spike.start + spike.end) / 2 for spike in spikes],
            y=[1.02] * len(spikes),
            text=[plain(spike.name) for spike in spikes],
            name="spike",
            mode="markers",
            marker={"symbol": "triangle-down", "color": VERMILLION, "size": 7},
            row=2,
            col=1,
        )
    axis = log_axis(float(values.min()), float(values.max()), 300) if len(values) else {}
    figure.update_yaxes(title_text="loss (nats)", **axis, row=1, col=1)
    figure.update_yaxes(title_text="accuracy (share)", range=[-0.03, 1.08], row=2, col=1)
    figure.update_xaxes(**_STEP_AXIS)
    figure.update_xaxes(title_text="step", row=2, col=1)
    figure.update_layout(legend_itemsizing="constant")
    seen = f"Every one of {len(x):,} steps from step 1 on, one dot per curve, on logarithmic axes."
    if phases:
        seen += f" Shaded, in this order: {', '.join(phase.name for phase in phases)}."
    if spikes:
        seen += f" Triangles: {len(spikes):,} spikes."
    return styled(
        figure,
        title="Losses and accuracies",
        seen=seen + drawing_note(drawable[:, shown], "zero or not finite"),
        computed=(
            "On all training and all test pairs before each update, losses in float64 unless the "
            "configuration says otherwise. Phases by grokking_phases, spikes by find_spikes."
        ),
        misleads=(
            "A logarithmic axis of steps gives half of its width to the first hundred. Phases are "
            "definitions applied to noisy curves: their boundaries have intervals, which the "
            "numbers give. Dots of later curves hide those of earlier ones."
        ),
        height=620,
    )


def measures_over_training(
    steps: CurveSteps,
    panels: Mapping[str, Mapping[str, CurveValues]],
    *,
    phases: Sequence[Stretch | Phase] = (),
) -> go.Figure:
    """Progress measures over the kept weights of a run, one panel for each unit.

    Args:
        steps: Steps of the kept weights.
        panels: Curves by name under the label of their axis; a label that ends in ``(nats)`` is
            drawn on a logarithmic axis.
        phases: What `grokking_phases` returns, or stretches: shaded.

    Returns:
        The figure.

    Raises:
        ValueError: A curve does not belong to the steps.

    Example:
        >>> figure = measures_over_training(np.arange(3), {"share": {"purity": np.ones(3)}})
        >>> figure.data[0].name
        'purity'
    """
    figure = make_subplots(
        rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.12 / len(panels)
    )
    count = 0
    at = _arrays(steps, {})[0]
    phases = as_stretches(phases, int(at[-1]))
    for row, (label, given) in enumerate(panels.items(), start=1):
        _, curves = _arrays(steps, given)
        for name, y in curves.items():
            trace = dots(at, y, name=plain(name), color=COLOURS[count % len(COLOURS)], size=5)
            figure.add_trace(trace.update(mode="lines+markers", line={"width": 1}), row, 1)
            count += 1
        values = np.concatenate([y[np.isfinite(y) & (y > 0)] for y in curves.values()])
        log = label.endswith("(nats)") and len(values) > 0
        axis = log_axis(float(values.min()), float(values.max()), 180) if log else {}
        figure.update_yaxes(title_text=plain(label), **axis, row=row, col=1)
    _shade(figure, phases, int(at[-1]))
    figure.update_xaxes(title_text="step", row=len(panels), col=1)
    return styled(
        figure,
        title="Progress measures",
        seen=(
            f"One mark for each of the {len(at):,} steps whose weights were kept; the first is "
            "the untrained network, the control of every measure."
            + (f" Shaded: {', '.join(phase.name for phase in phases)}." if phases else "")
        ),
        computed=(
            "From all pairs of operands in the coordinates of the operation's group, in float64, "
            "with the key frequencies of the final network. The glossary defines each measure."
        ),
        misleads=(
            "Keys of the final network favour it: a frequency that was used for a while and left "
            "is not seen. Marks are joined by straight lines, and between them nothing is known."
        ),
        height=140 + 210 * len(panels),
    )


def _arrays(
    steps: CurveSteps, curves: Mapping[str, CurveValues]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Steps and curves as arrays, after a check that they belong together."""
    at = as_curve(steps, steps, "the steps")[0].cpu().numpy()
    return at, {name: as_curve(steps, y, name)[1].cpu().numpy() for name, y in curves.items()}


def _shade(figure: go.Figure, stretches: Sequence[Stretch], last: int) -> None:
    for i, stretch in enumerate(stretches):
        figure.add_vrect(
            x0=max(stretch.start, 1),
            x1=min(stretch.end, last),
            fillcolor=_SHADES[i % len(_SHADES)],
            line_width=0,
            layer="below",
        )
