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
    x_names: Sequence[str] | None = None,
    y_names: Sequence[str] | None = None,
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
        x_names: Names of the columns; numbers from 1 by default.
        y_names: Names of the rows; the same.
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
                x=np.arange(1, frame.matrix.shape[1] + 1),
                y=np.arange(1, frame.matrix.shape[0] + 1),
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
    figure.update_xaxes(title_text=x_title, showgrid=False, **_ticks(columns, x_names))
    figure.update_yaxes(title_text=y_title, showgrid=False, **_ticks(rows, y_names))
    figure.update_yaxes(range=[0.5, rows + 0.5])
    return styled(
        figure, title=title, seen=seen, computed=computed, misleads=misleads, height=height
    )


def _ticks(n: int, names: Sequence[str] | None) -> dict[str, Any]:
    """Every row or column where there are few, or their names."""
    if names is not None:
        return {"tickvals": list(range(1, n + 1)), "ticktext": [plain(name) for name in names]}
    return {"dtick": 1} if n <= 12 else {}
