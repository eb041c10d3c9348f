"""The best permutations of one group, its members' own units included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float64
from torch import Tensor


@dataclass
class Costs:
    """How well each unit of one model fits each of the other; the larger, the better."""

    units: Float64[Tensor, "n n"]
    """From everything where only the group itself is permuted."""
    children: dict[str, Float64[Tensor, "n n m m"]] = field(default_factory=dict)
    """From what has units of a group below it: for every pair of members, their units' fits."""


@dataclass(frozen=True)
class Assigned:
    """The permutations of largest fit."""

    permutation: Tensor
    children: Mapping[str, Tensor]


def assign(costs: Costs) -> Assigned:
    """Solve the assignment of a group, and inside it, for every pair of members, of their units."""
    from scipy.optimize import linear_sum_assignment

    n = len(costs.units)
    total = costs.units.clone()
    inner: dict[str, Tensor] = {}
    for name, child in costs.children.items():
        numbers = child.numpy(force=True)
        chosen = torch.empty(n, n, child.shape[-1], dtype=torch.int64)
        for i in range(n):
            for j in range(n):
                rows, columns = linear_sum_assignment(numbers[i, j], maximize=True)
                chosen[i, j] = torch.from_numpy(columns)
                total[i, j] += numbers[i, j][rows, columns].sum()
        inner[name] = chosen
    fits = total.numpy(force=True)
    permutation = torch.from_numpy(linear_sum_assignment(fits, maximize=True)[1])
    children = {name: chosen[torch.arange(n), permutation] for name, chosen in inner.items()}
    return Assigned(permutation, children)
