"""Finite groups given by their tables.

Axes: n elements.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
import torch
from jaxtyping import Int64, Integer
from torch import Tensor

# The table of a group, as it may arrive.
Table = Integer[Tensor, "n n"] | Integer[np.ndarray, "n n"] | Sequence[Sequence[int]]


@dataclass(frozen=True, eq=False, init=False)
class FiniteGroup:
    """A finite group, its elements numbered from 0, by its multiplication table.

    The table is checked: every row and column holds every element once, one element is the
    identity, and the product is associative (Light's test on a set of generators, so that groups
    of a thousand elements cost little).

    Args:
        table: `table[a, b]` is the product ab: a tensor or an array of any integer type, or lists.
        name: What the group is called in figures and errors.

    Raises:
        ValueError: The table is not that of a group; the message shows where it fails.

    Example:
        >>> group = FiniteGroup([[0, 1, 2], [1, 2, 0], [2, 0, 1]])
        >>> len(group), group.identity, group.inverses.tolist(), group.is_commutative
        (3, 0, [0, 2, 1], True)
    """

    table: Int64[Tensor, "n n"]
    name: str = "group"

    def __init__(self, table: Table, name: str = "group") -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "table", _square(table, name))
        self._check()

    def _check(self) -> None:
        table, n = self.table, len(self.table)
        elements = torch.arange(n)
        for axis, what in ((1, "row"), (0, "column")):
            wrong = (table.sort(dim=axis).values != elements.expand(n, n).movedim(1, axis)).any(
                axis
            )
            if wrong.any():
                raise ValueError(
                    f"every {what} of a group's table must hold each of the elements 0 to {n - 1} "
                    f"once, but {what} {int(wrong.nonzero()[0])} of {self.name!r} does not. Number "
                    "the elements from 0, and check that the operation is closed and has inverses."
                )
        neutral = (table == elements).all(1) & (elements == table.T).all(1)
        if not neutral.any():
            raise ValueError(
                f"a group must have an element e with ea = ae = a for every a, but {self.name!r} "
                "has none. Subtraction and division have none: take the group itself, and give "
                "the second operand inverted."
            )
        for g in _magma_generators(table):
            unequal = table[table[:, g]] != table[:, table[g]]
            if unequal.any():
                a, b = unequal.nonzero()[0].tolist()
                raise ValueError(
                    f"the product of a group must be associative, but in {self.name!r} "
                    f"({a}·{g})·{b} = {int(table[table[a, g], b])} and {a}·({g}·{b}) = "
                    f"{int(table[a, table[g, b]])}."
                )

    def __len__(self) -> int:
        """Number of elements."""
        return len(self.table)

    @functools.cached_property
    def identity(self) -> int:
        """The element e with ea = ae = a."""
        return int((self.table.diagonal() == torch.arange(len(self))).nonzero()[0])

    @functools.cached_property
    def inverses(self) -> Int64[Tensor, " n"]:
        """The inverse of every element."""
        return (self.table == self.identity).int().argmax(1)

    @functools.cached_property
    def orders(self) -> Int64[Tensor, " n"]:
        """Smallest k >= 1 with a^k = e, for every element."""
        power = elements = torch.arange(len(self))
        orders = torch.zeros_like(elements)
        for k in range(1, len(self) + 1):
            orders[(power == self.identity) & (orders == 0)] = k
            power = self.table[power, elements]
        return orders

    @property
    def is_commutative(self) -> bool:
        """Whether ab = ba for all elements."""
        return bool((self.table == self.table.T).all())

    def powers(self, element: int) -> list[int]:
        """The identity, the element, its square and so on, each once."""
        found = [self.identity]
        while (following := int(self.table[found[-1], element])) != self.identity:
            found.append(following)
        return found


def cyclic_group(n: int) -> FiniteGroup:
    """The integers 0 to n − 1 under addition modulo n.

    Example:
        >>> cyclic_group(3).table.tolist()
        [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
    """
    _check_size(n, 1, "elements")
    elements = torch.arange(n)
    return FiniteGroup((elements[:, None] + elements) % n, f"Z{n}")


def symmetric_group(n: int) -> FiniteGroup:
    """All permutations of n things; element i is the i-th in lexicographic order.

    The product ab applies b first: (ab)(x) = a(b(x)).

    Example:
        >>> len(symmetric_group(4)), symmetric_group(3).is_commutative
        (24, False)
    """
    _check_size(n, 1, "things")
    return _permutation_group(list(itertools.permutations(range(n))), f"S{n}")


def alternating_group(n: int) -> FiniteGroup:
    """The even permutations of n things, in lexicographic order.

    Example:
        >>> len(alternating_group(5))
        60
    """
    _check_size(n, 1, "things")
    even = [p for p in itertools.permutations(range(n)) if _is_even(p)]
    return _permutation_group(even, f"A{n}")


def dihedral_group(n: int) -> FiniteGroup:
    """The 2n symmetries of a regular n-gon: element i turns by i/n, element n + i turns and flips.

    Example:
        >>> dihedral_group(3).orders.tolist()
        [1, 3, 3, 2, 2, 2]
    """
    _check_size(n, 1, "corners")
    flip, turn = torch.arange(2 * n) // n, torch.arange(2 * n) % n
    # r^i s^f · r^j s^g = r^(i ± j) s^(f + g)
    sign = 1 - 2 * flip[:, None]
    table = (turn[:, None] + sign * turn) % n + n * ((flip[:, None] + flip) % 2)
    return FiniteGroup(table, f"D{n}")


def product_group(first: FiniteGroup, second: FiniteGroup) -> FiniteGroup:
    """Pairs of elements of two groups; (a, b) is element a·len(second) + b.

    Example:
        >>> product_group(cyclic_group(2), cyclic_group(2)).orders.tolist()
        [1, 2, 2, 2]
    """
    n, m = len(first), len(second)
    table = first.table[:, None, :, None] * m + second.table[None, :, None, :]
    return FiniteGroup(table.reshape(n * m, n * m), f"{first.name} x {second.name}")


def check_integer(value: SupportsIndex, what: str) -> int:
    """The same number as a Python integer.

    Args:
        value: Any kind of integer.
        what: How a message calls it.

    Raises:
        TypeError: It is of another kind, even if whole.

    Example:
        >>> check_integer(np.int64(7), "the modulus")
        7
    """
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(
            f"{what} must be an integer, but {value!r} arrived. Convert a whole number with int()."
        ) from None


def _check_size(n: int, least: int, what: str) -> None:
    if check_integer(n, f"the number of {what}") < least:
        raise ValueError(f"at least {least} {what} are required, but {n} arrived.")


def _square(table: Table, name: str) -> Int64[Tensor, "n n"]:
    """The table as a tensor, if it is a square matrix of integers."""
    try:
        found = table.cpu() if isinstance(table, Tensor) else np.asarray(table)
    except ValueError as error:
        raise ValueError(
            "the table of a group must be a square matrix of integers, but the rows of "
            f"{name!r} are not of one length. Give every product ab, those with ab = a too."
        ) from error
    n = len(found) if found.ndim else 0
    if isinstance(found, Tensor):
        whole = not (found.is_floating_point() or found.is_complex() or found.dtype == torch.bool)
    else:
        whole = found.dtype.kind in "iu"
    if not whole or tuple(found.shape) != (n, n) or n == 0:
        raise ValueError(
            f"the table of a group must be a square matrix of integers, but that of {name!r} has "
            f"shape {tuple(found.shape)} and dtype {found.dtype}. Number the elements from 0, and "
            "give the number of ab in row a, column b."
        )
    return found.long() if isinstance(found, Tensor) else torch.from_numpy(found.astype(np.int64))


def _permutation_group(permutations: list[tuple[int, ...]], name: str) -> FiniteGroup:
    rows = torch.tensor(permutations)
    number = {p: i for i, p in enumerate(permutations)}
    # rows[a][rows[b]]: b first, then a.
    products = (rows[a][rows] for a in range(len(rows)))
    table = [[number[tuple(p)] for p in product.tolist()] for product in products]
    return FiniteGroup(torch.tensor(table), name)


def _is_even(permutation: tuple[int, ...]) -> bool:
    pairs = itertools.combinations(permutation, 2)
    return sum(a > b for a, b in pairs) % 2 == 0


def _magma_generators(table: Int64[Tensor, "n n"]) -> Iterator[int]:
    """Elements whose products, however bracketed, are all elements; the first ones that do."""
    inside = torch.zeros(len(table), dtype=torch.bool)
    while not inside.all():
        yield (generator := int((~inside).nonzero()[0]))
        inside[generator] = True
        size = 0
        while size < int(inside.sum()):
            size = int(inside.sum())
            members = inside.nonzero().flatten()
            inside[table[members[:, None], members].flatten()] = True
