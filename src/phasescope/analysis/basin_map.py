"""Which of many models lie in one basin: components of the graph of low barriers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from phasescope.analysis.connectivity import Measure, State, linear_path, path_values

Aligner = Callable[[State, State], State]


@dataclass(frozen=True, eq=False)
class BasinMap:
    """Models, and which of them are joined by a low barrier, directly or through others."""

    barriers: Float64[Tensor, "n n"]
    """Barrier of every pair; 0 on the diagonal."""
    tolerance: float
    """The largest barrier that joins."""
    joined: Bool[Tensor, "n n"]
    """Which pairs are joined directly."""
    basin: Int64[Tensor, " n"]
    """Number of every model's basin, from 0, in the order of their first models."""

    @property
    def n_basins(self) -> int:
        """How many basins there are."""
        return int(self.basin.max()) + 1

    @property
    def sizes(self) -> list[int]:
        """Models in every basin."""
        return torch.bincount(self.basin).tolist()


def pairwise_barriers(
    measure: Measure,
    states: Sequence[State],
    *,
    name: str = "loss",
    align: Aligner | None = None,
    n_points: int = 13,
) -> Float64[Tensor, "n n"]:
    """Barriers on the straight lines between all pairs of models.

    Args:
        measure: Numbers of a state.
        states: The models.
        name: Of the number whose barrier counts.
        align: Brings a second model close to a first one (permutes its units) before the line is
            drawn; called as ``align(first, second)`` with the earlier model first.
        n_points: Places on each line.

    Returns:
        Symmetric matrix of barriers over the line between the ends.

    Raises:
        ValueError: There are fewer than two models, or they are of different architectures.

    Example:
        >>> double_well = lambda s: {"loss": (s["w"].square() - 1).square().item()}
        >>> states = [{"w": torch.tensor([w])} for w in (-1.0, 1.0, 0.9)]
        >>> pairwise_barriers(double_well, states)[0, 1]
        tensor(1., dtype=torch.float64)
    """
    if len(states) < 2:
        raise ValueError(f"at least two models are required for a map, but {len(states)} arrived.")
    n = len(states)
    barriers = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(i + 1, n):
            other = states[j] if align is None else align(states[i], states[j])
            path = linear_path(states[i], other)
            barriers[i, j] = path_values(measure, path, n_points=n_points).barrier(name)
            barriers[j, i] = barriers[i, j]
    return barriers


def basin_map(barriers: Float64[Tensor, "n n"], tolerance: float) -> BasinMap:
    """Components of the graph whose edges are barriers up to a tolerance.

    Two models of one component need not be joined directly. With many models a component may grow
    by chance links: report how it changes with the tolerance.

    Args:
        barriers: From `pairwise_barriers`.
        tolerance: The largest barrier that joins.

    Returns:
        The map.

    Raises:
        ValueError: The matrix is not square and symmetric, or holds something not finite.

    Example:
        >>> barriers = torch.tensor([[0.0, 0.1, 5.0], [0.1, 0.0, 4.0], [5.0, 4.0, 0.0]]).double()
        >>> basin_map(barriers, 0.2).basin.tolist()
        [0, 0, 1]
    """
    square = barriers.ndim == 2 and barriers.shape[0] == barriers.shape[1]
    if not square or not torch.equal(barriers, barriers.T) or not bool(barriers.isfinite().all()):
        raise ValueError(
            "a square, symmetric matrix of finite barriers is required, but one of shape "
            f"{tuple(barriers.shape)} arrived that is not. Take that of pairwise_barriers."
        )
    n = len(barriers)
    joined = (barriers <= tolerance) & ~torch.eye(n, dtype=torch.bool)
    basin = torch.full((n,), -1, dtype=torch.int64)
    count = 0
    for first in range(n):
        if basin[first] >= 0:
            continue
        waiting = [first]
        while waiting:
            model = waiting.pop()
            if basin[model] < 0:
                basin[model] = count
                waiting += joined[model].nonzero().flatten().tolist()
        count += 1
    return BasinMap(barriers, tolerance, joined, basin)


def variance_between_basins(
    found: BasinMap, values: Mapping[str, Float64[Tensor, " n"]]
) -> dict[str, float]:
    r"""How much of the variance of each property lies between basins rather than inside.

    $\eta^2 = 1 - \sum_{\text{inside}} (x - \bar x_{\text{basin}})^2 / \sum (x - \bar x)^2$. With as
    many basins as models it is 1 by construction: compare with permuted values.

    Args:
        found: From `basin_map`.
        values: Properties of the models, such as their monosemantic share.

    Returns:
        A share for every property; NaN where all values are equal.

    Example:
        >>> found = basin_map(torch.tensor([[0.0, 0, 9], [0, 0, 9], [9, 9, 0]]).double(), 1.0)
        >>> variance_between_basins(found, {"mono": torch.tensor([0.1, 0.1, 0.5]).double()})
        {'mono': 1.0}
    """
    result = {}
    for name, x in values.items():
        total = (x - x.mean()).square().sum()
        means = torch.stack([x[found.basin == b].mean() for b in range(found.n_basins)])
        inside = (x - means[found.basin]).square().sum()
        result[name] = (1 - inside / total).item() if total > 0 else float("nan")
    return result
