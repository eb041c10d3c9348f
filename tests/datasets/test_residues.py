"""Primitive roots, discrete logarithms and inverses against what they are by definition."""

import math

import pytest
import torch

from phasescope.datasets import discrete_logarithms, primitive_root
from phasescope.datasets.residues import inverses, prime_factors, units

# 2, 4, p^k and 2p^k with an odd prime p; nothing else has one (Gauss).
WITH_ROOT = [2, 3, 4, 5, 6, 7, 9, 10, 13, 14, 18, 25, 27, 31, 50, 53, 59, 97, 113, 121]
WITHOUT_ROOT = [8, 12, 15, 16, 20, 21, 24, 35, 63, 105]


@pytest.mark.parametrize("n", WITH_ROOT)
def test_powers_of_the_smallest_primitive_root_are_all_units_and_no_smaller_one_does(n: int):
    found = units(n)
    orders = {
        g: len({pow(g, k, n) for k in range(1, n)}) for g in found
    }  # every power of a unit is a unit
    root = primitive_root(n)
    assert orders[root] == len(found)
    assert all(order < len(found) for g, order in orders.items() if g < root)


@pytest.mark.parametrize("n", WITHOUT_ROOT)
def test_a_modulus_without_a_primitive_root_is_refused(n: int):
    with pytest.raises(ValueError, match=rf"but {n} has none: .* modular_coordinates\('multiply'"):
        primitive_root(n)
    with pytest.raises(ValueError, match=f"but {n} has none"):
        discrete_logarithms(n)


@pytest.mark.parametrize("n", [3, 5, 9, 10, 27, 113])
def test_the_logarithm_of_a_product_is_the_sum_of_the_logarithms(n: int):
    logarithms = discrete_logarithms(n)
    found = list(units(n))
    assert logarithms[found].sort().values.tolist() == list(range(len(found)))
    others = [a for a in range(n) if a not in found]
    assert logarithms[others].tolist() == [-1] * len(others)
    for a in found:
        for b in found:
            total = (int(logarithms[a]) + int(logarithms[b])) % len(found)
            assert int(logarithms[a * b % n]) == total


def test_another_primitive_root_multiplies_the_logarithms_by_a_unit():
    first, second = discrete_logarithms(59), discrete_logarithms(59, root=6)
    factor = int(second[2])  # the smallest root of 59 is 2
    assert math.gcd(factor, 58) == 1
    assert torch.equal(second[1:], first[1:] * factor % 58)


@pytest.mark.parametrize("root", [1, 4, 59, 0])
def test_what_is_no_primitive_root_is_refused(root: int):
    with pytest.raises(ValueError, match=f"must be a primitive root of 59, .*but {root} is not"):
        discrete_logarithms(59, root=root)


@pytest.mark.parametrize("n", [2, 8, 12, 53])
def test_a_unit_times_its_inverse_is_one(n: int):
    found = inverses(n)
    for a in range(n):
        assert a * int(found[a]) % n == (1 % n if math.gcd(a, n) == 1 else 0)


def test_prime_factors_are_each_named_once():
    assert [prime_factors(n) for n in (1, 2, 12, 49, 97, 360)] == [
        [], [2], [2, 3], [7], [97], [2, 3, 5],
    ]  # fmt: skip


def test_a_modulus_below_two_has_no_units():
    with pytest.raises(ValueError, match="at least 2, but it is 1"):
        units(1)
