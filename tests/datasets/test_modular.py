"""Tasks of two operands, the coordinates in which they are additions, and their splits."""

import math
import random
from typing import Any

import numpy as np
import pytest
import torch

from phasescope.datasets import (
    cyclic_group,
    group_task,
    modular_coordinates,
    modular_task,
    product_group,
    split_pairs,
    symmetric_group,
)

OPERATIONS = ("add", "subtract", "multiply", "divide")
MODULI = (3, 4, 7, 8, 9, 12, 15, 16, 31)


def by_hand(operation: str, a: int, b: int, n: int) -> int | None:
    """The result by search; None where there is none."""
    if operation == "add":
        return (a + b) % n
    if operation == "subtract":
        return next(c for c in range(n) if (c + b) % n == a)
    if operation == "multiply":
        return a * b % n
    quotients = [c for c in range(n) if b * c % n == a]
    return quotients[0] if math.gcd(b, n) == 1 else None


@pytest.mark.parametrize("n", MODULI)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_pairs_and_labels_are_those_of_the_operation(operation: Any, n: int):
    task = modular_task(operation, n)
    wanted = {
        (a, b): c
        for a in range(n)
        for b in range(n)
        if (c := by_hand(operation, a, b, n)) is not None
    }
    pairs = [tuple(pair) for pair in task.pairs.tolist()]
    assert pairs == sorted(wanted)  # lexicographic
    assert task.labels.tolist() == [wanted[pair] for pair in pairs]
    table = task.label_table
    for a in range(n):
        for b in range(n):
            assert int(table[a, b]) == wanted.get((a, b), -1)
    assert task.all_pairs[a * n + b].tolist() == [a, b]


@pytest.mark.parametrize("n", MODULI)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_task_is_an_addition_in_its_natural_coordinates(operation: Any, n: int):
    task = modular_task(operation, n)
    coordinates = task.natural
    size = len(coordinates)
    assert size == (n if operation in ("add", "subtract") else len(units(n)))
    assert math.prod(coordinates.orders) == size
    labels = task.label_table[coordinates.left[:, None], coordinates.right]
    assert torch.equal(labels, coordinates.result[sums(coordinates.orders)])
    left, right, result = (coordinates.places(side, n) for side in ("left", "right", "result"))
    for side, tokens in ((left, coordinates.left), (right, coordinates.right)):
        assert torch.equal(side[tokens], torch.arange(size))
        assert int((side == -1).sum()) == n - size
    assert torch.equal(left, result)


def units(n: int) -> list[int]:
    return [a for a in range(n) if math.gcd(a, n) == 1]


def sums(orders: tuple[int, ...]) -> torch.Tensor:
    """Place of i + j for all places, digit by digit."""
    places = torch.arange(math.prod(orders))
    total = torch.zeros(len(places), len(places), dtype=torch.int64)
    weight = 1
    for order in reversed(orders):
        digit = places // weight % order
        total += (digit[:, None] + digit) % order * weight
        weight *= order
    return total


@pytest.mark.parametrize("operation", OPERATIONS)
def test_values_and_logits_are_put_in_the_order_of_the_places(operation: Any):
    n = 11
    task = modular_task(operation, n)
    # Logits that are 1 at the right answer become a function of i + j − k alone.
    logits = torch.zeros(n, n, n + 1)  # and a column for "="
    a, b = task.pairs.unbind(1)
    logits[a, b, task.labels] = 1.0
    placed = task.natural.on_logits(logits)
    size = len(task.natural)
    i, j, k = (torch.arange(size).reshape(shape) for shape in ((-1, 1, 1), (1, -1, 1), (1, 1, -1)))
    assert torch.equal(placed, ((i + j - k) % size == 0).float())
    assert torch.equal(task.natural.on_pairs(logits)[..., task.natural.result], placed)


def test_the_other_basis_is_a_control_and_named():
    task = modular_task("multiply", 13)
    assert task.basis == "multiplicative"
    additive = task.coordinates["additive"]
    assert additive.left.tolist() == list(range(13))
    assert modular_coordinates("divide", 13, "additive").right.tolist() == [0, *range(12, 0, -1)]
    assert modular_task("add", 13).natural is not None
    assert modular_task("add", 13).basis == "additive"


def test_another_root_permutes_the_places():
    smallest = modular_coordinates("multiply", 13)
    other = modular_coordinates("multiply", 13, root=6)
    assert (smallest.generators, other.generators) == ((2,), (6,))
    exponents = smallest.places("left", 13)[6]
    assert torch.equal(other.left, smallest.left[torch.arange(12) * exponents % 12])


@pytest.mark.parametrize("n", [8, 15, 24])
def test_units_of_a_modulus_without_primitive_root_are_a_product_of_cyclic_groups(n: int):
    coordinates = modular_coordinates("multiply", n)
    assert len(coordinates.orders) > 1
    for generator, order in zip(coordinates.generators, coordinates.orders, strict=True):
        powers = {pow(generator, k, n) for k in range(order)}
        assert len(powers) == order
        assert pow(generator, order, n) == 1


