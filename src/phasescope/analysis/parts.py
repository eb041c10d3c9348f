"""Components and subspaces of a matrix's columns, told apart and checked.

Letters: n parts, P columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from phasescope.components.subspace import Subspace
from phasescope.parameters import Component, ParameterTable


@dataclass(frozen=True, eq=False)
class Parts:
    """What a pass over columns is asked for."""

    names: tuple[str, ...]
    """In the order in which they were given."""
    sets: dict[str, Component]
    """Those that are sets of columns."""
    subspaces: dict[str, Subspace]
    """Those that are not."""

    @property
    def sizes(self) -> Int64[Tensor, " n"]:
        """Parameters of each component, dimensions of each subspace."""
        sizes = {name: c.size for name, c in self.sets.items()}
        sizes |= {name: len(s.basis) for name, s in self.subspaces.items()}
        return torch.tensor([sizes[name] for name in self.names], dtype=torch.int64)


def split_parts(
    components: Mapping[str, Component | Subspace] | None, matrix: Any, n_columns: int
) -> Parts:
    """The parts that were asked for; without any, the tensors of the matrix, or all columns.

    Raises:
        ValueError: A subspace has another number of columns, or there are no parts.
    """
    if components is None:
        table: ParameterTable | None = getattr(matrix, "parameters", None)
        components = {"full": Component("full", ((0, n_columns),))}
        if table is not None:
            filled = [n for n, size in zip(table.names, table.sizes, strict=True) if size]
            components = {name: table.component(name) for name in filled}
    if not components:
        raise ValueError(
            "components= is empty: name at least one part, or leave it out for every tensor."
        )
    for name, part in components.items():
        if isinstance(part, Subspace) and part.basis.shape[1] != n_columns:
            raise ValueError(
                f"the matrix must have the {part.basis.shape[1]} columns of the basis of {name!r}, "
                f"but it has {n_columns}. Take both from the same model."
            )
    return Parts(
        tuple(components),
        {n: c for n, c in components.items() if isinstance(c, Component)},
        {n: s for n, s in components.items() if isinstance(s, Subspace)},
    )
