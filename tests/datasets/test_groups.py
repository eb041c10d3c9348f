"""Finite groups: their tables satisfy the axioms, and tables that do not are refused."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from phasescope.datasets import (
    FiniteGroup,
    alternating_group,
    cyclic_factors,
    cyclic_group,
    dihedral_group,
    product_group,
    symmetric_group,
)
from phasescope.datasets.coordinates import commutative_coordinates

GROUPS = {
    "Z1": cyclic_group(1),
    "Z12": cyclic_group(12),
    "S3": symmetric_group(3),
    "S4": symmetric_group(4),
    "A4": alternating_group(4),
    "D5": dihedral_group(5),
    "D1": dihedral_group(1),
    "Z2 x Z4": product_group(cyclic_group(2), cyclic_group(4)),
    "S3 x Z2": product_group(symmetric_group(3), cyclic_group(2)),
}


@pytest.mark.parametrize("name", GROUPS)
def test_identity_inverses_and_orders_are_what_the_table_says(name: str):
    group = GROUPS[name]
    table, e = group.table, group.identity
    assert group.name == name
    for a in range(len(group)):
        assert int(table[a, e]) == int(table[e, a]) == a
        assert int(table[a, group.inverses[a]]) == e
        power, order = a, 1
        while power != e:
            power, order = int(table[power, a]), order + 1
        assert int(group.orders[a]) == order
        assert len(group.powers(a)) == order
        assert len(group) % order == 0  # Lagrange


@pytest.mark.parametrize("name", ["S4", "A4", "D5"])
def test_products_are_associative(name: str):
    t = GROUPS[name].table
    assert torch.equal(t[t], t[:, t])  # (ab)c = a(bc) for all a, b, c


def test_permutations_multiply_by_applying_the_second_one_first():
    permutations = list(itertools.permutations(range(4)))
    group = symmetric_group(4)
    for a, b in itertools.product(range(24), repeat=2):
        composed = tuple(permutations[a][permutations[b][x]] for x in range(4))
        assert permutations[int(group.table[a, b])] == composed


def test_sizes_and_commutativity():
    assert [len(g) for g in GROUPS.values()] == [1, 12, 6, 24, 12, 10, 2, 8, 12]
    commutative = [name for name, group in GROUPS.items() if group.is_commutative]
    assert commutative == ["Z1", "Z12", "D1", "Z2 x Z4"]
    assert len(alternating_group(5)) == 60


def test_a_turn_and_a_flip_of_the_dihedral_group_do_as_they_should():
    group = dihedral_group(5)
    turn, flip = 1, 5
    assert int(group.orders[turn]) == 5
    assert int(group.orders[flip]) == 2
    conjugate = group.table[group.table[flip, turn], flip]
    assert int(conjugate) == int(group.inverses[turn])


@pytest.mark.parametrize(
    ("factors", "orders"),
    [
        ((2, 3), (6,)),
        ((2, 2), (2, 2)),
        ((2, 4), (4, 2)),
        ((4, 6), (12, 2)),
        ((2, 2, 2), (2, 2, 2)),
        ((3, 9, 2), (18, 3)),
        ((1,), (1,)),
        ((7,), (7,)),
    ],
)
def test_a_commutative_group_is_the_product_of_its_cyclic_factors(
    factors: tuple[int, ...], orders: tuple[int, ...]
):
    group = cyclic_group(factors[0])
    for n in factors[1:]:
        group = product_group(group, cyclic_group(n))
    # Numbered at random, so that nothing hangs on the order of the elements.
    shuffle = torch.randperm(len(group), generator=torch.Generator().manual_seed(0))
    back = shuffle.argsort()
    group = FiniteGroup(shuffle[group.table[back][:, back]])
    found = cyclic_factors(group)
    assert found.orders == orders
    assert math.prod(found.orders) == len(group)
    assert found.elements.sort().values.tolist() == list(range(len(group)))
    # Adding exponents is multiplying elements.
    exponents = list(itertools.product(*map(range, orders)))
    number = {e: i for i, e in enumerate(exponents)}
    for (i, x), (j, y) in itertools.product(enumerate(exponents), repeat=2):
        total = number[tuple((a + b) % n for a, b, n in zip(x, y, orders, strict=True))]
        product = group.table[found.elements[i], found.elements[j]]
        assert int(product) == int(found.elements[total])


def test_a_group_that_is_not_commutative_has_no_cyclic_factors():
    with pytest.raises(ValueError, match=r"in 'S3' 1·2 = \d and 2·1 = \d. .*irreducible repr"):
        cyclic_factors(symmetric_group(3))
    with pytest.raises(ValueError, match="only a commutative group"):
        commutative_coordinates(dihedral_group(4))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([[0, 1], [1, 1]], "every row .* 0 to 1 once, but row 1 of 'bad' does not"),
        ([[0, 1], [0, 1]], "every column .* but column 0 of 'bad' does not"),
        ([[0, 2, 1], [1, 0, 2], [2, 1, 0]], "an element e .*Subtraction and division have none"),
        ([[0, 1, 2]], r"square matrix of integers, but that of 'bad' has shape \(1, 3\)"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_tables_that_are_none_of_a_group_are_refused(table: list[list[int]], message: str):
    with pytest.raises(ValueError, match=message):
        FiniteGroup(torch.tensor(table), "bad")


@pytest.mark.usefixtures("unchecked_types")
def test_a_table_of_another_kind_is_refused():
    tables: list[Any] = [
        torch.zeros(1, 1),
        torch.zeros(0, 0, dtype=torch.int64),
        torch.zeros(3).long(),
        torch.zeros(1, 1, dtype=torch.bool),
        np.zeros((1, 1)),
        [],
        [[0.0]],
        [["e"]],
        "e",
        3,
        None,
    ]
    for table in tables:
        with pytest.raises(ValueError, match="square matrix of integers, but that of 'bad' has"):
            FiniteGroup(table, "bad")
    with pytest.raises(ValueError, match="the rows of 'bad' are not of one length"):
        FiniteGroup([[0, 1], [1]], "bad")


KINDS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize(
    "table",
    [
        [[0, 1], [1, 0]],
        ((0, 1), (1, 0)),
        *(torch.tensor([[0, 1], [1, 0]], dtype=kind) for kind in KINDS),
        *(np.array([[0, 1], [1, 0]], dtype=kind) for kind in (np.int32, np.int64, np.uint64)),
    ],
)
def test_a_table_may_be_lists_an_array_or_a_tensor_of_any_integers(table: Any):
    group = FiniteGroup(table)
    assert torch.equal(group.table, cyclic_group(2).table)
    assert (group.name, group.identity, group.orders.tolist()) == ("group", 0, [1, 2])


def test_a_loop_that_is_not_associative_is_refused():
    # The smallest loop (Latin square with identity) that is no group has five elements.
    table = [[0, 1, 2, 3, 4], [1, 0, 3, 4, 2], [2, 4, 0, 1, 3], [3, 2, 4, 0, 1], [4, 3, 1, 2, 0]]
    with pytest.raises(
        ValueError, match=r"must be associative, but in 'bad' \(\d·\d\)·\d = \d and"
    ):
        FiniteGroup(torch.tensor(table), "bad")


@pytest.mark.parametrize(
    "build", [cyclic_group, symmetric_group, alternating_group, dihedral_group]
)
def test_groups_of_nothing_are_refused(build):
    with pytest.raises(ValueError, match=r"at least 1 .* required, but 0 arrived"):
        build(0)


@pytest.mark.usefixtures("unchecked_types")
def test_a_size_that_is_no_integer_is_refused():
    with pytest.raises(TypeError, match=r"the number of corners must be an integer, but 3.0 arr"):
        dihedral_group(3.0)  # pyright: ignore[reportArgumentType]