def test_tokens_without_inverse_are_strata_of_their_own():
    task = modular_task("multiply", 12)
    assert task.strata.tolist() == [12, 1, 2, 3, 4, 1, 6, 1, 4, 3, 2, 1]
    assert int(task.is_regular.sum()) == 4 * 4
    regular = modular_task("multiply", 12, units_only=True)
    assert torch.equal(regular.pairs, task.pairs[task.is_regular])
    assert torch.equal(regular.labels, task.labels[task.is_regular])
    assert regular.name == "multiply modulo 12, units only"
    division = modular_task("divide", 12)
    assert len(division.pairs) == 12 * 4
    assert len(modular_task("divide", 12, units_only=True).pairs) == 4 * 4
    assert modular_task("add", 12).is_regular.all()


def test_the_product_of_a_group_is_a_task():
    task = group_task(product_group(cyclic_group(2), cyclic_group(6)))
    assert task.basis == "group"
    assert task.natural.orders == (6, 2)
    coordinates = task.natural
    labels = task.label_table[coordinates.left[:, None], coordinates.right]
    assert torch.equal(labels, coordinates.result[sums(coordinates.orders)])


def test_a_group_that_is_not_commutative_is_a_task_without_coordinates():
    group = symmetric_group(3)
    task = group_task(group)
    assert torch.equal(task.label_table, group.table)
    assert task.coordinates == {}
    assert (task.name, task.basis) == ("S3", None)
    with pytest.raises(ValueError, match=r"'S3' must be commutative .*irreducible representations"):
        _ = task.natural


@pytest.mark.parametrize("kind", [torch.tensor, np.array, list])
def test_the_table_of_a_group_is_a_task(kind: Any):
    task = group_task(kind(cyclic_group(5).table.tolist()))
    assert torch.equal(task.label_table, cyclic_group(5).table)
    assert (task.name, task.natural.orders) == ("group", (5,))


def test_a_table_that_is_none_of_a_group_is_no_task():
    with pytest.raises(ValueError, match=r"every column .* but column 0 of 'group' does not"):
        group_task([[0, 1], [0, 1]])


@pytest.mark.parametrize("rows", [[0, 169], [-1], [7, 1000, 500]])
def test_rows_outside_of_a_task_are_refused(rows: list[int]):
    task = modular_task("add", 13)
    wrong = next(row for row in rows if not 0 <= row < 169)
    message = rf"rows of 'add modulo 13' must be numbers from 0 to 168, .* such as {wrong}\. Split"
    with pytest.raises(ValueError, match=message):
        task.examples(torch.tensor(rows))
    pairs, labels = task.examples(torch.tensor([0, 168]))
    assert (pairs.tolist(), labels.tolist()) == ([[0, 0], [12, 12]], [0, 11])
    assert len(task.examples(torch.arange(0))[0]) == 0


def test_the_split_is_that_of_the_published_code():
    pairs = [(a, b) for a in range(113) for b in range(113)]
    random.seed(5)
    random.shuffle(pairs)
    task = modular_task("add", 113)
    split = split_pairs(len(task.pairs), 0.3, seed=5)
    x, y = task.examples(split.train)
    assert sorted(pairs[:3830]) == [tuple(pair) for pair in x.tolist()]
    assert torch.equal(y, x.sum(1) % 113)
    assert (len(split.train), len(split.test)) == (3830, 8939)
    assert sorted([*split.train.tolist(), *split.test.tolist()]) == list(range(113**2))


def test_the_split_of_the_demonstration_is_a_permutation_of_torch():
    order = torch.randperm(100, generator=torch.Generator().manual_seed(598))
    split = split_pairs(100, 0.3, seed=598, shuffle="torch")
    assert split.train.tolist() == sorted(order[:30].tolist())


def test_seeds_of_the_split_differ_and_leave_the_global_generator_alone():
    random.seed(1)
    before = random.getstate()
    splits = [split_pairs(100, 0.5, seed=seed).train.tolist() for seed in (0, 1, 0)]
    assert random.getstate() == before
    assert splits[0] == splits[2]
    assert splits[0] != splits[1]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, 0.001])
@pytest.mark.parametrize("shuffle", ["python", "torch"])
def test_a_train_fraction_that_leaves_a_set_empty_is_refused(fraction: float, shuffle: Any):
    with pytest.raises(ValueError, match=f"strictly between 0 and 1 .*it is {fraction} of 100"):
        split_pairs(100, fraction, seed=0, shuffle=shuffle)


@pytest.mark.usefixtures("unchecked_types")
def test_words_that_name_nothing_are_refused():
    with pytest.raises(ValueError, match=r"operation must be one of 'add', .*but 'power' arrived"):
        modular_task("power", 7)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="shuffle is 'python' or 'torch', but 'numpy'"):
        split_pairs(9, 0.5, seed=0, shuffle="numpy")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="basis is 'additive' or 'multiplicative', but 'fourier'"):
        modular_coordinates("add", 7, "fourier")  # pyright: ignore[reportArgumentType]


def test_moduli_and_units_that_make_no_task_are_refused():
    with pytest.raises(ValueError, match="modulus must be at least 3, but it is 2"):
        modular_task("add", 2)
    with pytest.raises(ValueError, match=r"units_only is for multiplication .*'subtract'"):
        modular_task("subtract", 7, units_only=True)


@pytest.mark.usefixtures("unchecked_types")
def test_a_modulus_is_an_integer_of_any_kind():
    assert modular_task("add", np.int64(7)).name == "add modulo 7"  # pyright: ignore
    for modulus in (7.0, "7", None):
        with pytest.raises(TypeError, match=f"the modulus must be an integer, but {modulus!r} ar"):
            modular_task("add", modulus)  # pyright: ignore[reportArgumentType]
