"""Images that show what a unit of a vision network answers to: edges, colours, curves, textures.

Letters: n directions, θ orientations, h hues, r radii, S pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

_WAVES = 12  # plane waves of a texture
_DRAWS = 3  # textures for every boundary
_HIGH = 0.4  # cycles per pixel of the high frequency of a boundary
_RMS = 0.5  # of textures, and of the edges that are compared with them
_WIDTH = 2.0  # pixels across a curve
_HUES = 12


@dataclass(frozen=True, eq=False)
class VisionStimuli:
    """Families of images; the last three axes of each are channel, height and width.

    Values are deviations from a grey background, in units of a contrast: 1 is the lightest grey, −1
    the darkest. Axes of directions go once around, those of orientations halfway. Images of one
    direction are those of another turned, so a turned network answers alike.
    """

    uniform: Float[Tensor, "2 3 S S"]
    """White, black."""
    gratings: Float[Tensor, "θ _k 3 S S"]
    """Sine gratings of several frequencies and four phases."""
    edges: Float[Tensor, "n _k 3 S S"]
    """Light on one side, dark on the other."""
    hues: Float[Tensor, "h _k 3 S S"]
    """Uniform fields, edges and gratings between a hue and its opponent, as light as the
    background and of the contrast of `greys`."""
    greys: Float[Tensor, "2 _k 3 S S"]
    """The same patterns between white and black, and between black and white."""
    arcs: Float[Tensor, "r n _k 3 S S"]
    """Arcs of several radii, light or dark, two pixels wide; the direction is that of the centre of
    the circle."""
    lines: Float[Tensor, "θ _k 3 S S"]
    """Straight pieces as long, wide, light or dark."""
    boundaries: Float[Tensor, "n _ratio _k 3 S S"]
    """A texture of a high frequency on one side and of one a ratio lower on the other, several
    draws."""
    textures: Float[Tensor, "2 _m _k 3 S S"]
    """The high frequency everywhere, the lowest everywhere; m of the directions."""
    faint_edges: Float[Tensor, "n 3 S S"]
    """Edges of the root mean square contrast of textures."""
    ratios: tuple[int, ...]
    """Of the frequencies of boundaries."""

    def families(self) -> dict[str, Tensor]:
        """All families by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def __len__(self) -> int:
        """Number of images."""
        return sum(math.prod(x.shape[:-3]) for x in self.families().values())


