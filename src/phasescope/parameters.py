"""Named tensors and one flat vector: the table that maps the one to the other."""

from __future__ import annotations

import bisect
import difflib
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor, nn

from phasescope.ranges import as_blocks, disjoint, few, merged, ranges_of, spelled_out

# The attribute in which a wrapper keeps what it wraps, by the name of the class: DataParallel,
# torch.compile, activation checkpointing. (Importing the classes takes long.)
_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
    "ActivationWrapper": "_checkpoint_wrapped_module",
}
# How the names of a wrapped module's state dict begin; that of Lightning's modules, by custom, too.
_WRAPPER_PREFIXES = tuple(f"{name}." for name in dict.fromkeys((*_WRAPPERS.values(), "model")))


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Component:
    """A named part of the flat parameter vector: any set of its entries.

    `phasescope.components` makes them from names such as ``"l0h1"``; here they are made from column
    ranges or, with `from_mask`, from a mask. Two components are equal if they have the same name
    and the same columns.

    Example:
        >>> part = Component("first two and the fifth", ((0, 2), (4, 5)))
        >>> part.size, part.columns
        (3, tensor([0, 1, 4]))
    """

    name: str
    """What the part is called in tables and figures."""
    blocks: Int64[np.ndarray, "n_blocks 4"]
    """Regular groups of ranges, as rows of start, length, stride and count, which are `count`
    ranges of `length` columns whose starts lie `stride` apart. A column of a matrix is one block
    however many rows there are, so neurons cost little; `intervals` spells them out."""

    n_columns: int | None
    """Length of the flat vector, where a mask told it: no other vector has this part."""

    def __init__(
        self,
        name: str,
        intervals: Sequence[tuple[int, int]] = (),
        *,
        blocks: Int64[np.ndarray, "n_blocks 4"] | None = None,
        n_columns: int | None = None,
    ) -> None:
        """Check the ranges.

        Args:
            name: What the part is called in tables and figures.
            intervals: Sorted, disjoint column ranges ``[start, stop)`` of the flat vector.
            blocks: The same as regular groups of ranges, in any order; instead of `intervals`.
            n_columns: Length of the flat vector, if the part belongs to no other.

        Raises:
            ValueError: The ranges are not sorted, overlap or are empty.
        """
        if blocks is None:
            ranges = np.asarray(intervals, dtype=np.int64).reshape(-1, 2)
            starts, stops = ranges[:, 0], ranges[:, 1]
            if (stops <= starts).any() or (starts < np.append(0, stops[:-1])[: len(starts)]).any():
                raise ValueError(
                    "Component intervals must be sorted, disjoint and non-empty [start, stop) "
                    f"ranges, but {name!r} has {few(intervals)}. Sort and merge them."
                )
            blocks = as_blocks(starts, stops)
        else:
            blocks = disjoint(np.array(blocks, dtype=np.int64).reshape(-1, 4), name)
        blocks.setflags(write=False)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "blocks", blocks)
        object.__setattr__(self, "n_columns", n_columns)

    @classmethod
    def from_mask(cls, name: str, mask: Bool[Tensor, " P"]) -> Component:
        """The columns at which a mask is true.

        Args:
            name: What the part is called.
            mask: True where a column belongs to the part. From one mask per tensor:
                ``table.flatten(masks)``.

        Raises:
            ValueError: The mask is not one-dimensional and boolean.

        Example:
            >>> Component.from_mask("odd", torch.tensor([False, True, False, True])).intervals
            ((1, 2), (3, 4))
        """
        if mask.dtype != torch.bool or mask.dim() != 1:
            raise ValueError(
                f"a mask of shape (parameters,) and dtype torch.bool is required for {name!r}, but "
                f"{tuple(mask.shape)} of {mask.dtype} arrived. Compare to make one: weights > 0."
            )
        edges = np.flatnonzero(np.diff(mask.cpu().numpy().astype(np.int8), prepend=0, append=0))
        blocks = as_blocks(edges[::2], edges[1::2])
        return cls(name, blocks=blocks, n_columns=len(mask))

    @functools.cached_property
    def intervals(self) -> tuple[tuple[int, int], ...]:
        """Sorted, merged, disjoint column ranges ``[start, stop)``."""
        starts, stops = self._ranges()
        return tuple(zip(starts.tolist(), stops.tolist(), strict=True))

    @property
    def size(self) -> int:
        """Number of parameters in the component."""
        return int((self.blocks[:, 1] * self.blocks[:, 3]).sum())

    @property
    def stop(self) -> int:
        """The column after the last one; 0 for an empty component."""
        start, length, stride, count = self.blocks.T
        return int((start + stride * (count - 1) + length).max(initial=0))

    def fits(self, n_columns: int) -> bool:
        """Whether a flat vector of this length has the part."""
        return self.stop <= n_columns and self.n_columns in (None, n_columns)

    @property
    def columns(self) -> Int64[Tensor, " size"]:
        """Every column, in increasing order: ``A[:, component.columns]`` selects from a matrix."""
        starts, stops = self._ranges()
        return torch.from_numpy(spelled_out(starts, stops - starts))

    def mask(self, n_columns: int) -> Bool[Tensor, " n_columns"]:
        """True at the columns of the component.

        Raises:
            ValueError: The component has columns beyond.
        """
        if self.stop > n_columns:
            raise ValueError(
                f"a mask over at least {self.stop} columns is required for {self.name!r}, but "
                f"n_columns={n_columns}. Take the size of the parameter table."
            )
        mask = torch.zeros(n_columns, dtype=torch.bool)
        mask[self.columns] = True
        return mask

    def to_json(self) -> dict[str, Any]:
        """The component as plain lists and numbers."""
        return {"name": self.name, "blocks": self.blocks.tolist()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Component:
        """The component that `to_json` wrote."""
        return cls(data["name"], blocks=np.array(data["blocks"], dtype=np.int64).reshape(-1, 4))

    def _ranges(self) -> tuple[np.ndarray, np.ndarray]:
        return merged(*ranges_of(self.blocks))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Component):
            return NotImplemented
        if self.name != other.name or self.size != other.size:
            return False
        pairs = zip(self._ranges(), other._ranges(), strict=True)
        return all(np.array_equal(mine, theirs) for mine, theirs in pairs)

    def __hash__(self) -> int:
        return hash((self.name, self.size, self.stop))

    def __repr__(self) -> str:
        n_ranges = int(self.blocks[:, 3].sum())
        shown = self.intervals if n_ranges <= 4 else f"{self.size:,} columns in {n_ranges:,} ranges"
        return f"Component({self.name!r}, {shown})"


