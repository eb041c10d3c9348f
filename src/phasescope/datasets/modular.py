"""Tasks of two operands, a ∘ b = c: their pairs, results, and what is trained on.

Axes: a, b tokens of the left and the right operand; pairs of them.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from phasescope.datasets.coordinates import (
    Basis,
    Coordinates,
    Operation,
    check_operation,
    commutative_coordinates,
    modular_coordinates,
)
from phasescope.datasets.groups import FiniteGroup, Table, check_integer
from phasescope.datasets.residues import inverses


@dataclass(frozen=True, eq=False)
class Task:
    """A table of a ∘ b = c to be learned: which pairs there are, and what they give.

    Example:
        >>> task = modular_task("divide", 5)
        >>> len(task.labels), task.pairs[1].tolist(), int(task.labels[1])
        (20, [0, 2], 0)
        >>> sorted(task.coordinates), task.basis
        (['additive', 'multiplicative'], 'multiplicative')
    """

    name: str
    """What the task is called in figures and errors."""
    n_tokens: int
    """Operands and results are the tokens 0 to n_tokens − 1; "=" would be the next one."""
    pairs: Int64[Tensor, "pairs 2"]
    """All pairs that have a result, in lexicographic order."""
    labels: Int64[Tensor, " pairs"]
    """Their results."""
    strata: Int64[Tensor, " n_tokens"]
    """Class of every token: the greatest common divisor with the modulus, so 1 for units and the
    modulus for 0. All 1 for addition, subtraction, and groups given by a table."""
    coordinates: Mapping[str, Coordinates]
    """Every basis that applies, by its name; none for a group that is not commutative."""
    basis: str | None
    """Name of the coordinates in which the task is an addition; None if there are none."""

    @property
    def natural(self) -> Coordinates:
        """The coordinates in which the task is an addition.

        Raises:
            ValueError: There are none.
        """
        if self.basis is None:
            raise ValueError(
                f"{self.name!r} must be commutative to have coordinates in which it is an "
                "addition, but it is not. Analyse it by its irreducible representations "
                "(real_irreps, irrep_similarities)."
            )
        return self.coordinates[self.basis]

    @functools.cached_property
    def label_table(self) -> Int64[Tensor, "a b"]:
        """The result of every pair of tokens; -1 where there is none."""
        table = torch.full((self.n_tokens, self.n_tokens), -1)
        table[self.pairs[:, 0], self.pairs[:, 1]] = self.labels
        return table

    @functools.cached_property
    def all_pairs(self) -> Int64[Tensor, "all_pairs 2"]:
        """Every pair of tokens, those without result included: row a·n_tokens + b."""
        tokens = torch.arange(self.n_tokens)
        return torch.cartesian_prod(tokens, tokens)

    @functools.cached_property
    def is_regular(self) -> Bool[Tensor, " pairs"]:
        """Whether both operands of a pair are units; the others are strata of their own."""
        return (self.strata[self.pairs] == 1).all(1)

    def examples(
        self, rows: Int64[Tensor, " rows"]
    ) -> tuple[Int64[Tensor, "rows 2"], Int64[Tensor, " rows"]]:
        """Pairs and labels of some rows, such as those of a `Split`.

        Args:
            rows: Numbers from 0 on.

        Raises:
            ValueError: The task has no such rows.
        """
        n, given = len(self.labels), torch.as_tensor(rows)
        outside = given[(given < 0) | (given >= n)]
        if len(outside):
            raise ValueError(
                f"rows of {self.name!r} must be numbers from 0 to {n - 1}, one for each of its {n} "
                f"pairs, but {len(outside)} of the {given.numel()} that arrived are not, such as "
                f"{int(outside[0])}. Split the task's own pairs: split_pairs(len(task.pairs), ...)."
            )
        return self.pairs[rows], self.labels[rows]


@dataclass(frozen=True, eq=False)
class Split:
    """Which rows of a task are trained on."""

    train: Int64[Tensor, " n_train"]
    """Rows of the training pairs, increasing."""
    test: Int64[Tensor, " n_test"]
    """All the other rows, increasing."""


def modular_task(operation: Operation, n: int, *, units_only: bool = False) -> Task:
    """Arithmetic modulo n: a + b, a − b, a·b or a/b.

    Division a/b is the c with bc = a modulo n; it is defined where b is a unit, and these pairs
    are the task. Multiplication has all n² pairs: those with 0, or with another token that shares
    a divisor with a composite n, follow rules of their own (0·b = 0), which no character of the
    group of units shows. They are kept apart by `Task.strata`, or left out by `units_only`.

    Args:
        operation: ``"add"``, ``"subtract"``, ``"multiply"`` or ``"divide"``.
        n: The modulus, prime or composite, at least 3.
        units_only: Whether both operands must be units; for multiplication and division.

    Returns:
        The task, with additive and multiplicative coordinates.

    Raises:
        ValueError: Another operation, a modulus below 3, or units of an addition.
        TypeError: The modulus is no integer.

    Example:
        >>> task = modular_task("subtract", 7)
        >>> task.pairs[-6].tolist(), int(task.labels[-6])
        ([6, 1], 5)
    """
    check_operation(operation)
    n = check_integer(n, "the modulus")
    if n < 3:
        raise ValueError(f"the modulus must be at least 3, but it is {n}.")
    inverts = operation in ("subtract", "divide")
    additive = operation in ("add", "subtract")
    if additive and units_only:
        raise ValueError(
            f"units_only is for multiplication and division, but the operation is {operation!r}, "
            "under which every token has a place. Leave it out."
        )
    tokens = torch.arange(n)
    divisors = torch.gcd(tokens, torch.tensor(n))
    pairs = torch.cartesian_prod(tokens, tokens)
    if not additive:
        units = divisors == 1
        kept = units[pairs[:, 1]] if inverts or units_only else torch.ones(n * n, dtype=torch.bool)
        kept = kept & units[pairs[:, 0]] if units_only else kept
        pairs = pairs[kept]
    a, b = pairs.unbind(1)
    if operation == "divide":
        b = inverses(n)[b]
    labels = (a - b if operation == "subtract" else a + b if additive else a * b) % n
    bases: tuple[Basis, ...] = ("additive", "multiplicative")
    return Task(
        name=f"{operation} modulo {n}" + (", units only" if units_only else ""),
        n_tokens=n,
        pairs=pairs,
        labels=labels,
        strata=torch.ones_like(divisors) if additive else divisors,
        coordinates={basis: modular_coordinates(operation, n, basis) for basis in bases},
        basis="additive" if additive else "multiplicative",
    )


def group_task(group: FiniteGroup | Table) -> Task:
    """The product of any finite group: a, b -> ab.

    Args:
        group: The group, or its table as `FiniteGroup` takes it (which gives it a name, too); its
            elements are the tokens.

    Returns:
        The task on all pairs, with coordinates if the group is commutative.

    Raises:
        ValueError: The table is not that of a group.

    Example:
        >>> from phasescope.datasets import symmetric_group
        >>> task = group_task(symmetric_group(3))
        >>> task.n_tokens, len(task.pairs), task.basis
        (6, 36, None)
        >>> group_task([[0, 1], [1, 0]]).natural.orders
        (2,)
    """
    if not isinstance(group, FiniteGroup):
        group = FiniteGroup(group)
    n = len(group)
    tokens = torch.arange(n)
    coordinates = {}
    if group.is_commutative:
        coordinates["group"] = commutative_coordinates(group)
    return Task(
        name=group.name,
        n_tokens=n,
        pairs=torch.cartesian_prod(tokens, tokens),
        labels=group.table.flatten(),
        strata=torch.ones(n, dtype=torch.int64),
        coordinates=coordinates,
        basis="group" if coordinates else None,
    )


def split_pairs(
    n_pairs: int,
    train_fraction: float,
    *,
    seed: int,
    shuffle: Literal["python", "torch"] = "python",
) -> Split:
    """Rows to train on, and the others.

    The first ``int(train_fraction * n_pairs)`` of all rows, shuffled. With ``"python"`` it is
    `random.Random(seed).shuffle`, as in Nanda et al., so that their split is reproduced (3830 of
    the 12769 pairs modulo 113 at .3); with ``"torch"`` it is `torch.randperm` with a generator of
    this seed, as in TransformerLens's demonstration.

    Args:
        n_pairs: Number of rows.
        train_fraction: Share of the rows to train on, strictly between 0 and 1.
        seed: Seed of the shuffle, apart from that of the initial weights.
        shuffle: Whose random numbers.

    Returns:
        Both sets of rows, each in increasing order.

    Raises:
        ValueError: The fraction leaves nothing to train on or nothing to test on, or the shuffle is
            another word.

    Example:
        >>> split = split_pairs(113**2, 0.3, seed=0)
        >>> len(split.train), len(split.test)
        (3830, 8939)
    """
    n_train = int(train_fraction * n_pairs) if 0 < train_fraction < 1 else 0
    if n_train < 1:  # below 1, int() leaves at least one pair to test on
        raise ValueError(
            "train_fraction must lie strictly between 0 and 1 and leave at least one pair to train "
            f"on and one to test on, but it is {train_fraction} of {n_pairs} pairs. Without pairs "
            "to test on there is no grokking to see; the usual fractions are .3 to .8."
        )
    if shuffle == "python":
        rows = list(range(n_pairs))
        random.Random(seed).shuffle(rows)
        order = torch.tensor(rows)
    elif shuffle == "torch":
        order = torch.randperm(n_pairs, generator=torch.Generator().manual_seed(seed))
    else:
        raise ValueError(f"shuffle is 'python' or 'torch', but {shuffle!r} arrived.")
    return Split(order[:n_train].sort().values, order[n_train:].sort().values)
