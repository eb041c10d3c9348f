"""What gradients or updates can be put through: projections, masks, noise, and chains of them.

Each function returns a transform for `transform_gradients`, `transformed_updates` or `train`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from phasescope.components.subspace import Subspace
from phasescope.parameters import Component
from phasescope.training.transform import Transform


def keep(part: Subspace | Component) -> Transform:
    """A transform that keeps the part of the gradients in a subspace, or in a component.

    Online low-rank replay with the subspace of `leading_subspace`; training of some heads or layers
    alone with a component. Columns are those of the flat vector, in ``named_parameters()`` order.

    Args:
        part: The subspace or component.

    Returns:
        The transform. It raises ValueError where the gradients are not those of the part's model.

    Example:
        >>> first = Component("first", ((0, 1),))
        >>> keep(first)({"w": torch.tensor([3.0, 4.0])})
        {'w': tensor([3., 0.])}
    """
    project = _projection(part)

    def transform(tensors: dict[str, Tensor]) -> Mapping[str, Tensor]:
        return _unflattened(project(_flattened(tensors)), tensors)

    return transform


def remove(part: Subspace | Component) -> Transform:
    """A transform that leaves out the part in a subspace or component: the complement of `keep`.

    Args:
        part: The subspace or component.

    Returns:
        The transform. It raises ValueError where the gradients are not those of the part's model.

    Example:
        >>> diagonal = Subspace.spanned_by("diagonal", torch.tensor([[1.0, 1.0]]))
        >>> remove(diagonal)({"w": torch.tensor([3.0, 1.0])})["w"].round(decimals=4)
        tensor([ 1., -1.])
    """
    project = _projection(part)

    def transform(tensors: dict[str, Tensor]) -> Mapping[str, Tensor]:
        flat = _flattened(tensors)
        return _unflattened(flat - project(flat), tensors)

    return transform


def add_noise(std: float, *, seed: int) -> Transform:
    """A transform that adds independent normal noise to every entry.

    Args:
        std: Standard deviation, in the unit of the gradients.
        seed: Of the noise, drawn on the CPU; the global random state is not touched.

    Returns:
        The transform. Every call draws anew.

    Raises:
        ValueError: The standard deviation is negative or not finite.

    Example:
        >>> noisy = add_noise(0.1, seed=0)({"w": torch.zeros(1000)})["w"]
        >>> round(noisy.std().item(), 2)
        0.1
    """
    if not 0 <= std < float("inf"):
        raise ValueError(f"noise needs a finite standard deviation of 0 or more, but std={std}.")
    generator = torch.Generator().manual_seed(seed)

    def transform(tensors: dict[str, Tensor]) -> Mapping[str, Tensor]:
        return {
            name: value
            + std
            * torch.randn(value.shape, generator=generator, dtype=value.dtype).to(value.device)
            for name, value in tensors.items()
        }

    return transform


def chain(*transforms: Transform) -> Transform:
    """A transform that applies several, the first one first.

    Args:
        *transforms: Any number; none is the identity.

    Returns:
        The transform.

    Example:
        >>> first, second = (Component(str(i), ((i, i + 1),)) for i in range(2))
        >>> chain(remove(first), remove(second))({"w": torch.tensor([1.0, 2.0, 3.0])})
        {'w': tensor([0., 0., 3.])}
    """

    def transform(tensors: dict[str, Tensor]) -> Mapping[str, Tensor]:
        for step in transforms:
            tensors = dict(step(tensors))
        return tensors

    return transform


def _projection(part: Subspace | Component) -> Callable[[Tensor], Tensor]:
    """The projection of a flat vector on a part, whose tensors follow the vector's device."""
    if isinstance(part, Subspace):
        return _projection_on_subspace(part)
    held = torch.empty(0, dtype=torch.bool)

    def select(flat: Tensor) -> Tensor:
        nonlocal held
        if held.shape != flat.shape or held.device != flat.device:
            if not part.fits(len(flat)):
                raise ValueError(
                    f"tensors of the parameters of the component {part.name!r} are required, but "
                    f"those that arrived have {len(flat)} entries. Take the component from the "
                    "same model."
                )
            held = part.mask(len(flat)).to(flat.device)
        return torch.where(held, flat, 0.0)

    return select


def _projection_on_subspace(subspace: Subspace) -> Callable[[Tensor], Tensor]:
    basis = subspace.basis

    def project(flat: Tensor) -> Tensor:
        nonlocal basis
        if basis.shape[1] != len(flat):
            raise ValueError(
                f"tensors of the {basis.shape[1]} parameters of the subspace {subspace.name!r} are "
                f"required, but they have {len(flat)} entries. Take the subspace from a run of the "
                "same model."
            )
        if basis.device != flat.device or basis.dtype != flat.dtype:
            basis = basis.to(flat.device, flat.dtype)
        return (basis @ flat) @ basis

    return project


def _flattened(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([value.reshape(-1) for value in tensors.values()])


def _unflattened(flat: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    parts = flat.split([value.numel() for value in like.values()])
    return {name: p.view(like[name].shape) for name, p in zip(like, parts, strict=True)}
