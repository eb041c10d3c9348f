"""Frequencies as functions of both operands, to take them out of what a network computes.

Letters: n places of a group, w waves.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float64
from torch import Tensor

from phasescope.analysis.grokking.basis import FourierBasis

Waves = Literal["block", "sum"]


def pair_waves(
    basis: FourierBasis, frequency: int, which: Waves = "block"
) -> Float64[Tensor, "w nn"]:
    """Orthonormal functions of pairs of places that make up one frequency.

    ``"block"`` are the products of (constant, cos k, sin k) of one operand with those of the other,
    without the constant: what `neuron_purity` calls the frequency's. ``"sum"`` are cos and sin of
    w_k(i + j) alone, what `excluded_logits` takes out. The mean of each over all pairs is zero.

    Args:
        basis: Basis of the group.
        frequency: Its number, not 0.
        which: Which functions.

    Returns:
        A row for each function, over pairs i·n + j: 8 for a block, 2 for the sum (3 and 1 for a
        frequency that is its own conjugate).

    Raises:
        ValueError: The frequency does not exist, or `which` is another word.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((5,))
        >>> pair_waves(basis, 2).shape, pair_waves(basis, 2, "sum").shape
        (torch.Size([8, 25]), torch.Size([2, 25]))
    """
    if which not in get_args(Waves) or frequency == 0:
        raise ValueError(
            f"waves are those of a frequency from 1 on, 'block' or 'sum', but frequency "
            f"{frequency} and {which!r} arrived."
        )
    if which == "sum":
        own = basis.rows[basis.rows_of([frequency])]
        return own[:, basis.sums].flatten(1) / math.sqrt(len(basis))
    rows = basis.rows[basis.rows_of([0, frequency])]
    return torch.einsum("fi,gj->fgij", rows, rows).flatten(2).flatten(0, 1)[1:]
