"""A network over training as a picture file that moves: GIF or animated PNG, drawn with Pillow."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from phasescope.figures.network import TITLES, NetworkFrame, heat_levels
from phasescope.figures.points import drawn_rows
from phasescope.figures.theme import BLUE, COLOURS, GREEN, GRID, INK, MUTED, ORANGE

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

_WIDTH, _LEFT, _GAP = 760, 64, 56  # pixels
_TOP, _CURVE, _PANEL, _TITLE = 40, 150, 150, 22
_FORMATS = {".gif": "GIF", ".png": "PNG", ".apng": "PNG"}
_POINTS = 3000  # of a loss curve
Box = tuple[int, int, int, int]


def network_movie(
    frames: Sequence[NetworkFrame],
    path: str | os.PathLike[str],
    *,
    steps: Int[np.ndarray, " t"] | None = None,
    losses: Mapping[str, Float[np.ndarray, " t"]] | None = None,
    milliseconds: int = 250,
) -> Path:
    """The views of `network_over_training` as a moving picture, for slides and messages.

    Needs Pillow (``pip install pillow``). A GIF has 256 colours, an animated PNG all; either plays
    wherever pictures are shown. For axes with numbers, and a slider, see `network_animation`.

    Args:
        frames: Steps in order, with equally many frequencies, ranks and places.
        path: The file; its name ends in ``.gif``, ``.png`` or ``.apng``.
        steps: Steps of the losses.
        losses: By name, in nats; drawn on top on logarithmic axes.
        milliseconds: Time that each step is shown; the last one stays four times as long.

    Returns:
        The path.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: There are no frames, losses without steps, or another kind of file is asked for.

    Example:
        >>> import tempfile
        >>> one, square = np.ones(2), np.eye(5)
        >>> frame = NetworkFrame(0, one / 2, one / 2, one, one, square, square)
        >>> file = Path(tempfile.mkdtemp()) / "training.gif"
        >>> network_movie([frame, frame], file).stat().st_size > 500
        True
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(
            f"a moving picture is a .gif, .png or .apng file, but {path.name!r} is asked for. Use "
            "network_animation(...).write_html(...) for a page."
        )
    if not frames or (losses and steps is None):
        raise ValueError(
            f"network_movie needs at least one frame, and steps for its losses, but got "
            f"{len(frames)} frames and steps={steps}."
        )
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "network_movie draws with Pillow, which is not installed: pip install pillow. "
            "network_animation needs nothing."
        ) from error
    curves = _thinned(steps, losses) if losses and steps is not None else {}
    tops = [
        max(float(power.max()) for power in powers)
        for powers in (
            [frame.embedding_power for frame in frames],
            [frame.readout_power for frame in frames],
        )
    ]
    pictures = [_picture(frame, curves, tops) for frame in frames]
    times = [milliseconds] * (len(pictures) - 1) + [4 * milliseconds]
    kind = _FORMATS[path.suffix.lower()]
    if kind == "GIF":  # one palette for all, so that no colour flickers
        palette = pictures[-1].quantize(255)
        pictures = [
            picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures
        ]
    pictures[0].save(path, kind, save_all=True, append_images=pictures[1:], duration=times, loop=0)
    return path


def _thinned(
    steps: Int[np.ndarray, " t"], losses: Mapping[str, Float[np.ndarray, " t"]]
) -> dict[str, np.ndarray]:
    """Logarithms of steps and losses, in two rows for each curve."""
    found = {}
    for name, y in losses.items():
        good = np.isfinite(y) & (y > 0) & (steps > 0)
        rows = drawn_rows(y[good], _POINTS)
        found[name] = np.log10(np.stack([steps[good][rows], y[good][rows]]))
    return found


