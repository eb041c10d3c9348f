"""Norms of weights and of single updates, decay apart.

Letters: n places of a group, k frequencies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from phasescope.analysis.grokking.basis import FourierBasis, frequency_power


@dataclass(frozen=True)
class UpdateNorms:
    """How far one optimizer update moved a tensor, and whose doing it was."""

    total: float
    """Euclidean norm of the change."""
    optimizer: float
    """Norm of what remains once decoupled weight decay is taken out."""
    decay: float
    """Norm of the decoupled weight decay, learning rate × decay × ‖weights before‖."""
    relative: float
    """`total` over the norm of the weights before."""


def squared_norms(params: Mapping[str, Float[Tensor, "..."]]) -> dict[str, float]:
    """Sum of squared weights of every tensor, and ``"all"`` of them.

    Parameters only: a state dict's mask buffers are no weights.

    Args:
        params: Parameters by name.

    Returns:
        Sums of squares in float64.

    Example:
        >>> squared_norms({"w": torch.ones(3), "b": torch.full((1,), 2.0)})
        {'w': 3.0, 'b': 4.0, 'all': 7.0}
    """
    found = {name: w.detach().double().square().sum().item() for name, w in params.items()}
    return found | {"all": sum(found.values())}


def update_norms(
    before: Mapping[str, Float[Tensor, "..."]],
    after: Mapping[str, Float[Tensor, "..."]],
    *,
    decay: float,
) -> dict[str, UpdateNorms]:
    r"""Norms of one update by tensor, decoupled weight decay apart.

    $\Delta\theta = -\eta\lambda\,\theta + u$: with η = 1e-3 and λ = 1 decay alone moves every
    tensor by .1 % a step, which hides the optimizer's part u in a plot of ‖Δθ‖.

    Args:
        before: Parameters by name before one update. Over several updates the split would be wrong.
        after: The same after it.
        decay: Learning rate times weight decay, ηλ; 0 without decoupled decay.

    Returns:
        Norms for every tensor and for ``"all"``.

    Raises:
        KeyError: The two have different names.

    Example:
        >>> moved = update_norms({"w": torch.ones(4)}, {"w": torch.full((4,), 0.5)}, decay=0.5)
        >>> moved["w"].total, moved["w"].optimizer, moved["w"].decay
        (1.0, 0.0, 1.0)
    """
    if set(before) != set(after):
        raise KeyError(
            "both sets of parameters must have the same names, but only one has "
            f"{sorted(set(before) ^ set(after))}."
        )
    squares = {}
    for name, old in before.items():
        w = old.detach().double()
        change = after[name].detach().double() - w
        parts = (change, change + decay * w, w)
        squares[name] = torch.stack([x.square().sum() for x in parts])
    squares["all"] = torch.stack(list(squares.values())).sum(0)
    found = {}
    for name, (total, optimizer, weights) in squares.items():
        size = weights.sqrt().item()
        relative = total.sqrt().item() / size if size > 0 else float("nan")
        found[name] = UpdateNorms(
            total.sqrt().item(), optimizer.sqrt().item(), decay * size, relative
        )
    return found


def frequency_norms(basis: FourierBasis, values: Float[Tensor, "n *rest"]) -> Float64[Tensor, " k"]:
    """Norm of an embedding, or of its change, in every frequency.

    Args:
        basis: Basis of the group.
        values: W_E or ΔW_E in the order of the places.

    Returns:
        Norms of frequencies 0 (the constant), 1, 2, ...

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((5,))
        >>> [round(x, 6) + 0.0 for x in frequency_norms(basis, basis.rows[1:3].T).tolist()]
        [0.0, 1.414214, 0.0]
    """
    power = frequency_power(basis, values)
    return (power.flatten(1).sum(1) if power.ndim > 1 else power).sqrt()
