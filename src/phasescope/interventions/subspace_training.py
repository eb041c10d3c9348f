"""Training with the weights confined to a subspace, and the dimension that this takes.

Letters: k directions, P parameters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from phasescope.components.subspace import Subspace
from phasescope.interventions.weights import flat_weights, parameter_places, without_parameters
from phasescope.parameters import ParameterTable


class InSubspace(nn.Module):
    r"""A model whose weights can move in a subspace only: $w = w_0 + z B$ with z to be trained.

    A model of its own, with one parameter, `coordinates` (z, k numbers, zero at first): any
    optimizer trains it in any loop, and a `Recorder` records it. The model that it was made of is
    copied, not changed. Because the basis B is orthonormal, SGD on the coordinates is SGD on the
    weights with each gradient projected on the subspace; Adam is not, since it scales coordinates.

    At equal learning rate a random subspace trains slowly: it holds a share k / P of the squared
    gradient, so a rate P / k times as large makes the same step on average.

    Args:
        model: At the weights to start from; copied with its buffers.
        subspace: Of its parameters. It is kept in memory, but in no state dict.

    Raises:
        ValueError: The subspace has another number of parameters than the model.

    Example:
        >>> from phasescope.interventions.subspaces import random_subspace
        >>> inside = InSubspace(nn.Linear(3, 2), random_subspace(8, 2, seed=0))
        >>> [(name, tuple(p.shape)) for name, p in inside.named_parameters()]
        [('coordinates', (2,))]
        >>> inside(torch.zeros(5, 3)).shape
        torch.Size([5, 2])

    References:
        Li et al. (2018), arXiv:1804.08838, eq. (2).
    """

    basis: Tensor
    start: Tensor

    def __init__(self, model: nn.Module, subspace: Subspace) -> None:
        super().__init__()
        self.table = ParameterTable.from_module(model)
        check_subspace(self.table, subspace)
        start = flat_weights(model)
        self._places = parameter_places(model)
        self._names = tuple(name for name, _ in model.named_parameters())
        self.inner = without_parameters(model)
        self.register_buffer("start", start)
        basis = subspace.basis.to(start.device, start.dtype)
        self.register_buffer("basis", basis, persistent=False)
        self.coordinates = nn.Parameter(
            torch.zeros(len(basis), dtype=start.dtype, device=start.device)
        )

    def weights(self) -> Float[Tensor, " P"]:
        """The present weights as one vector, in the order of the model's parameters."""
        return self.start + self.coordinates @ self.basis

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns at the present weights; buffers are updated as in the model."""
        tensors = self.table.unflatten(self.weights()).values()
        values = dict(zip(self._names, tensors, strict=True))
        named = {place: values[name] for place, name in self._places.items()}
        return torch.func.functional_call(self.inner, named, args, kwargs, tie_weights=False)


@dataclass(frozen=True)
class IntrinsicDimension:
    """The smallest dimension in which training reaches a share of the full performance."""

    dimension: int | None
    """The smallest of those tried that reaches the target; None if the largest does not."""
    below: int
    """The largest one tried below it that does not; 0 if every dimension does."""
    target: float
    """What had to be reached, in the unit of the performance."""
    tried: dict[int, float]
    """Performance of every dimension that was tried."""


def intrinsic_dimension(
    performance: Callable[[int], float],
    baseline: float,
    dimensions: Sequence[int],
    *,
    share: float = 0.9,
) -> IntrinsicDimension:
    """The smallest of several dimensions in which training reaches a share of the baseline.

    With `share` .9, validation accuracy and random subspaces it is d_int90. A bisection: of n
    dimensions about log2(n) + 1 are trained, which finds the smallest one if performance grows with
    the dimension. Where it does not, the answer is *a* dimension that reaches the target right
    above one that does not. Performance that is not finite does not reach it.

    The answer depends on how long, and with which learning rate, training in the subspace was
    allowed to take: state both, and give every dimension the best of several rates.

    Args:
        performance: Trains in so many dimensions and measures; larger is better.
        baseline: Performance of the full model, above zero.
        dimensions: What to choose from, increasing.
        share: Of the baseline.

    Returns:
        The dimension, its lower neighbour, and everything that was tried.

    Raises:
        ValueError: The dimensions do not increase, or baseline or share are not positive.

    Example:
        >>> found = intrinsic_dimension(lambda d: min(d / 700, 1), 1.0, [10, 100, 500, 750, 2000])
        >>> found.dimension, found.below, sorted(found.tried)
        (750, 500, [500, 750])

    References:
        Li et al. (2018), arXiv:1804.08838, section 3.
    """
    rising = all(a < b for a, b in itertools.pairwise(dimensions))
    if not dimensions or dimensions[0] < 1 or not rising:
        raise ValueError(
            "at least one dimension, positive and strictly increasing, is required, but "
            f"{list(dimensions)} arrived. Sort them and leave out repetitions."
        )
    if not (baseline > 0 and math.isfinite(baseline) and 0 < share <= 1):
        raise ValueError(
            "a baseline above zero and a share in (0, 1] are required, but baseline="
            f"{baseline} and share={share} arrived. Turn a loss into a performance first, such as "
            "the part of its fall that is reached."
        )
    target = share * baseline
    tried: dict[int, float] = {}

    def reaches(index: int) -> bool:
        value = tried[dimensions[index]] = float(performance(dimensions[index]))
        return value >= target

    failing, reaching = -1, len(dimensions)
    while reaching - failing > 1:
        middle = (failing + reaching) // 2
        if reaches(middle):
            reaching = middle
        else:
            failing = middle
    found = dimensions[reaching] if reaching < len(dimensions) else None
    return IntrinsicDimension(found, dimensions[failing] if failing >= 0 else 0, target, tried)


def check_subspace(table: ParameterTable, subspace: Subspace) -> None:
    """Raise unless a subspace is one of a table's parameters."""
    P = subspace.basis.shape[1]
    if table.size != P:
        raise ValueError(
            f"the subspace {subspace.name!r} must lie in the model's {table.size} parameters, but "
            f"its directions have {P} entries. Take it from a run of the same model."
        )
