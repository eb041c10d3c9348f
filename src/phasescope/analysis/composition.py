"""Composition of attention heads: how much a head reads what an earlier one writes.

Letters: n heads, d width of the model, h width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from phasescope.analysis.head_changes import product_norm


@dataclass(frozen=True, eq=False)
class Composition:
    """Entry (later, earlier) is between 0 and 1; those of heads that cannot compose are NaN."""

    q: Float64[Tensor, "n n"]
    """The later head's queries are made of what the earlier one writes."""
    k: Float64[Tensor, "n n"]
    """Its keys are; what a previous-token head does for an induction head."""
    v: Float64[Tensor, "n n"]
    """Its values are."""


def composition(
    Q: Float[Tensor, "n d h"],
    K: Float[Tensor, "n d h"],
    V: Float[Tensor, "n d h"],
    O: Float[Tensor, "n h d"],  # noqa: E741 - the field's name
    layers: list[int],
) -> Composition:
    r"""Q-, K- and V-composition of all pairs of heads, without d × d matrices.

    With $W_{QK} = W_Q W_K^\top$ and $W_{OV} = W_V W_O$ (inputs on the left) of later and earlier
    head: $\|W_{OV} W_Q W_K^\top\| / (\|W_{OV}\|\,\|W_{QK}\|)$ for Q, $\|W_{OV} W_K W_Q^\top\|$ for
    K, and $\|W_{OV}^{\text{earlier}} W_{OV}^{\text{later}}\|$ for V, Frobenius norms. Random
    matrices have about $1/\sqrt{d}$ each, not 0: compare with the values at initialisation.

    Args:
        Q: Query matrices.
        K: Key matrices.
        V: Value matrices.
        O: Output matrices.
        layers: Layer of every head.

    Returns:
        The three tables.

    Example:
        >>> eye = torch.eye(4)[None].repeat(2, 1, 1)
        >>> found = composition(eye, eye, eye, eye, [0, 1])
        >>> found.k[1, 0].item(), found.k[0, 1].isnan().item()
        (0.5, True)

    References:
        Elhage et al. (2021), "A mathematical framework for transformer circuits", section
        "composition" (there the average of random matrices is subtracted in figures).
    """
    Q, K, V, O = (X.detach().double() for X in (Q, K, V, O))  # noqa: E741
    qk, ov = product_norm(Q, K), product_norm(V, O.mT)
    n = len(layers)
    tables = [torch.full((n, n), torch.nan, dtype=torch.float64) for _ in range(3)]
    for i in range(n):
        for j in range(n):
            if layers[j] >= layers[i]:
                continue
            # The earlier head writes in the row space of its O.
            through = [O[j] @ Q[i] @ K[i].mT, O[j] @ K[i] @ Q[i].mT, O[j] @ V[i] @ O[i]]
            scale = [qk[i] * ov[j], qk[i] * ov[j], ov[i] * ov[j]]
            for table, right, size in zip(tables, through, scale, strict=True):
                table[i, j] = product_norm(V[j], right.mT) / size
    return Composition(*tables)
