"""What depends on the sum of the operands alone, and what on their difference.

Letters: i, j places of the operands, n places of a group, s their sum; k frequencies, c results.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from phasescope.analysis.grokking.basis import FourierBasis, by_frequency, check_axes


@dataclass(frozen=True, eq=False)
class DirectionEnergy:
    """Where the variance over pairs lies: along waves in the sum or in the difference."""

    sum: Float64[Tensor, " k"]
    """Energy in cos and sin of w_k(i + j) for every frequency; 0 for the constant."""
    difference: Float64[Tensor, " k"]
    """The same for w_k(i − j): a control in a network that adds, a sign of absolute cosines."""
    total: float
    """Sum of squares about the mean over pairs; 0 if it is rounding alone."""

    @property
    def sum_share(self) -> float:
        """Share of the variance over pairs that is a function of i + j alone; NaN without any."""
        return self.sum.sum().item() / self.total if self.total > 0 else math.nan

    @property
    def difference_share(self) -> float:
        """Share of the variance over pairs that is a function of i − j alone; NaN without any."""
        return self.difference.sum().item() / self.total if self.total > 0 else math.nan


def sum_profile(
    basis: FourierBasis, values: Float[Tensor, "n n *rest"]
) -> Float64[Tensor, "n *rest"]:
    """Mean over all pairs with the same sum: the best function of i + j.

    Args:
        basis: Basis of the group.
        values: For every pair of operands, in the order of the places.

    Returns:
        One value for every sum.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> sum_profile(fourier_basis((2,)), torch.tensor([[0.0, 1.0], [3.0, 4.0]])).tolist()
        [2.0, 2.0]
    """
    check_axes(basis, values, 2)
    return _means(values, basis.sums)


def difference_profile(
    basis: FourierBasis, values: Float[Tensor, "n n *rest"]
) -> Float64[Tensor, "n *rest"]:
    """Mean over all pairs with the same difference i − j.

    Args:
        basis: Basis of the group.
        values: For every pair of operands, in the order of the places.

    Returns:
        One value for every difference.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> difference_profile(fourier_basis((2,)), torch.tensor([[0.0, 1.0], [3.0, 4.0]])).tolist()
        [2.0, 2.0]
    """
    check_axes(basis, values, 2)
    return _means(values, basis.differences)


def direction_energy(basis: FourierBasis, values: Float[Tensor, "n n *rest"]) -> DirectionEnergy:
    r"""Energy of pairs' values along waves in i + j, beside that along waves in i − j.

    The unit directions on the n² pairs are $\cos(w_k(i+j))$ and $\sin(w_k(i+j))$ over their norms
    $n/\sqrt2$ (n for a character that is its own conjugate, whose sine vanishes).

    Args:
        basis: Basis of the group.
        values: Logits or activations of every pair, in the order of the places.

    Returns:
        Energies by frequency.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((5,))
        >>> wave = basis.rows[1][basis.sums]
        >>> energy = direction_energy(basis, wave)
        >>> round(energy.sum_share, 6), round(energy.difference_share, 6)
        (1.0, 0.0)
    """
    check_axes(basis, values, 2)
    n = len(basis)
    rows = basis.rows.to(values.device)
    mean = values.double().mean((0, 1))

    def energies(profile: Tensor) -> Tensor:
        squares = (rows @ (profile - mean).reshape(n, -1)).square().sum(1) * n
        power = by_frequency(basis, squares)
        return power.index_fill_(0, torch.tensor(0, device=power.device), 0.0)

    total = (values.double() - mean).square().sum().item()
    return DirectionEnergy(
        energies(sum_profile(basis, values)),
        energies(difference_profile(basis, values)),
        total if total > 1e-24 * n * n * mean.square().sum().item() else 0.0,
    )


def on_sums(basis: FourierBasis, profile: Float[Tensor, "n *rest"]) -> Float[Tensor, "n n *rest"]:
    """A function of the sum, for every pair: ``profile[i + j]``.

    Args:
        basis: Basis of the group.
        profile: One value for every sum.

    Returns:
        Values for all pairs.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> on_sums(fourier_basis((2,)), torch.tensor([5.0, 6.0])).tolist()
        [[5.0, 6.0], [6.0, 5.0]]
    """
    return profile[basis.sums.to(profile.device)]


def project_profile(
    basis: FourierBasis, profile: Float64[Tensor, "n *rest"], frequencies: Sequence[int]
) -> Float64[Tensor, "n *rest"]:
    """The part of a function on the group that lies in some frequencies.

    Args:
        basis: Basis of the group.
        profile: One value, or more, for every place.
        frequencies: Their numbers.

    Returns:
        The projection, in the shape of the profile.

    Raises:
        ValueError: A frequency does not exist.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((5,))
        >>> projected = project_profile(basis, basis.rows[1] + basis.rows[3], [1])
        >>> torch.allclose(projected, basis.rows[1])
        True
    """
    check_axes(basis, profile, 1)
    kept = basis.rows.to(profile.device)[basis.rows_of(frequencies)]
    flat = profile.double().reshape(len(basis), -1)
    return (kept.T @ (kept @ flat)).reshape(profile.shape)


def _means(values: Tensor, groups: Tensor) -> Tensor:
    """Means over the pairs of every group, each of which has as many pairs as there are places."""
    n = values.shape[0]
    order = groups.flatten().argsort(stable=True).to(values.device)
    flat = values.flatten(0, 1)
    out = torch.zeros(n, *values.shape[2:], dtype=torch.float64, device=values.device)
    # One pair of every group at a time: no second copy of the values.
    for members in order.unflatten(0, (n, n)).unbind(1):
        out += flat[members]
    return out / n
