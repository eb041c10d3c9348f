"""Heat maps of a matrix at several moments or settings, one shown at a time by a slider."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Shaped

from phasescope.figures.theme import plain, styled


@dataclass(frozen=True, eq=False)
class MatrixFrame:
    """One position of the slider.

    Example:
        >>> MatrixFrame("100", np.eye(2)).label
        '100'
    """

    label: str
    """What the slider says at this position."""
    matrix: Shaped[np.ndarray, "rows columns"]
    """What is drawn; NaN is left blank."""


def matrices_on_slider(
    frames: Sequence[MatrixFrame],
    *,
    slider: str,
    x_title: str,
    y_title: str,
    value: str,
    title: str,
    seen: str,
    computed: str,
    misleads: str,
    span: tuple[float, float] | None = None,
    diverging: bool = False,
    first_number: int = 1,
    height: int = 560,
) -> go.Figure:
    """Heat maps with a slider through them; it opens at the last one.

    All frames have one colour scale, so that they can be compared.

    Args:
        frames: One matrix each, of any sizes.
        slider: What the slider goes through, such as ``step``.
        x_title: What the columns are.
        y_title: What the rows are.
        value: What the colour is, with its unit.
        title: Of the figure.
        seen: Caption: what is seen.
        computed: Caption: how.
        misleads: Caption: when it misleads.
        span: Ends of the colour scale; from the smallest to the largest value by default.
        diverging: Whether zero is a centre, with a colour for each sign.
        first_number: Number of the first row and column.
        height: Pixels.

    Returns:
        The figure.

    Raises:
        ValueError: There is no frame.

    Example:
        >>> figure = matrices_on_slider(
        ...     [MatrixFrame("0", np.eye(2)), MatrixFrame("5", np.ones((2, 2)))],
        ...     slider="step", x_title="feature", y_title="neuron", value="response",
        ...     title="t", seen="s.", computed="c.", misleads="m.",
        ... )
        >>> len(figure.data), figure.layout.sliders[0].steps[1].label
        (2, '5')
    """
    if not frames:
        raise ValueError("matrices_on_slider needs at least one frame, but got none.")
    n = len(frames)
    drawn = np.concatenate([frame.matrix.ravel() for frame in frames]).astype(np.float64)
    drawn = drawn[np.isfinite(drawn)]
    low, high = span or ((float(drawn.min()), float(drawn.max())) if len(drawn) else (0.0, 1.0))
    if diverging:
        high = max(abs(low), abs(high))
        low = -high
    figure = go.Figure(
        [
            go.Heatmap(
                z=frame.matrix.astype(np.float32),
                x=np.arange(frame.matrix.shape[1]) + first_number,
                y=np.arange(frame.matrix.shape[0]) + first_number,
                zmin=low,
                zmax=high,
                colorscale="RdBu_r" if diverging else "Viridis",
                colorbar={"title": {"text": plain(value)}, "thickness": 14},
                name=f"{plain(slider)} {plain(frame.label)}",
                hovertemplate=f"{plain(y_title)} %{{y}}, {plain(x_title)} %{{x}}: %{{z:.2f}}",
                visible=i == n - 1,
            )
            for i, frame in enumerate(frames)
        ]
    )
    steps = [
        {
            "label": plain(frame.label),
            "method": "restyle",
            "args": [{"visible": [j == i for j in range(n)]}],
        }
        for i, frame in enumerate(frames)
    ]
    if n > 1:
        current = {"prefix": f"{plain(slider)} ", "font": {"size": 13}}
        position = {"active": n - 1, "currentvalue": current, "pad": {"t": 44, "b": 6}}
        figure.update_layout(sliders=[{**position, "steps": steps}])
    rows, columns = frames[-1].matrix.shape
    ticks: dict[str, Any] = {"dtick": 1} if max(rows, columns) <= 12 else {}
    whole: dict[str, Any] = {"range": [first_number - 0.5, first_number + rows - 0.5]}
    figure.update_xaxes(title_text=x_title, showgrid=False, **ticks)
    figure.update_yaxes(title_text=y_title, showgrid=False, **ticks, **whole)
    return styled(
        figure, title=title, seen=seen, computed=computed, misleads=misleads, height=height
    )
