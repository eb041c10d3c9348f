"""Masks of weights: by magnitude, at random, and regrown; with exact counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Masks = dict[str, Bool[Tensor, "..."]]
Scope = Literal["global", "tensor"]
Spread = Literal["uniform", "erk"]


def density(masks: Mapping[str, Bool[Tensor, "..."]]) -> float:
    """Share of weights that masks keep.

    Example:
        >>> density({"w": torch.tensor([True, False]), "v": torch.tensor([True, True])})
        0.75
    """
    return sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())


def pruned_masks(
    weights: Mapping[str, Float[Tensor, "..."]],
    masks: Mapping[str, Bool[Tensor, "..."]],
    fraction: float,
    *,
    scope: Scope = "global",
    scores: Mapping[str, Float[Tensor, "..."]] | None = None,
) -> Masks:
    r"""Masks without the smallest of the weights that are left.

    Of n weights left, ``ceil(fraction · n)`` are taken away, exactly: of equal weights the later
    ones (in the order of names and of memory) go first. What was masked stays so.

    Args:
        weights: Trained weights; those outside the masks do not count.
        masks: What is left.
        fraction: Share of what is left that goes.
        scope: Whether magnitudes are compared across all tensors or within each.
        scores: Instead of magnitudes, what is kept where it is large.

    Returns:
        New masks.

    Raises:
        ValueError: The fraction is not between 0 and 1, the scope is another word, shapes do not
            fit, or what is left has entries that are no numbers.

    Example:
        >>> weights = {"w": torch.tensor([0.5, -3.0, 2.0, -0.1])}
        >>> pruned_masks(weights, {"w": torch.ones(4, dtype=torch.bool)}, 0.5)["w"]
        tensor([False,  True,  True, False])

    References:
        Han et al. (2015), arXiv:1506.02626. Frankle & Carbin (2019), arXiv:1803.03635.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must lie between 0 and 1, but it is {fraction}.")
    if scope not in ("global", "tensor"):
        raise ValueError(f"scope must be 'global' or 'tensor', but {scope!r} arrived.")
    check_masks(weights, masks)
    if scores is None:
        flat = {n: weights[n].detach().abs().flatten() for n in masks}
    else:
        check_masks(scores, masks)
        flat = {n: scores[n].detach().flatten() for n in masks}
    for name, mask in masks.items():
        n_unknown = int(flat[name][mask.flatten()].isnan().sum())
        if n_unknown:
            raise ValueError(
                f"numbers are required to compare, but {n_unknown} of {int(mask.sum())} entries of "
                f"{name!r} are NaN. Did the training diverge?"
            )
    if scope == "tensor":
        return {n: _without(flat[n], masks[n], fraction) for n in masks}
    together = _without(
        torch.cat(list(flat.values())),
        torch.cat([m.flatten() for m in masks.values()]),
        fraction,
    )
    parts = together.split([m.numel() for m in masks.values()])
    return {n: p.view(m.shape) for (n, m), p in zip(masks.items(), parts, strict=True)}


def random_masks(
    shapes: Mapping[str, tuple[int, ...]],
    kept: float,
    generator: torch.Generator,
    *,
    spread: Spread = "uniform",
) -> Masks:
    r"""Masks that keep random weights, an exact number of each tensor.

    ``"uniform"`` keeps the same share of every tensor; ``"erk"`` (Erdős–Rényi kernel) shares
    proportional to $\sum_i n_i / \prod_i n_i$ of its shape, so that small layers stay denser; what
    would exceed 1 is kept whole, and the rest shares what is left.

    Args:
        shapes: Of every tensor.
        kept: Share of all weights that is kept.
        generator: Source of the choice, on the CPU.
        spread: How the weights are spread over tensors.

    Returns:
        The masks, on the CPU.

    Raises:
        ValueError: The share is not between 0 and 1.

    Example:
        >>> masks = random_masks({"w": (4, 5)}, 0.25, torch.Generator().manual_seed(0))
        >>> int(masks["w"].sum())
        5

    References:
        Mocanu et al. (2018), arXiv:1707.04780. Evci et al. (2020), "Rigging the lottery",
        arXiv:1911.11134, section 3.
    """
    if not 0 <= kept <= 1:
        raise ValueError(f"kept must lie between 0 and 1, but it is {kept}.")
    shares = dict.fromkeys(shapes, kept) if spread == "uniform" else _erk(shapes, kept)
    masks = {}
    for name, shape in shapes.items():
        size = math.prod(shape)
        mask = torch.zeros(size, dtype=torch.bool)
        mask[torch.randperm(size, generator=generator)[: round(shares[name] * size)]] = True
        masks[name] = mask.view(shape)
    return masks