@dataclass(frozen=True)
class ParameterTable:
    """Where every named tensor lies in the flat vector, in ``named_parameters()`` order.

    Args:
        names: Parameter names, without the prefixes that wrappers add.
        shapes: Shape of every tensor.

    Example:
        >>> table = ParameterTable.from_module(nn.Linear(3, 2))
        >>> table.names, table.offsets, table.size
        (('weight', 'bias'), (0, 6), 8)
        >>> table.interval("bias")
        (6, 8)
        >>> table.locate(7)
        'bias'
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of entries of every tensor."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def offsets(self) -> tuple[int, ...]:
        """First column of every tensor."""
        offsets, end = [], 0
        for size in self.sizes:
            offsets.append(end)
            end += size
        return tuple(offsets)

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        return sum(self.sizes)

    def interval(self, name: str) -> tuple[int, int]:
        """Column range ``[start, stop)`` of the tensor called `name`.

        Raises:
            KeyError: No tensor has this name; the closest names are listed.
        """
        if name not in self.names:
            close = difflib.get_close_matches(name, self.names, n=3, cutoff=0.3)
            raise KeyError(
                f"no parameter is called {name!r}; the closest of the {len(self.names)} names are "
                f"{close or list(self.names[:3])}. `.names` lists them all."
            )
        index = self.names.index(name)
        return self.offsets[index], self.offsets[index] + self.sizes[index]

    def component(self, name: str) -> Component:
        """The tensor called `name` as a component."""
        return Component(name, (self.interval(name),))

    def locate(self, column: int) -> str:
        """Name of the tensor to which a column of the flat vector belongs.

        Raises:
            IndexError: The column lies outside the vector.
        """
        if not 0 <= column < self.size:
            raise IndexError(f"columns go from 0 to {self.size - 1}, but {column} was asked for.")
        return self.names[bisect.bisect_right(self.offsets, column) - 1]

    def unflatten(self, vector: Shaped[Tensor, " P"]) -> dict[str, Tensor]:
        """Views of a flat vector under the tensors' names and shapes.

        Raises:
            ValueError: The vector has another length than the table.
        """
        if vector.shape != (self.size,):
            raise ValueError(
                f"a vector of shape ({self.size},) is required to match the table's "
                f"{len(self.names)} tensors, but one of shape {tuple(vector.shape)} arrived."
            )
        parts = vector.split(list(self.sizes))
        return {n: p.view(s) for n, p, s in zip(self.names, parts, self.shapes, strict=True)}

    def flatten(self, tensors: Mapping[str, Tensor]) -> Shaped[Tensor, " P"]:
        """One flat vector from named tensors, in the table's order.

        Raises:
            KeyError: A tensor of the table is missing.
            ValueError: One has another shape.
        """
        missing = [name for name in self.names if name not in tensors]
        if missing:
            raise KeyError(f"every tensor of the table is required, but {missing} are missing.")
        for name, shape in zip(self.names, self.shapes, strict=True):
            if tuple(tensors[name].shape) != shape:
                raise ValueError(
                    f"{name!r} must have the shape {shape} of the table, but it has "
                    f"{tuple(tensors[name].shape)}. Take both from the same model."
                )
        return torch.cat([tensors[name].reshape(-1) for name in self.names])

    @classmethod
    def from_module(cls, model: nn.Module) -> ParameterTable:
        """The table of a module's parameters; tied tensors count once, under their first name."""
        named = named_parameters(model)
        return cls(tuple(named), tuple(tuple(p.shape) for p in named.values()))

    def to_json(self) -> list[dict[str, Any]]:
        """The table as plain lists and numbers: name, shape and offset of every tensor."""
        rows = zip(self.names, self.shapes, self.offsets, strict=True)
        return [{"name": n, "shape": list(s), "offset": o} for n, s, o in rows]

    @classmethod
    def from_json(cls, rows: list[dict[str, Any]]) -> ParameterTable:
        """The table that `to_json` wrote."""
        return cls(tuple(r["name"] for r in rows), tuple(tuple(r["shape"]) for r in rows))


