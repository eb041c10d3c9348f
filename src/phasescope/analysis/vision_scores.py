"""Scores of units of a vision network from their responses to families of stimuli.

Letters: u units, n directions or orientations, k variants of an image, N networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

VisionScore = Literal["edge", "colour", "curve", "high_low"]
_Z = 3.0  # deviations above the mean over images that a curve detector must reach on curves
_WEAK = 1.0  # deviations that any response must reach: selectivity of next to nothing means nothing


@dataclass(frozen=True, eq=False)
class VisionScores:
    r"""Four scores of every unit, each between 0 and 1.

    $R$ is the largest response to a family of `VisionStimuli`. Selectivity is the length of the
    first harmonic of a tuning curve over its mean, $|\sum_j R_j e^{2\pi i j/n}| / \sum_j R_j$ over
    a period: 0 if all directions are alike, 1 if there is one only. Differences are cut off at 0.
    With activations on images, a score is 0 if no response that it is made of reaches their
    standard deviation, and the curve score if none reaches their mean plus three deviations.

    A score is no proof: units of random networks have scores too, see `VisionNull`.

    References:
        Ringach, Shapley & Hawken (2002), Journal of Neuroscience 22 (13) (selectivity of
        orientation as one minus the circular variance). Rafegas & Vanrell (2018), "Color encoding
        in biologically-inspired convolutional neural networks", Vision Research 151 (selectivity of
        colour as the response that is lost in grey). Cammarata et al. (2020),
        doi:10.23915/distill.00024.003 and Schubert et al. (2021), doi:10.23915/distill.00024.005
        (stimuli and controls; these indices are phasescope's).
    """

    edge: Float64[Tensor, " u"]
    r"""Selectivity of the orientation of gratings and edges times $1 - R(\text{uniform})/R$, the
    part of the response that a uniform field does not get."""
    colour: Float64[Tensor, " u"]
    r"""$1 - R(\text{grey})/R(\text{hue})$ for the same patterns in grey and at the best hue."""
    curve: Float64[Tensor, " u"]
    r"""Selectivity of the direction of arcs at the best radius times
    $1 - R(\text{line})/R(\text{arc})$."""
    high_low: Float64[Tensor, " u"]
    r"""Selectivity of the direction of boundaries between frequencies at the best ratio from 4 up
    (mean over draws) times $(R(\text{boundary}) - R(\text{texture}))/\max$, with the largest of the
    responses to boundaries, to textures without one, and to edges of the same contrast."""

    def __getitem__(self, name: str) -> Float64[Tensor, " u"]:
        """A score by its name.

        Raises:
            KeyError: There is no such score.
        """
        if name not in get_args(VisionScore):
            raise KeyError(f"scores are {', '.join(get_args(VisionScore))}, but got {name!r}.")
        return getattr(self, name)


@dataclass(frozen=True, eq=False)
class NaturalActivations:
    """Activations of every unit on images, over images and positions, less that on grey."""

    mean: Float[Tensor, " u"]
    """Their mean."""
    deviation: Float[Tensor, " u"]
    """Their standard deviation."""


def direction_selectivity(responses: Float[Tensor, "*rest n"]) -> Float[Tensor, "*rest"]:
    r"""Length of the first harmonic of a tuning curve over its mean.

    $|\sum_j R_j e^{2\pi i j/n}| / \sum_j R_j$: 0 if all directions are alike, 1 if there is one
    only, 1/2 for $1 + \cos$. Of orientations, which go halfway around, it is the second harmonic of
    the angle, one minus the circular variance.

    Args:
        responses: Not negative, at evenly spaced directions over a whole period.

    Returns:
        Selectivity; 0 where nothing responds.

    Example:
        >>> direction_selectivity(torch.tensor([1.0, 0.0, 0.0, 0.0])).item()
        1.0

    References:
        Ringach, Shapley & Hawken (2002), "Orientation selectivity in macaque V1", Journal of
        Neuroscience 22 (13), equation for the circular variance.
    """
    n = responses.shape[-1]
    angles = 2 * torch.pi * torch.arange(n, device=responses.device) / n
    angles = angles.to(responses)
    x, y = ((responses * wave).sum(-1) for wave in (angles.cos(), angles.sin()))
    return _over((x**2 + y**2).sqrt(), responses.sum(-1))


def score_vision_responses(
    responses: Mapping[str, Float[Tensor, "u *rest"]],
    natural: NaturalActivations | None = None,
) -> VisionScores:
    """Scores from the responses to `VisionStimuli`; see `VisionScores` for what they are.

    Args:
        responses: One entry for each family of `VisionStimuli.families`, with its axes; not
            negative.
        natural: Activations on images.

    Returns:
        Scores.

    Raises:
        ValueError: Families are missing, or responses are negative or not finite.

    Example:
        >>> from phasescope.datasets import vision_stimuli
        >>> families = vision_stimuli(12, n_directions=4).families()
        >>> alike = {name: torch.ones(1, *x.shape[:-3]) for name, x in families.items()}
        >>> score_vision_responses(alike).edge
        tensor([0.], dtype=torch.float64)
    """
    _check(responses)
    R = {name: value.double() for name, value in responses.items()}
    edges = R["edges"].amax(2)
    half = edges.shape[1] // 2
    oriented = R["gratings"].amax(2).maximum(edges[:, :half]).maximum(edges[:, half:])
    edge = direction_selectivity(oriented) * _share(R["uniform"].amax(1), oriented.amax(1))
    colour = _share(R["greys"].amax((1, 2)), R["hues"].amax((1, 2)))
    arcs = R["arcs"].amax(3)
    best = arcs.amax(2).argmax(1)
    curves = arcs[torch.arange(len(arcs)), best]
    curve = direction_selectivity(curves) * _share(R["lines"].amax((1, 2)), curves.amax(1))
    high_low = _high_low(R)
    if natural is not None:
        sd = natural.deviation.double()
        edge = edge * (oriented.amax(1) > _WEAK * sd)
        colour = colour * (R["hues"].amax((1, 2)) > _WEAK * sd)
        curve = curve * (curves.amax(1) > (natural.mean.double() + _Z * sd).maximum(_WEAK * sd))
        high_low = high_low * (R["boundaries"].mean(3).amax((1, 2)) > _WEAK * sd)
    return VisionScores(edge, colour, curve, high_low)


def _high_low(R: Mapping[str, Tensor]) -> Tensor:
    boundaries = R["boundaries"].mean(3)[:, :, 1:]  # ratios from 4 up
    best = boundaries.amax(1).argmax(1)
    tuned = boundaries[torch.arange(len(boundaries)), :, best]
    plain = R["textures"].mean(3).amax((1, 2))
    most = tuned.amax(1)
    largest = most.maximum(plain).maximum(R["faint_edges"].amax(1))
    return direction_selectivity(tuned) * _over((most - plain).clamp(min=0), largest)


def _share(control: Tensor, response: Tensor) -> Tensor:
    """The part of a response that a control does not get, not below 0."""
    return _over((response - control).clamp(min=0), response)


def _over(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b > 0, a / b.where(b > 0, 1), 0)


def _check(responses: Mapping[str, Tensor]) -> None:
    needed = (
        *("uniform", "gratings", "edges", "hues", "greys", "arcs", "lines"),
        *("boundaries", "textures", "faint_edges"),
    )
    if missing := [name for name in needed if name not in responses]:
        raise ValueError(
            f"responses to every family of stimuli are required, but {', '.join(missing)} are "
            "missing. Take the families of VisionStimuli."
        )
    for name, value in responses.items():
        if not bool(((value >= 0) & value.isfinite()).all()):
            raise ValueError(
                f"responses must be finite and not negative, but those to {name!r} are not. Take "
                "what an image adds to the activation on a grey one, cut off at 0."
            )


@dataclass(frozen=True, eq=False)
class VisionNull:
    """Scores of the units of one layer in random networks."""

    scores: dict[VisionScore, Float64[Tensor, "N u"]]
    """Every score of every unit, by network."""

    @classmethod
    def of(cls, networks: Sequence[VisionScores]) -> VisionNull:
        """The scores of one layer in several networks, put together.

        Args:
            networks: Scores of the same layer in each.

        Example:
            >>> null = VisionNull.of([VisionScores(*torch.zeros(4, 3).double())] * 2)
            >>> null.scores["edge"].shape
            torch.Size([2, 3])
        """
        names = get_args(VisionScore)
        return cls({name: torch.stack([scores[name] for scores in networks]) for name in names})

    def threshold(self, name: VisionScore, level: float = 0.95, *, largest: bool = True) -> float:
        """The score that random networks rarely exceed.

        Args:
            name: Which score.
            level: Share of random networks, or of their units, that stay below.
            largest: Whether no unit of the layer may exceed it, which is the margin for testing as
                many as there are: the quantile is that of the largest score of a network. Without
                it the quantile is that of all units.

        Returns:
            The quantile.

        Example:
            >>> null = VisionNull({"edge": torch.tensor([[0.1, 0.2], [0.3, 0.4]]).double()})
            >>> round(null.threshold("edge", 0.5), 3), round(null.threshold("edge", 1.0), 3)
            (0.3, 0.4)
        """
        found = self.scores[name]
        return float((found.amax(1) if largest else found.flatten()).quantile(level))

    def exceeded(self, scores: VisionScores, level: float = 0.95) -> Bool[Tensor, "s u"]:
        """Which units exceed the threshold of which score, in the order of the null's scores.

        Args:
            scores: Of the same layer of a network.
            level: See `threshold`.
        """
        return torch.stack([scores[name] > self.threshold(name, level) for name in self.scores])
