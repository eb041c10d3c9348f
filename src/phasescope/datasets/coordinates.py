"""Coordinates in which an operation of two operands is an addition.

Axes: a, b, c tokens of the left operand, the right operand and the result; n places of a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from phasescope.datasets.factors import CyclicFactors, cyclic_factors
from phasescope.datasets.groups import FiniteGroup
from phasescope.datasets.residues import inverses, powers, smallest_root, units

Operation = Literal["add", "subtract", "multiply", "divide"]
OPERATIONS: tuple[Operation, ...] = ("add", "subtract", "multiply", "divide")
Basis = Literal["additive", "multiplicative"]


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Tokens in the order of a commutative group, for both operands and the result.

    The group is a product of cyclic ones; place i stands for the exponents that row-major counting
    over `orders` gives. Where a task is an addition in these coordinates,
    ``label(left[i], right[j]) == result[i + j]`` with the sum taken in the group. Tokens that do
    not occur, such as 0 under multiplication, have no place.

    Example:
        >>> coordinates = modular_coordinates("multiply", 5)
        >>> coordinates.left.tolist(), coordinates.places("left", 5).tolist()
        ([1, 2, 4, 3], [-1, 0, 1, 3, 2])
    """

    basis: str
    """``"additive"``, ``"multiplicative"``, or ``"group"`` for a group given by its table."""
    orders: tuple[int, ...]
    """Orders of the cyclic factors; one factor for a cyclic group."""
    generators: tuple[int, ...]
    """A generator of each factor, as an element of the group: the primitive root for units."""
    left: Int64[Tensor, " n"]
    """Token of the left operand at every place."""
    right: Int64[Tensor, " n"]
    """Token of the right operand at every place: inverted where the task subtracts or divides."""
    result: Int64[Tensor, " n"]
    """Token of the result at every place."""

    def __len__(self) -> int:
        """Number of places, which is the order of the group."""
        return len(self.left)

    def places(
        self, side: Literal["left", "right", "result"], n_tokens: int
    ) -> Int64[Tensor, " n_tokens"]:
        """Place of every token on one side; -1 for a token without place.

        Args:
            side: Which of the three orders.
            n_tokens: Number of tokens, "=" not counted.
        """
        tokens: Tensor = getattr(self, side)
        places = torch.full((n_tokens,), -1, dtype=torch.int64)
        places[tokens] = torch.arange(len(tokens))
        return places

    def on_pairs(self, values: Shaped[Tensor, "a b *rest"]) -> Shaped[Tensor, "n n *rest"]:
        """Values for every pair of operands, in the order of the places.

        Args:
            values: For all pairs of tokens, such as activations.
        """
        left, right = self.left.to(values.device), self.right.to(values.device)
        places = torch.arange(values.shape[0], device=values.device)
        if values.shape[0] == values.shape[1] and torch.equal(left, places):
            return values if torch.equal(right, places) else values[:, right]
        return values[left[:, None], right]

    def on_logits(self, logits: Shaped[Tensor, "a b c"]) -> Shaped[Tensor, "n n n"]:
        """Logits for every pair of operands and every result, in the order of the places.

        Args:
            logits: For all pairs of tokens; columns after the last token, such as "=", are left
                out.
        """
        return self.on_pairs(logits)[..., self.result.to(logits.device)]


def modular_coordinates(
    operation: Operation, n: int, basis: Basis | None = None, *, root: int | None = None
) -> Coordinates:
    """Coordinates of arithmetic modulo n.

    Additive: place i is the token i. Multiplicative: place i is g^i modulo n, with the smallest
    primitive root g; for a modulus without one, the units as a product of cyclic groups. The right
    operand is inverted (−j, g^−j) where the operation subtracts or divides, in either basis.

    The basis that is not the operation's own serves as a control.

    Args:
        operation: ``"add"``, ``"subtract"``, ``"multiply"`` or ``"divide"``.
        n: The modulus.
        basis: Which one; default the one in which the operation is an addition.
        root: Another primitive root; it permutes the frequencies, k -> uk.

    Returns:
        The coordinates.

    Raises:
        ValueError: Another operation or basis, or `root` is not a primitive root of n.

    Example:
        >>> modular_coordinates("subtract", 5).right.tolist()
        [0, 4, 3, 2, 1]
        >>> modular_coordinates("multiply", 8).orders
        (2, 2)
    """
    check_operation(operation)
    own: Basis = "additive" if operation in ("add", "subtract") else "multiplicative"
    basis = basis or own
    if basis not in ("additive", "multiplicative"):
        raise ValueError(f"basis is 'additive' or 'multiplicative', but {basis!r} arrived.")
    inverts = operation in ("subtract", "divide")
    tokens = torch.arange(n)
    if basis == "additive":
        factors = CyclicFactors((n,), (1,), tokens)
        inverse = -tokens % n
    else:
        factors = _unit_factors(n, root)
        inverse = inverses(n)
    return _coordinates(basis, factors, inverse if inverts else tokens)


def commutative_coordinates(group: FiniteGroup) -> Coordinates:
    """Coordinates of a commutative group given by its table.

    Args:
        group: The group.

    Returns:
        Coordinates in which its product is an addition, over the fewest cyclic factors.

    Raises:
        ValueError: The group is not commutative.

    Example:
        >>> from phasescope.datasets import cyclic_group, product_group
        >>> commutative_coordinates(product_group(cyclic_group(2), cyclic_group(3))).orders
        (6,)
    """
    tokens = torch.arange(len(group))
    return _coordinates("group", cyclic_factors(group), tokens)


def check_operation(operation: str) -> None:
    """Refuse a word that names no operation.

    Raises:
        ValueError: It is none of `OPERATIONS`.
    """
    if operation not in OPERATIONS:
        raise ValueError(
            f"operation must be one of {', '.join(map(repr, OPERATIONS))}, but {operation!r} "
            "arrived. For another one, pass the table of a group to group_task."
        )


def _coordinates(
    basis: str, factors: CyclicFactors, right: Int64[Tensor, " tokens"]
) -> Coordinates:
    """The factors' elements as tokens; `right` says what the right operand has in their place."""
    left = factors.elements
    return Coordinates(basis, factors.orders, factors.generators, left, right[left], left)


def _unit_factors(n: int, root: int | None) -> CyclicFactors:
    root = smallest_root(n) if root is None else root
    if root is not None:
        elements = powers(root, n)
        return CyclicFactors((len(elements),), (root,), elements)
    tokens = torch.tensor(units(n))
    numbers = torch.zeros(n, dtype=torch.int64)
    numbers[tokens] = torch.arange(len(tokens))
    group = FiniteGroup(numbers[tokens[:, None] * tokens % n], f"units modulo {n}")
    factors = cyclic_factors(group)
    generators = tuple(int(tokens[g]) for g in factors.generators)
    return CyclicFactors(factors.orders, generators, tokens[factors.elements])