def shuffled_masks(masks: Mapping[str, Bool[Tensor, "..."]], generator: torch.Generator) -> Masks:
    """Masks that keep as many weights of every tensor, at random places: a ticket's control.

    Args:
        masks: Whose counts are kept.
        generator: Source of the places, on the CPU.

    Returns:
        New masks.

    Example:
        >>> masks = {"w": torch.tensor([True, True, False, False, False])}
        >>> int(shuffled_masks(masks, torch.Generator().manual_seed(0))["w"].sum())
        2
    """
    return {
        n: m.flatten()[torch.randperm(m.numel(), generator=generator).to(m.device)].view(m.shape)
        for n, m in masks.items()
    }


def regrown_mask(
    weight: Float[Tensor, "*shape"],
    mask: Bool[Tensor, "*shape"],
    scores: Float[Tensor, "*shape"],
    n: int,
) -> Bool[Tensor, "*shape"]:
    """A mask whose n smallest weights are dropped and n others grown where scores are largest.

    What was just dropped may grow again, and then begins at zero like all that grows: set the
    weights where the mask of what was *kept* is false to zero, which is the first thing returned by
    `drop_and_grow`. As many weights are kept as before.

    Args:
        weight: The weights.
        mask: What is kept.
        scores: Of what may grow: magnitudes of the dense gradient (RigL) or random numbers (SET).
        n: How many.

    Returns:
        The new mask.

    Raises:
        ValueError: n is more than the mask keeps.

    Example:
        >>> weight = torch.tensor([3.0, 0.1, 0.0, 0.0])
        >>> mask = torch.tensor([True, True, False, False])
        >>> regrown_mask(weight, mask, torch.tensor([0.0, 0.0, 1.0, 2.0]), 1)
        tensor([ True, False, False,  True])
    """
    return drop_and_grow(weight, mask, scores, n)[1]


def drop_and_grow(
    weight: Tensor, mask: Tensor, scores: Tensor, n: int
) -> tuple[Bool[Tensor, "..."], Bool[Tensor, "..."]]:
    """What is kept of a mask, and the mask with what has grown."""
    left = int(mask.sum())
    if not 0 <= n <= left:
        raise ValueError(f"n must lie between 0 and the {left} weights that are kept, but is {n}.")
    kept = _largest(weight.detach().abs().flatten(), mask.flatten(), left - n)
    grown = _largest(scores.detach().flatten(), ~kept, n)
    return kept.view(mask.shape), (kept | grown).view(mask.shape)


def _without(scores: Tensor, mask: Tensor, fraction: float) -> Tensor:
    left = int(mask.sum())
    # 0.2 * 10 is 2, not the next float above it.
    goes = math.ceil(fraction * left - 1e-9 * left)
    return _largest(scores.flatten(), mask.flatten(), left - goes).view(mask.shape)


def _largest(scores: Tensor, among: Tensor, n: int) -> Tensor:
    """Exactly n places of largest scores; of equal ones the first."""
    places = among.nonzero().flatten()
    order = scores[places].argsort(descending=True, stable=True)[:n]
    result = torch.zeros_like(among)
    result[places[order]] = True
    return result


def _erk(shapes: Mapping[str, tuple[int, ...]], kept: float) -> dict[str, float]:
    sizes = {n: math.prod(s) for n, s in shapes.items()}
    raw = {n: sum(s) / sizes[n] for n, s in shapes.items()}
    dense: set[str] = set()
    while True:
        rest = [n for n in shapes if n not in dense]
        budget = kept * sum(sizes.values()) - sum(sizes[n] for n in dense)
        if not rest:
            return dict.fromkeys(shapes, 1.0)
        scale = budget / sum(raw[n] * sizes[n] for n in rest)
        over = {n for n in rest if scale * raw[n] > 1}
        if not over:
            return {n: 1.0 if n in dense else max(scale * raw[n], 0.0) for n in shapes}
        dense |= over


def check_masks(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    """Raise unless every mask is one of Booleans, and of the shape of its weight."""
    for name, mask in masks.items():
        if mask.dtype != torch.bool:
            raise ValueError(
                f"masks must be of torch.bool, but {name!r} is of {mask.dtype}. Pass mask != 0."
            )
        shape = tuple(weights[name].shape) if name in weights else None
        if shape != tuple(mask.shape):
            raise ValueError(
                f"a weight of shape {tuple(mask.shape)} is required for the mask {name!r}, but it "
                f"has shape {shape} (None: there is none)."
            )
