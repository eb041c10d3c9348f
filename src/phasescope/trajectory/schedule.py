"""When to save: every k steps, at given steps, log-spaced, and unions of these."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Every:
    """Every k-th step from 0 on."""

    k: int

    def steps(self, n_steps: int) -> range:
        """The due steps below `n_steps`."""
        return range(0, n_steps, self.k)


@dataclass(frozen=True)
class At:
    """Given steps."""

    values: tuple[int, ...]

    def steps(self, n_steps: int) -> list[int]:
        """The due steps below `n_steps`."""
        return [value for value in self.values if value < n_steps]


@dataclass(frozen=True)
class LogSpaced:
    """Step 0, then a geometric series up to the last step."""

    n: int

    def steps(self, n_steps: int) -> list[int]:
        """Exactly ``min(n, n_steps)`` steps: the first, from two on the last, and between them."""
        if self.n >= n_steps:
            return list(range(n_steps))
        if self.n <= 2:
            return [0, n_steps - 1][: self.n]
        steps = [0, 1]
        while len(steps) < self.n:
            # The ratio is renewed at every step: rounding to distinct integers uses up the start.
            ratio = ((n_steps - 1) / steps[-1]) ** (1 / (self.n - len(steps)))
            steps.append(max(steps[-1] + 1, round(steps[-1] * ratio)))
        return steps


@dataclass(frozen=True)
class Schedule:
    """A union of rules that say at which steps something is saved.

    Made by `every`, `at` and `log_spaced`; joined by ``|``.

    Example:
        >>> (every(100) | log_spaced(5)).steps(301)
        [0, 1, 7, 46, 100, 200, 300]
    """

    rules: tuple[Every | At | LogSpaced, ...]

    def __or__(self, other: Schedule) -> Schedule:
        """The steps of both."""
        if not isinstance(other, Schedule):
            return NotImplemented
        return Schedule(self.rules + other.rules)

    @property
    def needs_n_steps(self) -> bool:
        """Whether the rules can only be resolved for a run of known length."""
        return any(isinstance(rule, LogSpaced) for rule in self.rules)

    def steps(self, n_steps: int) -> list[int]:
        """The due steps in ``[0, n_steps)``, sorted, each once."""
        return sorted({step for rule in self.rules for step in rule.steps(n_steps)})

    def count(self, n_steps: int) -> int:
        """How many steps in ``[0, n_steps)`` are due."""
        if len(self.rules) == 1:
            return len(self.rules[0].steps(n_steps))
        return len(self.steps(n_steps))

    def resolve(self, n_steps: int | None) -> Callable[[int], bool]:
        """A test ``step -> bool`` for a run of `n_steps` updates.

        Raises:
            ValueError: A rule needs the number of steps, and it is not known.
        """
        if self.needs_n_steps and n_steps is None:
            raise ValueError(
                "log_spaced() spaces its steps up to the end of the run, so the number of updates "
                "is required, but n_steps is None. Pass Recorder(..., n_steps=...)."
            )
        periods = [rule.k for rule in self.rules if isinstance(rule, Every)]
        fixed: set[int] = set()
        for rule in self.rules:
            if isinstance(rule, At):
                fixed.update(rule.values)
            elif isinstance(rule, LogSpaced) and n_steps is not None:
                fixed.update(rule.steps(n_steps))
        if 1 in periods:
            return lambda step: True
        return lambda step: step in fixed or any(step % k == 0 for k in periods)

    def __str__(self) -> str:
        """The calls that make this schedule."""
        return " | ".join(_describe(rule) for rule in self.rules)


def _describe(rule: Every | At | LogSpaced) -> str:
    if isinstance(rule, Every):
        return f"every({rule.k})"
    if isinstance(rule, LogSpaced):
        return f"log_spaced({rule.n})"
    return f"at({', '.join(map(str, rule.values))})"


def _positive(value: int, what: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{what} requires an integer, but {value!r} arrived.") from None
    if number < 1:
        raise ValueError(f"{what} requires a positive integer, but {number} arrived.")
    return number


def every(k: int) -> Schedule:
    """The schedule of every k-th step: 0, k, 2k and so on.

    Example:
        >>> every(3).steps(10)
        [0, 3, 6, 9]
    """
    return Schedule((Every(_positive(k, "every(k)")),))


def at(*steps: int) -> Schedule:
    """The schedule of the given steps.

    Example:
        >>> at(5, 2).steps(10)
        [2, 5]
    """
    if not steps:
        raise ValueError("at() requires at least one step, but none arrived. Write at(0, 100).")
    if any(operator.index(step) < 0 for step in steps):
        raise ValueError(f"at() requires steps of 0 or more, but {steps} arrived.")
    return Schedule((At(tuple(sorted({operator.index(step) for step in steps}))),))


def log_spaced(n: int) -> Schedule:
    """The schedule of `n` steps from the first to the last: step 0, then a geometric series.

    Exactly `n` distinct steps (all of them, when the run has no more). The run's length is needed.

    Example:
        >>> log_spaced(6).steps(1001)
        [0, 1, 6, 33, 182, 1000]
    """
    return Schedule((LogSpaced(_positive(n, "log_spaced(n)")),))
