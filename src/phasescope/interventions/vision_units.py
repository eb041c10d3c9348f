"""What units of a vision network answer to, beside units of random networks.

Letters: u units, k images.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from phasescope.analysis.vision_scores import (
    NaturalActivations,
    VisionNull,
    VisionScores,
    score_vision_responses,
)
from phasescope.datasets import VisionStimuli, vision_stimuli
from phasescope.interventions.sites import Edit, forward_with
from phasescope.models.evaluation import evaluating

_BATCH = 256


def vision_scores(
    model: nn.Module,
    sites: Sequence[str] | None = None,
    *,
    stimuli: VisionStimuli | int = 32,
    background: float | Float[Tensor, " 3"] = 0.0,
    contrast: float | Float[Tensor, " 3"] = 1.0,
    images: Float[Tensor, "n 3 height width"] | None = None,
) -> dict[str, VisionScores]:
    """Edge, colour, curve and high-low frequency scores of the channels of a network's layers.

    The response of a channel to an image is what the image adds to its activation on a grey one,
    the largest over positions and not below 0; positions within a quarter of the map from its
    border do not count, since padding is an edge too. So scores do not change if a channel is
    multiplied by a positive number or something is added to it. `VisionScores` says how they
    are formed. The model runs in evaluation mode: batch norms take the statistics that they
    have.

    Args:
        model: Any module that takes images [n, 3, height, width]; its mode is restored.
        sites: Names of submodules with outputs [n, channels, height, width]; by default all
            ``nn.Conv2d``. Negative activations count as less than grey, whatever comes behind.
        stimuli: The images, or how many pixels high and wide they are.
        background: Grey in the inputs of the model, one number or one for each colour; 0 is the
            mean of inputs that were standardised, .5 that of inputs between 0 and 1.
        contrast: From grey to white in the inputs; 1 is a standard deviation of standardised
            inputs, .5 the whole range of inputs between 0 and 1.
        images: Inputs from which the mean and deviation of each channel are taken, so that weak
            responses give no score. Recommended for deep layers, where some channels prefer grey
            to anything and are selective in the little that is left.

    Returns:
        Scores for each site.

    Raises:
        KeyError: There is no such site.
        ValueError: The model has no convolution, or the output at a site has not four axes.

    Example:
        >>> red_green = nn.Conv2d(3, 1, 1, bias=False)
        >>> _ = red_green.weight.data.copy_(torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1))
        >>> scores = vision_scores(nn.Sequential(red_green), stimuli=16)["0"]
        >>> round(scores.colour.item(), 3), round(scores.curve.item(), 3)
        (1.0, 0.0)
    """
    if sites is None:
        sites = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
        if not sites:
            raise ValueError(
                "the model has no nn.Conv2d. Name the submodules whose output is [n, channels, "
                "height, width] as sites."
            )
    if isinstance(stimuli, int):
        stimuli = vision_stimuli(stimuli)
    reference = next(model.parameters(), torch.zeros(()))
    shift, scale = (
        torch.as_tensor(x, dtype=reference.dtype, device=reference.device).reshape(-1, 1, 1)
        for x in (background, contrast)
    )
    with evaluating(model):
        grey = stimuli.uniform.new_zeros(1, *stimuli.uniform.shape[1:])
        base = _maps(model, sites, shift + scale * grey.to(scale))
        largest = {
            family: _largest(model, sites, base, x, shift, scale)
            for family, x in stimuli.families().items()
        }
        natural = {} if images is None else _natural(model, sites, images, base)
    return {
        site: score_vision_responses(
            {family: found[site].clamp(min=0) for family, found in largest.items()},
            natural.get(site),
        )
        for site in sites
    }


def vision_null(
    networks: Iterable[nn.Module],
    sites: Sequence[str] | None = None,
    *,
    stimuli: VisionStimuli | int = 32,
    background: float | Float[Tensor, " 3"] = 0.0,
    contrast: float | Float[Tensor, " 3"] = 1.0,
    images: Float[Tensor, "n 3 height width"] | None = None,
) -> dict[str, VisionNull]:
    """Scores of networks in which nothing was learned; see `vision_scores` for the arguments.

    Args:
        networks: Fresh initialisations of the architecture, or `shuffled_weights` of a trained
            network, which keep how large its weights are. Twenty are enough for a level of 95%.
            Batch norms should know their inputs (`reestimate_batch_norm`) as those of the
            trained network do.
        sites: As for the trained network.
        stimuli: Likewise.
        background: Likewise.
        contrast: Likewise.
        images: Likewise.

    Returns:
        A null for each site.

    Raises:
        ValueError: There is no network.

    Example:
        >>> networks = (nn.Sequential(nn.Conv2d(3, 4, 3)) for _ in range(3))
        >>> null = vision_null(networks, stimuli=12)["0"]
        >>> null.scores["edge"].shape
        torch.Size([3, 4])
    """
    if isinstance(stimuli, int):
        stimuli = vision_stimuli(stimuli)
    found = [
        vision_scores(
            model,
            sites,
            stimuli=stimuli,
            background=background,
            contrast=contrast,
            images=images,
        )
        for model in networks
    ]
    if not found:
        raise ValueError("a null needs at least one network, but none arrived.")
    return {site: VisionNull.of([scores[site] for scores in found]) for site in found[0]}


def shuffled_weights(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """A copy of a network with the weights of each convolution in random order.

    Args:
        model: A network; it is not changed.
        seed: Of the orders.

    Returns:
        The copy. Biases and batch norms are those of the network.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3))
        >>> a, b = (m[0].weight.flatten().sort().values for m in (model, shuffled_weights(model)))
        >>> torch.equal(a, b)
        True
    """
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for module in other.modules():
            if isinstance(module, nn.Conv2d):
                flat = module.weight.flatten()
                order = torch.randperm(len(flat), generator=generator).to(flat.device)
                module.weight.copy_(flat[order].view_as(module.weight))
    return other


def _maps(model: nn.Module, sites: Sequence[str], x: Tensor) -> dict[str, Tensor]:
    """Middle parts of the maps at all sites."""
    found: dict[str, Tensor] = {}

    def look(site: str) -> Edit:
        def edit(value: Tensor) -> None:
            if value.ndim != 4:
                raise ValueError(
                    f"the output at a site must be [n, channels, height, width], but that of "
                    f"{site!r} has the shape {tuple(value.shape)}. Leave it out."
                )
            top, left = (length // 4 for length in value.shape[2:])
            bottom, right = (length - length // 4 for length in value.shape[2:])
            found[site] = value[:, :, top:bottom, left:right].double()

        return edit

    forward_with(model, x, {site: look(site) for site in sites})
    return found


def _largest(
    model: nn.Module,
    sites: Sequence[str],
    base: Mapping[str, Tensor],
    images: Tensor,
    shift: Tensor,
    scale: Tensor,
) -> dict[str, Float[Tensor, "u *rest"]]:
    """The largest that each image of a family adds to each channel."""
    axes = images.shape[:-3]
    parts: dict[str, list[Tensor]] = {site: [] for site in sites}
    for part in images.reshape(math.prod(axes), *images.shape[-3:]).split(_BATCH):
        for site, value in _maps(model, sites, shift + scale * part.to(scale)).items():
            parts[site].append((value - base[site]).amax((2, 3)).T.cpu())
    return {site: torch.cat(found, 1).reshape(-1, *axes) for site, found in parts.items()}


def _natural(
    model: nn.Module, sites: Sequence[str], images: Tensor, base: Mapping[str, Tensor]
) -> dict[str, NaturalActivations]:
    parts: dict[str, list[Tensor]] = {site: [] for site in sites}
    for part in images.split(_BATCH):
        for site, value in _maps(model, sites, part).items():
            parts[site].append((value - base[site]).transpose(0, 1).flatten(1).cpu())
    joined = {site: torch.cat(values, 1) for site, values in parts.items()}
    return {site: NaturalActivations(x.mean(1), x.std(1)) for site, x in joined.items()}
