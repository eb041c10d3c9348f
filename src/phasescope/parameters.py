"""Named tensors and one flat vector: the table that maps the one to the other."""

from __future__ import annotations

import bisect
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Prefixes that DistributedDataParallel and torch.compile put before every name.
_WRAPPER_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Component:
    """A named part of the flat parameter vector.

    Args:
        name: What the part is called in tables and figures.
        intervals: Sorted, disjoint column ranges ``[start, stop)`` of the flat vector.

    Example:
        >>> Component("first two and the fifth", ((0, 2), (4, 5))).size
        3
    """

    name: str
    intervals: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        end = 0
        for start, stop in self.intervals:
            if start < end or stop <= start:
                raise ValueError(
                    "Component intervals must be sorted, disjoint and non-empty [start, stop) "
                    f"ranges, but {self.name!r} has {self.intervals}. Sort and merge them."
                )
            end = stop

    @property
    def size(self) -> int:
        """Number of parameters in the component."""
        return sum(stop - start for start, stop in self.intervals)


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

    def unflatten(self, vector: Float[Tensor, " P"]) -> dict[str, Tensor]:
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

    def flatten(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, " P"]:
        """One flat vector from named tensors, in the table's order.

        Raises:
            KeyError: A tensor of the table is missing.
        """
        missing = [name for name in self.names if name not in tensors]
        if missing:
            raise KeyError(f"every tensor of the table is required, but {missing} are missing.")
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


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """A module's parameters under their names without wrapper prefixes.

    ``module.`` (DistributedDataParallel) and ``_orig_mod.`` (torch.compile) are removed wherever a
    wrapper put them, so that a wrapped and a bare model give the same names.

    Example:
        >>> list(named_parameters(nn.DataParallel(nn.Linear(1, 1))))
        ['weight', 'bias']
    """
    wrappers = {
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel)
        or type(module).__name__ == "OptimizedModule"
    }
    return {_strip(name, wrappers): p for name, p in model.named_parameters()}


def _strip(name: str, wrappers: set[str]) -> str:
    """Remove the attribute that follows each wrapper's path, and only there."""
    kept: list[str] = []
    parts = name.split(".")
    for i, part in enumerate(parts):
        inside = ".".join(parts[:i]) in wrappers
        if not (inside and f"{part}." in _WRAPPER_PREFIXES):
            kept.append(part)
    return ".".join(kept)