def named_parameters(model: nn.Module, *, tied: bool = False) -> dict[str, nn.Parameter]:
    """A module's parameters under their names without wrapper prefixes.

    ``module.`` (DistributedDataParallel), ``_orig_mod.`` (torch.compile) and
    ``_checkpoint_wrapped_module.`` (activation checkpointing) are removed wherever a wrapper put
    them, so that a wrapped and a bare model give the same names.

    Args:
        model: The module.
        tied: Whether a tensor that has several names appears under each of them, and not only under
            the first.

    Example:
        >>> list(named_parameters(nn.DataParallel(nn.Linear(1, 1))))
        ['weight', 'bias']
    """
    wrappers = _wrappers(model)
    # Activation checkpointing removes its own prefix, but of the outermost module only.
    kind = nn.Module if "" in wrappers else type(model)
    found = kind.named_parameters(model, remove_duplicate=not tied)
    return {_strip(name, wrappers): parameter for name, parameter in found}


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """A module's submodules under their paths without wrapper prefixes, wrappers left out.

    A submodule that is registered in several places appears in each of them; the path of the model
    itself is empty.

    Example:
        >>> list(named_modules(nn.DataParallel(nn.Sequential(nn.ReLU()))))
        ['', '0']
    """
    wrappers = _wrappers(model)
    found = model.named_modules(remove_duplicate=False)
    return {_strip(path, wrappers): module for path, module in found if path not in wrappers}


def without_wrapper_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the prefixes that wrappers have put in front of all of its names.

    ``module.``, ``_orig_mod.``, ``_checkpoint_wrapped_module.`` and ``model.``, however many stand
    behind one another. What stands before some of the names only is part of these.

    Args:
        state: By name.

    Example:
        >>> list(without_wrapper_prefixes({"_orig_mod.module.weight": torch.ones(1)}))
        ['weight']
    """
    found = dict(state)
    while found:
        shared = [p for p in _WRAPPER_PREFIXES if all(name.startswith(p) for name in found)]
        if not shared:
            break
        found = {name.removeprefix(shared[0]): tensor for name, tensor in found.items()}
    return found


def _wrappers(model: nn.Module) -> dict[str, str]:
    """Paths of the modules that do nothing but wrap another, and the attribute that holds it."""
    found = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for base in type(module).__mro__:
            if base.__name__ in _WRAPPERS and base.__module__.startswith("torch."):
                found[path] = _WRAPPERS[base.__name__]
    return found


def _strip(name: str, wrappers: Mapping[str, str]) -> str:
    """Remove the attribute that follows each wrapper's path, and only there."""
    parts = name.split(".")
    kept = [p for i, p in enumerate(parts) if wrappers.get(".".join(parts[:i])) != p]
    return ".".join(kept)
