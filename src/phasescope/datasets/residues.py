"""Units modulo n: primitive roots, discrete logarithms, inverses."""

from __future__ import annotations

import functools
import math

import torch
from jaxtyping import Int64
from torch import Tensor


def primitive_root(n: int) -> int:
    """Smallest g whose powers are all units modulo n.

    Args:
        n: 2, 4, a power of an odd prime, or twice one: no other modulus has one.

    Returns:
        Between 1 and n − 1.

    Raises:
        ValueError: The modulus has no primitive root.

    Example:
        >>> primitive_root(113), primitive_root(59)
        (3, 2)
    """
    root = smallest_root(n)
    if root is None:
        raise ValueError(
            "a modulus with a primitive root (2, 4, p^k or 2p^k with an odd prime p) is required, "
            f"but {n} has none: its units are a product of several cyclic groups. "
            f"modular_coordinates('multiply', {n}) gives their coordinates."
        )
    return root


def discrete_logarithms(n: int, root: int | None = None) -> Int64[Tensor, " n"]:
    """The i with g^i = a modulo n, for every a from 0 to n − 1; -1 where there is none.

    Args:
        n: A modulus with a primitive root.
        root: The base g; default the smallest primitive root.

    Returns:
        Between 0 and φ(n) − 1 for units, else -1.

    Raises:
        ValueError: The modulus has no primitive root, or `root` is not one.

    Example:
        >>> discrete_logarithms(5).tolist()
        [-1, 0, 1, 3, 2]
    """
    elements = powers(primitive_root(n) if root is None else root, n)
    logarithms = torch.full((n,), -1)
    logarithms[elements] = torch.arange(len(elements))
    return logarithms


def smallest_root(n: int) -> int | None:
    """The smallest primitive root of n; None if it has none."""
    order = len(units(n))
    return next((g for g in units(n) if _order(g, n) == order), None)


def powers(root: int, n: int) -> Int64[Tensor, " phi"]:
    """All units modulo n as the powers of a primitive root, from the 0th on.

    Raises:
        ValueError: It is not a primitive root.
    """
    order = len(units(n))
    if math.gcd(root, n) != 1 or _order(root, n) != order:
        raise ValueError(
            f"the root must be a primitive root of {n}, whose powers are all {order} units, but "
            f"{root} is not one. Leave it out for the smallest."
        )
    found = [1]
    for _ in range(order - 1):
        found.append(found[-1] * root % n)
    return torch.tensor(found)


@functools.cache
def units(n: int) -> tuple[int, ...]:
    """The numbers from 1 to n − 1 that have no divisor in common with n.

    Raises:
        ValueError: The modulus is below 2.
    """
    if n < 2:
        raise ValueError(f"the modulus must be at least 2, but it is {n}.")
    return tuple(a for a in range(1, n) if math.gcd(a, n) == 1)


def inverses(n: int) -> Int64[Tensor, " n"]:
    """The inverse of every unit modulo n; 0 for the others."""
    return torch.tensor([pow(a, -1, n) if math.gcd(a, n) == 1 else 0 for a in range(n)])


def prime_factors(n: int) -> list[int]:
    """The primes that divide n, each once."""
    found, p = [], 2
    while p <= math.isqrt(n):
        if n % p == 0:
            found.append(p)
            while n % p == 0:
                n //= p
        p += 1
    return [*found, n] if n > 1 else found


def _order(a: int, n: int) -> int:
    """Smallest k >= 1 with a^k = 1 modulo n, for a unit a."""
    power, k = a % n, 1
    while power != 1:
        power, k = power * a % n, k + 1
    return k
