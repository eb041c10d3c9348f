"""Real Fourier bases of commutative groups.

Letters: n places of the group, f rows of the basis, k frequencies (0 is the constant).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class FourierBasis:
    """An orthonormal basis of real functions on a commutative group: cosines and sines.

    The group is a product of cyclic ones, and places are counted row-major over `orders`, as in
    `phasescope.datasets.Coordinates`. A frequency is a pair of conjugate characters: a cosine and
    a sine. A character that is its own conjugate, such as $(-1)^x$ for even n, is one row alone.
    """

    orders: tuple[int, ...]
    """Orders of the cyclic factors."""
    rows: Float64[Tensor, "n n"]
    """The basis: constant, cos 1, sin 1, cos 2, ...; ``rows @ rows.T`` is the identity."""
    frequency: Int64[Tensor, " n"]
    """Number of the frequency that each row belongs to; 0 for the constant."""
    exponents: tuple[tuple[int, ...], ...]
    """For every frequency, the exponent of each factor: ``(k,)`` in a cyclic group."""

    def __len__(self) -> int:
        """Order of the group n."""
        return len(self.rows)

    @property
    def n_frequencies(self) -> int:
        """Number of frequencies without the constant: ⌊n/2⌋ in a cyclic group."""
        return len(self.exponents) - 1

    def rows_of(self, frequencies: Sequence[int]) -> Int64[Tensor, " f"]:
        """Positions of the rows that belong to some frequencies.

        Args:
            frequencies: Their numbers; 0 is the constant.

        Raises:
            ValueError: One of them does not exist.
        """
        unknown = [k for k in frequencies if not 0 <= k <= self.n_frequencies]
        if unknown:
            raise ValueError(
                f"frequencies of a group with orders {self.orders} are the numbers 0 to "
                f"{self.n_frequencies}, but {unknown} arrived. Fold k to min(k, n − k)."
            )
        chosen = torch.tensor(sorted(set(frequencies)), dtype=torch.int64)
        return torch.isin(self.frequency, chosen).nonzero().flatten()

    def multiple(self, frequency: int, factor: int) -> int:
        """Number of the frequency `factor` times another one, folded: its harmonic.

        Args:
            frequency: Number of a frequency.
            factor: 2 for the second harmonic.
        """
        pairs = zip(self.exponents[frequency], self.orders, strict=True)
        return self._number[tuple(factor * e % order for e, order in pairs)]

    def label(self, frequency: int) -> str:
        """How figures call a frequency: its exponent, or all of them in a product of groups.

        Args:
            frequency: Its number.
        """
        return ",".join(map(str, self.exponents[frequency]))

    @functools.cached_property
    def sums(self) -> Int64[Tensor, "n n"]:
        """Place of the sum i + j of two places."""
        return self._combined(1)

    @functools.cached_property
    def differences(self) -> Int64[Tensor, "n n"]:
        """Place of the difference i − j of two places."""
        return self._combined(-1)

    def _combined(self, sign: int) -> Int64[Tensor, "n n"]:
        digits, orders = _digits(self.orders), torch.tensor(self.orders)
        combined = (digits[:, None] + sign * digits[None]) % orders
        return (combined * _strides(self.orders)).sum(-1)

    @functools.cached_property
    def _number(self) -> dict[tuple[int, ...], int]:
        numbers = {e: k for k, e in enumerate(self.exponents)}
        return {_negative(e, self.orders): k for e, k in numbers.items()} | numbers


def fourier_basis(orders: Sequence[int]) -> FourierBasis:
    r"""Orthonormal real Fourier basis of a product of cyclic groups.

    Rows for a cyclic group of order n: $1/\sqrt{n}$; for k = 1 to ⌊(n−1)/2⌋
    $\sqrt{2/n}\cos(2\pi kx/n)$ and the sine; for even n also $(-1)^x/\sqrt{n}$, which belongs to
    the frequency n/2. Without that last row a basis of even order is not complete: under
    multiplication modulo a prime n = p − 1 is always even, and the row is the Legendre symbol.

    Args:
        orders: Orders of the factors, such as ``(113,)`` or `Coordinates.orders`.

    Returns:
        The basis, float64, on the CPU.

    Raises:
        ValueError: There are no factors, or one has an order below 1.

    Example:
        >>> basis = fourier_basis((6,))
        >>> basis.frequency.tolist(), basis.exponents
        ([0, 1, 1, 2, 2, 3], ((0,), (1,), (2,), (3,)))
        >>> torch.allclose(basis.rows @ basis.rows.T, torch.eye(6, dtype=torch.float64))
        True
    """
    orders = tuple(orders)
    if not orders or min(orders) < 1:
        raise ValueError(
            f"orders must be those of cyclic factors, at least one and each at least 1, but "
            f"{orders} arrived. For arithmetic modulo n pass Coordinates.orders."
        )
    digits = _digits(orders)
    period = math.lcm(*orders)
    weights = torch.tensor([period // order for order in orders])
    rows, frequency, exponents = [], [], []
    for exponent in itertools.product(*map(range, orders)):
        conjugate = _negative(exponent, orders)
        if conjugate < exponent:
            continue
        # Multiples of 2π/period, reduced as whole numbers: no angle is large.
        turns = (digits * torch.tensor(exponent) * weights).sum(-1) % period
        angle = turns.double() * (2 * math.pi / period)
        waves = [angle.cos()] if conjugate == exponent else [angle.cos(), angle.sin()]
        rows += [wave / wave.norm() for wave in waves]
        frequency += [len(exponents)] * len(waves)
        exponents.append(exponent)
    return FourierBasis(orders, torch.stack(rows), torch.tensor(frequency), tuple(exponents))


def fourier_components(
    basis: FourierBasis, values: Float[Tensor, "n *rest"]
) -> Float64[Tensor, "n *rest"]:
    """Components of functions on the group: the transform of the first axis.

    Args:
        basis: Basis of the group.
        values: One value, or more, for every place.

    Returns:
        One component for every row of the basis; the sum of squares is unchanged.

    Raises:
        ValueError: The first axis has another length than the group.

    Example:
        >>> basis = fourier_basis((4,))
        >>> [round(x, 6) + 0.0 for x in fourier_components(basis, torch.ones(4)).tolist()]
        [2.0, 0.0, 0.0, 0.0]
    """
    check_axes(basis, values, 1)
    rows = basis.rows.to(values.device)
    return (
        (rows @ values.double().flatten(1)).unflatten(1, values.shape[1:])
        if (values.ndim > 1)
        else rows @ values.double()
    )


def component_norms(basis: FourierBasis, values: Float[Tensor, "n *rest"]) -> Float64[Tensor, " n"]:
    """Norm of every Fourier component over all other axes: the spectrum of an embedding.

    Args:
        basis: Basis of the group.
        values: Such as W_E in the order of the places, [n, d_model].

    Returns:
        One norm for every row of the basis, cosines and sines apart.

    Example:
        >>> basis = fourier_basis((5,))
        >>> [round(x, 6) + 0.0 for x in component_norms(basis, basis.rows[1:3].T).tolist()]
        [0.0, 1.0, 1.0, 0.0, 0.0]

    References:
        Nanda et al. (2023), "Progress measures for grokking via mechanistic interpretability",
        section 4.2, arXiv:2301.05217.
    """
    components = fourier_components(basis, values)
    return components.flatten(1).norm(dim=1) if components.ndim > 1 else components.abs()


def frequency_power(
    basis: FourierBasis, values: Float[Tensor, "n *rest"]
) -> Float64[Tensor, "k *rest"]:
    """Squared components summed over the one or two rows of every frequency.

    Independent of where cosines and sines begin, unlike `component_norms`.

    Args:
        basis: Basis of the group.
        values: One value, or more, for every place.

    Returns:
        Power of frequency 0 (the constant), 1, 2, ...; it sums to the sum of squares.

    Example:
        >>> basis = fourier_basis((5,))
        >>> [round(x, 6) + 0.0 for x in frequency_power(basis, basis.rows[1]).tolist()]
        [0.0, 1.0, 0.0]
    """
    squares = fourier_components(basis, values).square()
    return by_frequency(basis, squares)


def by_frequency(
    basis: FourierBasis, squares: Float64[Tensor, "n *rest"]
) -> Float64[Tensor, "k *rest"]:
    """Sums over the rows of the basis that belong to the same frequency."""
    out = squares.new_zeros(basis.n_frequencies + 1, *squares.shape[1:])
    return out.index_add_(0, basis.frequency.to(squares.device), squares)


def check_axes(basis: FourierBasis, values: Tensor, n_axes: int) -> None:
    """Refuse values whose first axes do not run over the group.

    Raises:
        ValueError: They have other lengths.
    """
    n = len(basis)
    if values.ndim < n_axes or any(size != n for size in values.shape[:n_axes]):
        raise ValueError(
            f"the first {n_axes} axes must run over the {n} places of the group with orders "
            f"{basis.orders}, but the values have the shape {tuple(values.shape)}. Bring them into "
            "the order of the places first: Coordinates.on_pairs, Coordinates.on_logits, or "
            "W_E[coordinates.left]."
        )


def _digits(orders: tuple[int, ...]) -> Int64[Tensor, "n factors"]:
    return torch.tensor(list(itertools.product(*map(range, orders))))


def _strides(orders: tuple[int, ...]) -> Int64[Tensor, " factors"]:
    return torch.tensor([math.prod(orders[i + 1 :]) for i in range(len(orders))])


def _negative(exponent: tuple[int, ...], orders: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-e % order for e, order in zip(exponent, orders, strict=True))