def vision_stimuli(size: int, *, n_directions: int = 24, seed: int = 0) -> VisionStimuli:
    """Images for `vision_scores`.

    Frequencies of gratings are 1/4, 1/8, ... cycles per pixel as long as an image holds two
    periods; radii of arcs an eighth, a quarter and half of the image. Boundaries have .4 cycles per
    pixel on one side and 1/2, 1/4 and 1/8 of it on the other as long as an image holds a period.

    Args:
        size: Height and width S, in pixels.
        n_directions: Directions n, a multiple of 4.
        seed: Of the textures.

    Returns:
        The images, float32.

    Raises:
        ValueError: The size is below 10 pixels, or the number of directions no multiple of 4.

    Example:
        >>> stimuli = vision_stimuli(16, n_directions=8)
        >>> stimuli.edges.shape, len(stimuli)
        (torch.Size([8, 2, 3, 16, 16]), 536)

    References:
        Cammarata et al. (2020), "Curve detectors", Distill, doi:10.23915/distill.00024.003 (curves
        by orientation and radius, lines as a control). Schubert et al. (2021), "High-low frequency
        detectors", Distill, doi:10.23915/distill.00024.005 (direction and ratio of frequencies).
    """
    if size < 10 or n_directions < 4 or n_directions % 4:
        raise ValueError(
            "stimuli need at least 10 pixels and a number of directions that is a multiple of 4, "
            f"but size is {size} and n_directions {n_directions}."
        )
    plane = _Plane(size, n_directions)
    frequencies = [f for f in (1 / 4, 1 / 8, 1 / 16, 1 / 32) if f * size >= 2]
    phases = [k * math.pi / 2 for k in range(4)]
    grating = [lambda u, v, f=f, p=p: _wave(u, f, p) for f in frequencies for p in phases]
    edge = [lambda u, v, o=o: (2 * (u - o)).clamp(-1, 1) for o in (-0.5, 0.5, 0.0)]
    white = torch.ones(1, size, size, dtype=torch.float64)
    quarter = [plane.turned(i * (n_directions // 4)) for i in range(4)]
    patterns = torch.cat(
        [
            white,
            torch.stack([edge[-1](u, v) for u, v in quarter]),
            torch.stack([g(u, v) for u, v in quarter[:2] for g in grating]),
        ]
    )
    radii = [size / 8, size / 4, size / 2]
    shifts = (0.0, 1.0)
    arcs = [
        [
            lambda u, v, r=r, o=o, s=s: s * _arc(u - o, v, r, size / 4)
            for o in shifts
            for s in (1, -1)
        ]
        for r in radii
    ]
    line = [lambda u, v, o=o, s=s: s * _bar(u - o, v, size / 4) for o in shifts for s in (1, -1)]
    ratios = tuple(k for k in (2, 4, 8) if _HIGH / k * size >= 1)
    textures = _Textures(seed)
    half = range(n_directions // 2)
    everywhere = range(n_directions)
    grey = torch.ones(3, dtype=torch.float64)
    return VisionStimuli(
        uniform=_coloured(torch.cat([white, -white]), grey),
        gratings=_coloured(plane.images(grating, half), grey),
        edges=_coloured(plane.images(edge[:2], everywhere), grey),
        hues=torch.stack([_coloured(patterns, hue) for hue in _hues()]),
        greys=_coloured(torch.stack([patterns, -patterns]), grey),
        arcs=_coloured(torch.stack([plane.images(a, everywhere) for a in arcs]), grey),
        lines=_coloured(plane.images(line, half), grey),
        boundaries=_coloured(
            torch.stack(
                [
                    plane.images(
                        [
                            lambda u, v, k=k, d=d: textures.boundary(u, v, _HIGH / k, d)
                            for d in range(_DRAWS)
                        ],
                        everywhere,
                    )
                    for k in ratios
                ],
                1,
            ),
            grey,
        ),
        textures=_coloured(
            torch.stack(
                [
                    plane.images(
                        [
                            lambda u, v, f=f, d=d: textures.everywhere(u, v, f, d)
                            for d in range(_DRAWS)
                        ],
                        range(0, n_directions, n_directions // 4),
                    )
                    for f in (_HIGH, _HIGH / ratios[-1])
                ]
            ),
            grey,
        ),
        faint_edges=_coloured(_RMS * plane.images(edge[-1:], everywhere)[:, 0], grey),
        ratios=ratios,
    )


class _Plane:
    """Coordinates of pixels from the middle of the image, along and across a direction."""

    def __init__(self, size: int, n_directions: int) -> None:
        t = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
        self._y, self._x = torch.meshgrid(-t, t, indexing="ij")
        self._n = n_directions

    def turned(self, direction: int) -> tuple[Tensor, Tensor]:
        angle = 2 * math.pi * direction / self._n
        c, s = math.cos(angle), math.sin(angle)
        return c * self._x + s * self._y, c * self._y - s * self._x

    def images(
        self, draw: Sequence[Callable[[Tensor, Tensor], Tensor]], directions: Iterable[int]
    ) -> Float[Tensor, "n k S S"]:
        return torch.stack([torch.stack([f(*self.turned(i)) for f in draw]) for i in directions])


class _Textures:
    """Sums of plane waves of one frequency in random directions, of a given contrast."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        shape = (2, _DRAWS, _WAVES)
        self._angles = 2 * math.pi * torch.rand(shape, generator=generator, dtype=torch.float64)
        self._phases = 2 * math.pi * torch.rand(shape, generator=generator, dtype=torch.float64)

    def _drawn(self, u: Tensor, v: Tensor, frequency: float, draw: int, which: int) -> Tensor:
        angles, phases = self._angles[which, draw], self._phases[which, draw]
        along = u[..., None] * angles.cos() + v[..., None] * angles.sin()
        return _wave(along, frequency, phases).sum(-1)

    def everywhere(self, u: Tensor, v: Tensor, frequency: float, draw: int) -> Tensor:
        return _level(self._drawn(u, v, frequency, draw, 0), torch.ones_like(u))

    def boundary(self, u: Tensor, v: Tensor, low: float, draw: int) -> Tensor:
        side = (u + 0.5).clamp(0, 1)  # anti-aliased
        high = _level(self._drawn(u, v, _HIGH, draw, 0), side)
        return high * side + _level(self._drawn(u, v, low, draw, 1), 1 - side) * (1 - side)


def _level(x: Tensor, weights: Tensor) -> Tensor:
    """Mean 0 and the contrast of textures where the weights are."""
    x = x - (x * weights).sum() / weights.sum()
    return x * _RMS / ((x**2 * weights).sum() / weights.sum()).sqrt()


def _wave(u: Tensor, frequency: float, phase: float | Tensor) -> Tensor:
    return (2 * math.pi * frequency * u + phase).sin()


def _arc(u: Tensor, v: Tensor, radius: float, half_length: float) -> Tensor:
    """A piece of a circle around (radius, 0) that runs through the origin, at most half of it."""
    distance = ((u - radius) ** 2 + v**2).sqrt()
    half_angle = min(half_length / radius, math.pi / 2)
    beyond = (torch.atan2(v, radius - u).abs() - half_angle) * distance
    return _stroke(distance - radius, beyond)


def _bar(u: Tensor, v: Tensor, half_length: float) -> Tensor:
    return _stroke(u, v.abs() - half_length)


def _stroke(across: Tensor, beyond: Tensor) -> Tensor:
    """1 on the stroke, 0 off it, a pixel between."""
    return (_WIDTH / 2 + 0.5 - across.abs()).clamp(0, 1) * (0.5 - beyond).clamp(0, 1)


def _hues() -> Tensor:
    """Directions of colour at right angles to grey and as long as it."""
    angles = 2 * math.pi * torch.arange(_HUES, dtype=torch.float64) / _HUES
    shifts = 2 * math.pi * torch.arange(3, dtype=torch.float64) / 3
    return math.sqrt(2) * (angles[:, None] - shifts).cos()


def _coloured(patterns: Tensor, colour: Tensor) -> Tensor:
    return (patterns[..., None, :, :] * colour[:, None, None]).float()
