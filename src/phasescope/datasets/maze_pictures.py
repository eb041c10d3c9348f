"""Pictures of mazes as arrays of pixels.

Axes: row and column of pixels, colour.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from phasescope.datasets.mazes import MazeLevels

# Of the colours that colour-blind readers can tell apart.
WALL, FLOOR, CORNER = (31, 41, 51), (255, 255, 255), (205, 232, 222)
AGENT, CHEESE, STAR = (0, 114, 178), (230, 159, 0), (170, 68, 153)


def maze_picture(
    levels: MazeLevels,
    level: int,
    *,
    agent: int | None = None,
    cheese: int | None = None,
    star: int | None = None,
    pixels: int = 16,
) -> UInt8[np.ndarray, "height width 3"]:
    """A maze with its border, as a picture.

    The agent is a blue disc, the cheese an orange wedge, the star a purple diamond; the corner is
    green. Goals that are hidden are drawn as outlines.

    Args:
        levels: Levels.
        level: Number of the one to draw.
        agent: Place of the agent, if not where it starts.
        cheese: Place of the cheese, if not where it was; -1 if it is gone.
        star: The same for the star.
        pixels: Side of a place.

    Returns:
        Colours from 0 to 255; n + 2 places wide and high.

    Raises:
        ValueError: There are fewer than four pixels for a place, or no such level.

    Example:
        >>> from phasescope.datasets.mazes import draw_mazes
        >>> maze_picture(draw_mazes(1, size=5, seed=0), 0, pixels=8).shape
        (56, 56, 3)
    """
    if pixels < 4 or not 0 <= level < len(levels):
        raise ValueError(
            f"a picture needs at least 4 pixels for a place and a level from 0 to "
            f"{len(levels) - 1}, but pixels={pixels} and level={level} arrived."
        )
    n = levels.size
    cells = np.full((n + 2, n + 2, 3), WALL, dtype=np.uint8)
    cells[1:-1, 1:-1][~levels.walls[level]] = FLOOR
    cells[1, n] = CORNER
    picture = cells.repeat(pixels, axis=0).repeat(pixels, axis=1)
    y, x = (np.mgrid[:pixels, :pixels] + 0.5) / pixels - 0.5
    disc = x**2 + y**2 <= 0.34**2
    wedge = (np.abs(y) <= 0.5 * (x + 0.36)) & (x <= 0.36)
    diamond = np.abs(x) + np.abs(y) <= 0.42
    hidden = bool(levels.hidden[level])
    for shape, color, moved, start in (
        (wedge, CHEESE, cheese, levels.cheese[level]),
        (diamond, STAR, star, levels.star[level]),
        (disc, AGENT, agent, levels.agent[level]),
    ):
        place = int(start) if moved is None else moved
        if place < 0:
            continue
        inner = np.pad(shape, 1)
        inner = inner[2:, 1:-1] & inner[:-2, 1:-1] & inner[1:-1, 2:] & inner[1:-1, :-2]
        drawn = shape & ~inner if hidden and color != AGENT else shape
        row, column = (place // n + 1) * pixels, (place % n + 1) * pixels
        picture[row : row + pixels, column : column + pixels][drawn] = color
    return picture
