"""Figures of quantities over steps: gradient norms, training loss and test accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from phasescope.figures.points import dots, drawing_note
from phasescope.figures.theme import COLOURS, DATA, GREEN, log_axis, plain, styled


def norms_over_time(
    steps: Int[np.ndarray, " steps"],
    norms: Float[np.ndarray, "steps tensors"],
    names: Sequence[str],
) -> go.Figure:
    """Gradient norm of every tensor over the steps, on a logarithmic axis.

    Every step is a dot. Norms of tensors of different sizes are not comparable in height: a larger
    tensor has the larger norm at the same gradient per parameter.

    Args:
        steps: Steps.
        norms: Euclidean norm of the gradient of each tensor at each step.
        names: Name of each tensor; up to 8 have colours of their own, more are coloured by order.

    Returns:
        The figure.

    Raises:
        ValueError: If there is not one name per tensor.

    Example:
        >>> figure = norms_over_time(np.arange(3), np.ones((3, 2)), ["fc.weight", "fc.bias"])
        >>> [len(trace.y) for trace in figure.data]
        [3, 3]
    """
    if norms.shape[1] != len(names):
        raise ValueError(
            f"norms_over_time needs one name per tensor, but norms has {norms.shape[1]} columns "
            f"and there are {len(names)} names. Pass the names in the order of the columns."
        )
    n = len(names)
    colors: Any = COLOURS
    if n > len(COLOURS):
        colors = sample_colorscale("Viridis", np.linspace(0, 0.9, n).tolist())
    drawable = np.isfinite(norms) & (norms > 0)
    figure = go.Figure(
        [
            dots(
                steps,
                np.where(drawable[:, i], norms[:, i], np.nan),
                name=plain(names[i]),
                color=colors[i],
                size=3,
            )
            for i in range(n)
        ]
    )
    figure.update_xaxes(title_text="step")
    figure.update_yaxes(title_text="gradient norm (loss / parameter)", **_axis_of(norms[drawable]))
    figure.update_layout(showlegend=True, legend_itemsizing="constant")
    return styled(
        figure,
        title="Gradient norm of every tensor",
        seen="One dot per step and tensor, on a logarithmic axis."
        + drawing_note(drawable.T, "zero or not finite"),
        computed=(
            "Euclidean norm of the gradient that the optimizer consumed at each step, per named "
            "tensor, neither smoothed nor divided by the tensor's size."
        ),
        misleads=(
            "Larger tensors have larger norms at the same gradient per parameter. A mini-batch "
            "gradient's norm is signal plus noise, and late in training mostly noise; it scales "
            "with the loss reduction (mean or sum)."
        ),
        height=460 + 10 * n,
    )


def _axis_of(values: Float[np.ndarray, " drawn"], pixels: int = 340) -> dict[str, Any]:
    return log_axis(float(values.min()), float(values.max()), pixels) if len(values) else {}


def training_curves(
    steps: Int[np.ndarray, " steps"],
    loss: Float[np.ndarray, " steps"],
    accuracy_steps: Int[np.ndarray, " evaluations"],
    accuracy: Float[np.ndarray, " evaluations"],
) -> go.Figure:
    """Training loss of every step, and test accuracy where it was evaluated.

    Args:
        steps: Steps of the training loss.
        loss: Mini-batch training loss, in nats per example.
        accuracy_steps: Steps at which the test accuracy was evaluated.
        accuracy: Test accuracy, between 0 and 1.

    Returns:
        The figure.

    Example:
        >>> evaluations, accuracy = np.array([0, 3]), np.array([0.1, 0.9])
        >>> figure = training_curves(np.arange(3), np.ones(3), evaluations, accuracy)
        >>> [trace.name for trace in figure.data]
        ['training loss', 'test accuracy']
    """
    drawable = np.isfinite(loss) & (loss > 0)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    figure.add_trace(
        dots(steps, np.where(drawable, loss, np.nan), name="training loss", color=DATA, size=3),
        row=1,
        col=1,
    )
    figure.add_scatter(
        x=accuracy_steps,
        y=accuracy,
        name="test accuracy",
        mode="lines+markers",
        line={"color": GREEN, "width": 1.5},
        marker={"size": 6},
        row=2,
        col=1,
    )
    axis = _axis_of(loss[drawable], pixels=190)
    figure.update_yaxes(title_text="training loss (nats)", **axis, row=1, col=1)
    figure.update_yaxes(title_text="test accuracy (share)", row=2, col=1)
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title_text="step", row=2, col=1)
    return styled(
        figure,
        title="Training loss and test accuracy",
        seen=(
            f"Above, the training loss of each of {len(steps):,} steps, one dot each, on a "
            "logarithmic axis; below, the test accuracy "
            f"at {len(accuracy_steps):,} evaluations."
            + drawing_note(drawable, "zero or not finite")
        ),
        computed=(
            "The loss is the mini-batch's, at the weights before the step's update; the accuracy "
            "is the share of the test set that is classified correctly, with the model in "
            "evaluation mode."
        ),
        misleads=(
            "Each dot is another mini-batch, so its spread is sampling noise, not the "
            "trajectory's. Loss and accuracy belong to different data (training and test)."
        ),
        height=520,
    )


def metrics_over_time(
    metrics: Mapping[str, tuple[Int[np.ndarray, " steps"], Float[np.ndarray, " steps"]]],
) -> go.Figure:
    """Every logged metric over the steps, one panel each, every value a dot.

    Args:
        metrics: Steps and values under the name of each metric.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no metric.

    Example:
        >>> figure = metrics_over_time({"loss": (np.arange(3), np.ones(3))})
        >>> figure.data[0].name
        'loss'
    """
    if not metrics:
        raise ValueError(
            "metrics_over_time needs at least one metric, but got none. Pass "
            "{name: (steps, values)}, "
            "such as those of a run's metrics."
        )
    figure = make_subplots(
        rows=len(metrics), cols=1, shared_xaxes=True, vertical_spacing=0.3 / (3 * len(metrics))
    )
    for row, (name, (steps, values)) in enumerate(metrics.items(), start=1):
        figure.add_trace(
            dots(steps, values, name=plain(name), color=COLOURS[row % len(COLOURS)], size=3),
            row=row,
            col=1,
        )
        figure.update_yaxes(title_text=plain(name), row=row, col=1)
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title_text="step", row=len(metrics), col=1)
    counts = ", ".join(f"{name} {len(steps):,}" for name, (steps, _) in metrics.items())
    return styled(
        figure,
        title="What the loop logged",
        seen=f"Every logged value, one dot each ({counts}), in the unit in which it was logged.",
        computed=(
            "Nothing: these are the numbers given to recorder.log, under the step of the weights "
            "on which they were evaluated."
        ),
        misleads=(
            "A loss logged every step is that of another mini-batch each time: its spread is "
            "sampling noise, not the trajectory's."
        ),
        height=120 + 190 * len(metrics),
    )
