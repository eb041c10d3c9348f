"""Figure of the scales of Adam's updates at every step, spikes of the loss beside them."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from plotly.subplots import make_subplots

from phasescope.analysis.spikes import Spikes
from phasescope.figures.grokking import Stretch, as_stretches
from phasescope.figures.points import dots, drawing_note
from phasescope.figures.theme import COLOURS, INK, VERMILLION, log_axis, plain, styled

# Scales with a unit of the loss, drawn together on a logarithmic axis, and shares.
_NAMES = {
    "gradient_norm": "norm of the gradient",
    "step_norm": "norm of the step",
    "root_second_moment": "median √v̂",
    "normalised": "root mean square of m̂/(√v̂ + ε)",
}
_SHARE = "share_below_epsilon"


def scales_over_training(
    steps: Int[np.ndarray, " t"],
    scales: Mapping[str, Float[np.ndarray, " t"]],
    epsilon: float,
    *,
    spikes: Sequence[Stretch] | Spikes = (),
) -> go.Figure:
    """The fields of `AdamScales` over the steps, with ε and the spikes of the training loss.

    Args:
        steps: Updates that had been applied before each of these.
        scales: Values by the names of the fields.
        epsilon: ε of the optimizer, drawn as a line.
        spikes: What `find_spikes` returns, or stretches: marked at the top.

    Returns:
        The figure.

    Example:
        >>> scales = {"gradient_norm": np.ones(3), "share_below_epsilon": np.zeros(3)}
        >>> figure = scales_over_training(np.arange(3), scales, 1e-8)
        >>> [trace.name for trace in figure.data]
        ['norm of the gradient', 'ε', '√v̂ below ε']
    """
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.68, 0.32]
    )
    curves = {shown: scales[name] for name, shown in _NAMES.items() if name in scales}
    drawable = np.stack([np.isfinite(y) & (y > 0) for y in curves.values()])
    for i, ((name, y), good) in enumerate(zip(curves.items(), drawable, strict=True)):
        curve = np.where(good, y, np.nan)
        figure.add_trace(dots(steps, curve, name=plain(name), color=COLOURS[i], size=3), 1, 1)
    ends = [float(steps[0]), float(steps[-1])]
    line = {"color": INK, "width": 1.2, "dash": "dot"}
    figure.add_trace(go.Scatter(x=ends, y=[epsilon] * 2, mode="lines", name="ε", line=line), 1, 1)
    below = dots(steps, scales[_SHARE], name="√v̂ below ε", color=COLOURS[4], size=3)
    figure.add_trace(below, 2, 1)
    if stretches := as_stretches(spikes, int(steps[-1])):
        marks = go.Scattergl(
            x=[(spike.start + spike.end) / 2 for spike in stretches],
            y=[1.08] * len(stretches),
            name="spike",
            mode="markers",
            marker={"symbol": "triangle-down", "color": VERMILLION, "size": 7},
        )
        figure.add_trace(marks, 2, 1)
    values = np.concatenate([y[g] for y, g in zip(curves.values(), drawable, strict=True)])
    low, high = float(values.min(initial=epsilon)), float(values.max(initial=epsilon))
    figure.update_yaxes(title_text="scale", **log_axis(low, 1.01 * high, 320), row=1, col=1)
    figure.update_yaxes(title_text="share of parameters", range=[-0.03, 1.15], row=2, col=1)
    figure.update_xaxes(title_text="step", row=2, col=1)
    figure.update_layout(legend_itemsizing="constant")
    return styled(
        figure,
        title="Scales of Adam's updates",
        seen=(
            f"One dot per curve for each of {len(steps):,} updates; the dotted line is ε."
            + (f" Triangles: {len(stretches):,} spikes of the training loss." if stretches else "")
            + drawing_note(drawable, "zero or not finite")
        ),
        computed=(
            "From gradient and moments just after each update (adam_scales), over all parameters; "
            "the step is without weight decay and includes the learning rate."
        ),
        misleads=(
            "Norms grow with the number of parameters, the median √v̂ does not: compare √v̂ with ε, "
            "and norms with themselves. That √v̂ is small before a spike says nothing unless it is "
            "larger in quiet steps."
        ),
        height=560,
    )
