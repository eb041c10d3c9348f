"""Where in the network directions of the parameter space live.

Letters: k directions, P parameters, c components.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from phasescope.parameters import Component


def direction_mass(
    vectors: Float[Tensor, "k P"], components: Mapping[str, Component]
) -> Float64[Tensor, "k c"]:
    r"""Share of each direction's squared length that lies in each component.

    $\sum_{p \in c} v_p^2 / \sum_p v_p^2$: 1 if the direction moves nothing else. Shares of
    components that overlap, or that leave parameters out, do not add up to one.

    A large component has a large share of a random direction, namely its share of the parameters;
    and a loud one has a large share of everything, namely its share of the energy of all steps.
    Compare with both.

    Args:
        vectors: Directions as rows, of any length above zero: from `parameter_vectors`, say. A
            whole matrix of steps gives each step's shares.
        components: Parts of the parameter vector, by name.

    Returns:
        Shares between 0 and 1, a row for each direction, a column for each component in order.

    Raises:
        ValueError: There is no component, one has columns beyond the directions', or a direction is
            zero or not finite.

    Example:
        >>> parts = {"first": Component("first", ((0, 1),)), "rest": Component("rest", ((1, 3),))}
        >>> direction_mass(torch.tensor([[3.0, 0.0, 4.0]]), parts)
        tensor([[0.3600, 0.6400]], dtype=torch.float64)
    """
    P = vectors.shape[1]
    beyond = [name for name, part in components.items() if part.stop > P or part.size == 0]
    if not components or beyond:
        raise ValueError(
            f"components must be non-empty parts of the {P} columns, but "
            f"{beyond or 'none'} arrived. Take them from the parameter table of the same model."
        )
    squares = vectors.double() ** 2
    total = squares.sum(1)
    if not bool((total.isfinite() & (total > 0)).all()):
        row = int((~(total.isfinite() & (total > 0))).nonzero()[0])
        raise ValueError(
            f"every direction needs a finite length above zero, but row {row} has squared length "
            f"{float(total[row])}. Leave it out."
        )
    parts = [squares[:, component.columns].sum(1) for component in components.values()]
    return torch.stack(parts, dim=1) / total[:, None]