def _picture(frame: NetworkFrame, curves: Mapping[str, np.ndarray], tops: Sequence[float]) -> Any:
    from PIL import Image, ImageDraw

    first = _TOP + (_CURVE + _GAP if curves else 0)
    side = (_WIDTH - 2 * _LEFT - _GAP) // 2
    height = first + 2 * (_PANEL + _GAP) + side + 30
    picture = Image.new("RGB", (_WIDTH, height), "#FFFFFF")
    draw = ImageDraw.Draw(picture)
    draw.text((_LEFT, 8), f"step {frame.step:,}", fill=INK, font_size=18)
    if curves:
        _draw_curves(draw, (_LEFT, _TOP, _WIDTH - _LEFT, _TOP + _CURVE), curves, frame.step)
    boxes = []
    for i, title in enumerate(TITLES):
        x = _LEFT + (i % 2) * (side + _GAP)
        y = first + (i // 2) * (_PANEL + _GAP)
        box = (x, y, x + side, y + (side if i >= 4 else _PANEL))
        draw.text((x, y - _TITLE), title, fill=MUTED, font_size=13)
        boxes.append(box)
    _draw_bars(draw, boxes[0], frame.embedding_power / tops[0], BLUE)
    _draw_bars(draw, boxes[1], frame.readout_power / tops[1], GREEN)
    _draw_dots(draw, boxes[2], frame.singular_values, ORANGE)
    counts, _ = np.histogram(frame.purity, bins=20, range=(0, 1))
    _draw_bars(draw, boxes[3], counts / max(1, len(frame.purity)), MUTED)
    colours = np.asarray(_viridis(), dtype=np.uint8)
    for box, values in ((boxes[4], frame.neuron), (boxes[5], frame.attention)):
        heat = Image.fromarray(colours[heat_levels(values)[::-1]])
        picture.paste(heat.resize((side, side), Image.Resampling.NEAREST), box[:2])
    return picture


def _frame_of(draw: ImageDraw, box: Box) -> None:
    x0, y0, x1, y1 = box
    for share in (0.25, 0.5, 0.75, 1.0):
        y = y1 - share * (y1 - y0)
        draw.line((x0, y, x1, y), fill=GRID)
    draw.line((x0, y0, x0, y1, x1, y1), fill=MUTED)


def _draw_bars(draw: ImageDraw, box: Box, shares: Float[np.ndarray, " k"], colour: str) -> None:
    """Bars of these shares of the box's height."""
    _frame_of(draw, box)
    x0, y0, x1, y1 = box
    width = (x1 - x0) / len(shares)
    for i, share in enumerate(shares.tolist()):
        if share > 0:
            left, right = x0 + (i + 0.1) * width, x0 + (i + 0.9) * width
            draw.rectangle((left, y1 - min(share, 1.0) * (y1 - y0), right, y1), fill=colour)


def _draw_dots(draw: ImageDraw, box: Box, shares: Float[np.ndarray, " k"], colour: str) -> None:
    _frame_of(draw, box)
    x0, y0, x1, y1 = box
    for i, share in enumerate(shares.tolist()):
        x = x0 + (i + 0.5) * (x1 - x0) / len(shares)
        y = y1 - share * (y1 - y0)
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)


def _draw_curves(draw: ImageDraw, box: Box, curves: Mapping[str, np.ndarray], step: int) -> None:
    x0, y0, x1, y1 = box
    everything = np.concatenate(list(curves.values()), axis=1)
    low, span = everything.min(1), np.maximum(np.ptp(everything, axis=1), 1e-9)
    for power in range(int(np.ceil(low[1])), int(low[1] + span[1]) + 1):
        y = y1 - (power - low[1]) / span[1] * (y1 - y0)
        draw.line((x0, y, x1, y), fill=GRID)
        draw.text((x0 - 40, y - 7), f"1e{power}", fill=MUTED, font_size=11)
    for power in range(int(np.ceil(low[0])), int(low[0] + span[0]) + 1):
        x = x0 + (power - low[0]) / span[0] * (x1 - x0)
        draw.text((x - 6, y1 + 4), f"1e{power}", fill=MUTED, font_size=11)
    draw.line((x0, y0, x0, y1, x1, y1), fill=MUTED)
    for i, (name, curve) in enumerate(curves.items()):
        at = (curve - low[:, None]) / span[:, None]
        x, y = x0 + at[0] * (x1 - x0), y1 - at[1] * (y1 - y0)
        for px, py in zip(x.tolist(), y.tolist(), strict=True):
            draw.rectangle((px - 1, py - 1, px, py), fill=COLOURS[i])
        draw.text((x1 + 8, y0 + 16 * i), name, fill=COLOURS[i], font_size=13)
    x = x0 + (np.log10(max(step, 1)) - low[0]) / span[0] * (x1 - x0)
    draw.line((x, y0, x, y1), fill=INK, width=2)
    draw.text(((x0 + x1) / 2 - 60, y1 + 16), "loss (nats) against step", fill=MUTED, font_size=11)


def _viridis() -> list[tuple[int, int, int]]:
    """The 256 colours of the heat maps."""
    from plotly.colors import sample_colorscale, unlabel_rgb

    sampled = sample_colorscale("Viridis", np.linspace(0, 1, 256).tolist())
    return [tuple(round(c) for c in unlabel_rgb(colour)) for colour in sampled]  # type: ignore[misc]
