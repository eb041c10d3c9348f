"""The permutations of a model's hidden units that leave its function as it is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Permutations = dict[str, Tensor]
"""For every group, which unit of the old order comes to each place: n, or parent × n integers."""
Factor = str | int
"""A group of units, or the length of something whose order is fixed."""


@dataclass(frozen=True)
class Group:
    """Units that may be permuted: neurons, channels, heads, directions of a residual stream."""

    name: str
    """The first parameter that has them, without ``.weight``."""
    size: int
    parent: str | None = None
    """A group, such as heads, for each of whose members these units are permuted separately."""


Axes = tuple[tuple[tuple[Factor, ...], ...], ...]
"""Of a tensor: its axes, the segments of each, and the factors of each segment."""


@dataclass(frozen=True)
class ReadActivations:
    """A tensor of activations that the model multiplies by weights or by other activations."""

    call: int
    """Number of the multiplication in the traced call."""
    operand: int
    """Number of its operand."""
    axes: Axes
    """Groups and lengths, those of batches as they were traced."""


@dataclass(frozen=True)
class Block:
    """A part of a parameter that is a product of factors: a tensor with an axis for each."""

    name: str
    slices: tuple[slice, ...]
    shape: tuple[int, ...]
    groups: tuple[str | None, ...]
    parents: tuple[int | None, ...]
    """For units that are permuted separately for each parent, the axis of the parent."""

    def read(self, state: Mapping[str, Tensor]) -> Tensor:
        """The part as a tensor with an axis for every factor."""
        return state[self.name][self.slices].reshape(self.shape)

    def permuted(self, block: Tensor, permutations: Mapping[str, Tensor]) -> Tensor:
        """The part in another order; groups that are not named keep theirs."""
        for axis, group in enumerate(self.groups):
            if group is not None and group in permutations and self.parents[axis] is None:
                block = block.index_select(axis, permutations[group].to(block.device))
        for axis, group in enumerate(self.groups):
            parent = self.parents[axis]
            if group is not None and group in permutations and parent is not None:
                index = permutations[group].to(block.device)
                index = index if parent < axis else index.T
                shape = [n if d in (parent, axis) else 1 for d, n in enumerate(self.shape)]
                block = block.take_along_dim(index.reshape(shape), axis)
        return block


@dataclass(frozen=True, eq=False)
class PermutationSymmetry:
    """What may be permuted in a model, from `permutation_symmetry`.

    Example:
        >>> import phasescope as ps
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)
        ... )
        >>> symmetry = ps.permutation_symmetry(model, (torch.ones(1, 4),))
        >>> print(symmetry)
        0: 3 units, in 0.weight, 0.bias, 2.weight
        >>> swapped = symmetry.permuted(model.state_dict(), {"0": torch.tensor([1, 0, 2])})
        >>> torch.equal(swapped["0.bias"], model[0].bias[[1, 0, 2]])
        True
    """

    groups: dict[str, Group]
    axes: dict[str, Axes]
    """Of every parameter and buffer: its axes, their segments, and the factors of each."""
    parameters: tuple[str, ...]
    """Which of them are trained; tied ones once. The others are buffers."""
    tied: dict[str, str]
    """Other names of tied parameters, and the name that `axes` has them under."""
    frozen: dict[str, str]
    """Axes, or parts of them, that keep their order, and why."""
    readings: tuple[ReadActivations, ...]
    """Where activations are read, for `match_activations`."""

    def identity(self) -> Permutations:
        """Everything where it is."""
        return {
            name: torch.arange(group.size).expand(*self.parent_size(name), -1).clone()
            for name, group in self.groups.items()
        }

    def random(self, generator: torch.Generator) -> Permutations:
        """Permutations drawn uniformly, on the CPU."""
        return {
            name: torch.rand(*self.parent_size(name), group.size, generator=generator).argsort(-1)
            for name, group in self.groups.items()
        }

    def inverse(self, permutations: Mapping[str, Tensor]) -> Permutations:
        """The permutations that undo these."""
        result = {}
        for name, permutation in permutations.items():
            back, parent = permutation.argsort(-1), self.groups[name].parent
            if parent is not None and parent in permutations:
                back = back[permutations[parent].argsort()]
            result[name] = back
        return result

    def composed(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Permutations:
        """The permutations that do what `first` does, and then what `second` does.

        Groups that one of them leaves out stay as the other has them.
        """
        device = next((p.device for p in (*first.values(), *second.values())), None)
        identity = {name: p.to(device) for name, p in self.identity().items()}
        result = {}
        for name in (name for name in self.groups if name in first or name in second):
            before, now = (given.get(name, identity[name]) for given in (first, second))
            parent = self.groups[name].parent
            if parent is None:
                result[name] = before[now]
            else:
                result[name] = before[second.get(parent, identity[parent])].gather(-1, now)
        return result

    def permuted(
        self, state: Mapping[str, Tensor], permutations: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """A state dict in another order of its units, its function the same.

        Args:
            state: Parameters, and buffers if they are there, by the names of `axes`.
            permutations: Of some groups or all.

        Returns:
            New tensors under the same names; what is not permuted is the old tensor.

        Raises:
            ValueError: A tensor is missing or has another shape, or something is no permutation.
        """
        self.check(state)
        self._check_permutations(permutations)
        result = dict(state)
        for name in self.axes:
            if name in state and any(
                g in permutations for block in self.blocks[name] for g in block.groups
            ):
                new = torch.empty_like(state[name])
                for block in self.blocks[name]:
                    part = block.permuted(block.read(state), permutations)
                    new[block.slices] = part.reshape(new[block.slices].shape)
                result[name] = new
        for name, original in self.tied.items():
            if name in state:
                result[name] = result[original]
        return result

    @cached_property
    def blocks(self) -> dict[str, tuple[Block, ...]]:
        """Every tensor in parts that are products."""
        return {name: tuple(self.blocks_of(name, axes)) for name, axes in self.axes.items()}

    def blocks_of(self, name: str, axes: Axes) -> Iterator[Block]:
        """The products that a tensor with these axes consists of."""
        choices = []
        for segments in axes:
            start, spans = 0, []
            for segment in segments:
                length = self._length(segment)
                spans.append((slice(start, start + length), segment))
                start += length
            choices.append(spans)
        for chosen in itertools.product(*choices):
            factors = [(a, f) for a, (_, segment) in enumerate(chosen) for f in segment]
            groups = tuple(f if isinstance(f, str) else None for _, f in factors)
            shape = tuple(f if isinstance(f, int) else self.groups[f].size for _, f in factors)
            parents = tuple(
                None
                if g is None or self.groups[g].parent is None
                else min(
                    (d for d, other in enumerate(groups) if other == self.groups[g].parent),
                    key=lambda d, a=a: factors[d][0] != a,
                )
                for g, (a, _) in zip(groups, factors, strict=True)
            )
            yield Block(name, tuple(s for s, _ in chosen), shape, groups, parents)

    def children(self, name: str) -> list[str]:
        """Groups that are permuted separately for each member of this one."""
        return [g.name for g in self.groups.values() if g.parent == name]

    def parent_size(self, name: str) -> tuple[int, ...]:
        """Size of a group's parent, empty without one."""
        parent = self.groups[name].parent
        return () if parent is None else (self.groups[parent].size,)

    def check(self, state: Mapping[str, Tensor], what: str = "the state") -> None:
        """Raise unless a state dict has the tensors of this model."""
        for name in self.parameters:
            if name not in state:
                raise ValueError(
                    f"{what} must have the {len(self.parameters)} parameters of the model that the "
                    f"symmetry was derived from, but {name!r} is missing. Is it of another "
                    "architecture, or do its names carry a prefix of a wrapper?"
                )
        for name, axes in self.axes.items():
            if name in state:
                wanted = tuple(sum(self._length(s) for s in segments) for segments in axes)
                if tuple(state[name].shape) != wanted:
                    raise ValueError(
                        f"{name!r} must have shape {wanted} as in the model that the symmetry was "
                        f"derived from, but in {what} it has {tuple(state[name].shape)}. Models of "
                        "different architectures cannot be matched."
                    )

    def __str__(self) -> str:
        lines = []
        for group in self.groups.values():
            names = [
                n
                for n, blocks in self.blocks.items()
                if any(group.name in b.groups for b in blocks)
            ]
            where = ", ".join(names[:4]) + (f", … ({len(names)} tensors)" if len(names) > 4 else "")
            each = f" for each of {group.parent}" if group.parent else ""
            lines.append(f"{group.name}: {group.size} units{each}, in {where}")
        return "\n".join(lines)

    def _length(self, segment: tuple[Factor, ...]) -> int:
        return math.prod(f if isinstance(f, int) else self.groups[f].size for f in segment)

    def _check_permutations(self, permutations: Mapping[str, Tensor]) -> None:
        for name, permutation in permutations.items():
            if name not in self.groups:
                raise ValueError(
                    f"permutations of the groups {', '.join(self.groups)} are possible, but "
                    f"{name!r} arrived."
                )
            wanted = (*self.parent_size(name), self.groups[name].size)
            straight = torch.arange(wanted[-1], device=permutation.device).expand(wanted)
            if permutation.shape != wanted or not torch.equal(
                permutation.sort(-1).values, straight
            ):
                raise ValueError(
                    f"the permutation of {name!r} must have shape {wanted} and hold every number "
                    f"from 0 to {wanted[-1] - 1} once in a row, but it has shape "
                    f"{tuple(permutation.shape)} and begins {permutation.flatten()[:8].tolist()}."
                )
