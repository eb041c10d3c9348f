"""The cyclic factors of a finite commutative group."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from phasescope.datasets.groups import FiniteGroup
from phasescope.datasets.residues import prime_factors


@dataclass(frozen=True, eq=False)
class CyclicFactors:
    """A commutative group as a product of cyclic ones."""

    orders: tuple[int, ...]
    """Number of elements of every factor, each divisible by the next; their product is n."""
    generators: tuple[int, ...]
    """One element for each factor, that generates it."""
    elements: Int64[Tensor, " n"]
    """The element at every index; the index of the exponents (i, j, ...) is row-major over
    `orders`, and the element there is g^i h^j ..."""


def cyclic_factors(group: FiniteGroup) -> CyclicFactors:
    """The fewest cyclic groups whose product a commutative group is, with generators.

    The smallest element that will do is taken as each generator, so a cyclic group gets its
    smallest generator.

    Args:
        group: Commutative.

    Returns:
        Orders, generators, and the elements in the order of their exponents.

    Raises:
        ValueError: The group is not commutative.

    Example:
        >>> from phasescope.datasets import cyclic_group, product_group
        >>> factors = cyclic_factors(product_group(cyclic_group(2), cyclic_group(4)))
        >>> factors.orders, factors.generators
        ((4, 2), (1, 4))

    References:
        Structure theorem of finite abelian groups, e.g. Lang, Algebra, chapter I, theorem 8.2: in a
        commutative p-group an element of largest order generates a direct factor.
    """
    if not group.is_commutative:
        a, b = (group.table != group.table.T).nonzero()[0].tolist()
        raise ValueError(
            f"only a commutative group is a product of cyclic ones, but in {group.name!r} "
            f"{a}·{b} = {int(group.table[a, b])} and {b}·{a} = {int(group.table[b, a])}. Analyse "
            "it by its irreducible representations (real_irreps)."
        )
    n = len(group)
    full = (group.orders == n).nonzero()
    generators = [int(full[0])] if len(full) else _invariant_generators(group)
    orders = tuple(int(group.orders[g]) for g in generators)
    elements = torch.tensor([group.identity])
    for generator in generators:
        powers = torch.tensor(group.powers(generator))
        elements = group.table[elements[:, None], powers].flatten()
    return CyclicFactors(orders, tuple(generators), elements)


def _invariant_generators(group: FiniteGroup) -> list[int]:
    """Generators of factors whose orders divide one another, the largest first."""
    by_prime = [_primary_generators(group, p) for p in prime_factors(len(group))]
    combined = []
    for parts in itertools.zip_longest(*by_prime, fillvalue=group.identity):
        generator = group.identity
        for part in parts:
            generator = int(group.table[generator, part])
        combined.append(generator)
    return combined


def _primary_generators(group: FiniteGroup, p: int) -> list[int]:
    """Generators of the cyclic factors of the part whose orders are powers of p."""
    n, part = len(group), 1
    while n % (part * p) == 0:
        part *= p
    within = [a for a in range(n) if part % int(group.orders[a]) == 0]
    within.sort(key=lambda a: -int(group.orders[a]))  # stable: the smallest of equals first
    found: list[int] = []
    reached = {group.identity}
    for a in within:
        if len(reached) == part:
            break
        powers = group.powers(a)
        if reached.isdisjoint(powers[1:]) and len(powers) > 1:
            found.append(a)
            reached = {int(group.table[x, y]) for x in reached for y in powers}
    return found
