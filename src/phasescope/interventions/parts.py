"""Parts of what a model computes at a site: entries, directions, waves over the inputs.

Letters: n inputs, i entries, k directions or waves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the values at one site, given by the projection that leaves it alone."""

    name: str
    """What results call it."""
    site: str
    """Where; see `forward_with`."""
    take: Callable[[Tensor], Tensor]
    """The part of a value: a projection, of the value's shape, zero elsewhere."""

    def put(self, value: Tensor, own: Tensor) -> Tensor:
        """A value with this part of it replaced.

        Args:
            value: What the rest is from.
            own: The new part, such as ``take(other)``; it may be one row for all inputs.
        """
        taken = self.take(value)
        # Of what is all the part's nothing is left, also where it is infinite, as masked scores.
        return torch.where(value == taken, 0.0, value - taken) + own


def entries(site: str, index: int | Sequence[int], *, axis: int = -1, name: str = "") -> Part:
    """Some entries along an axis of a site: a neuron, a head, a channel.

    Args:
        site: The site.
        index: Which entries.
        axis: Of the value: -1 neurons of an MLP, -2 heads of ``hook_z`` ([..., heads, d_head]), 1
            channels of a convolution. The axis of the inputs, 0, cannot be meant.
        name: What results call it; by default site and index.

    Returns:
        The part.

    Raises:
        ValueError: The axis is that of the inputs, or there is no entry.
        IndexError: When it is used: the site has no such entry.

    Example:
        >>> entries("mlp", 1).take(torch.tensor([[3.0, 4.0]]))
        tensor([[0., 4.]])
    """
    chosen = [index] if isinstance(index, int) else list(index)
    if axis == 0 or not chosen:
        raise ValueError(
            "entries of a part lie along an axis behind that of the inputs, and there is at least "
            f"one, but axis={axis} and index={index!r} arrived."
        )

    def take(value: Tensor) -> Tensor:
        size = value.shape[axis]
        if any(not -size <= i < size for i in chosen) or axis % value.ndim == 0:
            raise IndexError(
                f"{site!r} has {size} entries along axis {axis} of {tuple(value.shape)}, but entry "
                f"{index!r} is asked for."
            )
        mask = torch.zeros(size, dtype=torch.bool, device=value.device)
        mask[chosen] = True
        mask = mask.reshape(-1, *[1] * (value.ndim - 1 - axis % value.ndim))
        return torch.where(mask, value, 0.0)

    return Part(name or f"{site}[{index}]", site, take)


def directions(site: str, basis: Float[Tensor, "k i"], *, name: str = "") -> Part:
    """What lies along some orthonormal directions of the last axis of a site.

    Args:
        site: The site.
        basis: Directions as orthonormal rows.
        name: What results call it.

    Returns:
        The part.

    Raises:
        ValueError: The rows are not orthonormal.

    Example:
        >>> part = directions("mlp", torch.tensor([[0.6, 0.8]]))
        >>> part.take(torch.tensor([[5.0, 0.0]]))
        tensor([[1.8000, 2.4000]])
    """
    _check_orthonormal(basis)

    def take(value: Tensor) -> Tensor:
        B = basis.to(value.device, value.dtype)
        return (value @ B.T) @ B

    return Part(name or f"{len(basis)} directions of {site}", site, take)


def waves(site: str, basis: Float[Tensor, "k n"], *, name: str = "") -> Part:
    """What depends on the inputs as some orthonormal functions of them do: a frequency.

    The inputs of a pass must then be those that the functions are given on, all of them and in that
    order: for a frequency of a group all pairs of operands, with the functions of
    `phasescope.analysis.grokking.pair_waves`. Nothing of it is left of a mean over inputs if the
    functions have mean zero.

    Args:
        site: The site.
        basis: Values of each function on every input, as orthonormal rows.
        name: What results call it.

    Returns:
        The part.

    Raises:
        ValueError: The rows are not orthonormal; or, when it is used, the inputs are another
            number.

    Example:
        >>> part = waves("mlp", torch.tensor([[1.0, -1.0]]) / 2**0.5)
        >>> [round(x, 4) for x in part.take(torch.tensor([[3.0], [1.0]])).flatten().tolist()]
        [1.0, -1.0]
    """
    _check_orthonormal(basis)

    def take(value: Tensor) -> Tensor:
        if len(value) != basis.shape[1]:
            raise ValueError(
                f"waves over {basis.shape[1]} inputs need a pass over exactly these, but "
                f"{len(value)} arrived. Pass all of them, in the order of the basis."
            )
        B = basis.to(value.device, value.dtype)
        return (B.T @ (B @ value.flatten(1))).view_as(value)

    return Part(name or f"{len(basis)} waves of {site}", site, take)


def _check_orthonormal(basis: Tensor) -> None:
    gram = basis.double() @ basis.double().T
    error = float(
        (gram - torch.eye(len(basis), dtype=torch.float64, device=gram.device)).abs().max()
    )
    if not error < 1e-4:
        raise ValueError(
            f"orthonormal rows are required, but products of rows are off by {error:.2g}. Take "
            "them through torch.linalg.qr(basis.T).Q.T first."
        )
