"""Runs put together by their setting, and what the committed results keep of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np


@runtime_checkable
class Result(Protocol):
    """What every experiment's results have."""

    @property
    def config(self) -> Any:
        """Configuration, a dataclass."""
        ...

    @property
    def numbers(self) -> dict[str, Any]:
        """Every number, as plain JSON."""
        ...


R = TypeVar("R", bound=Result)


def grouped(results: Iterable[R], setting_of: Callable[[R], str]) -> dict[str, list[R]]:
    """The runs (or batches) of every setting, settings in the order in which they come.

    Args:
        results: Runs.
        setting_of: Names the setting of a run: what it has without its seed.
    """
    groups: dict[str, list[R]] = {}
    for result in results:
        groups.setdefault(setting_of(result), []).append(result)
    return groups


def by_seed(results: Iterable[R], base: Any) -> dict[int, R]:
    """The runs of one setting, by seed.

    Args:
        results: Runs.
        base: Their configuration, of any seed.
    """
    fields = [name for name in vars(base) if name != "seed"]
    return {
        r.config.seed: r
        for r in results
        if all(getattr(r.config, name) == getattr(base, name) for name in fields)
    }


def for_storage(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Every run's configuration and numbers: what an experiment stores that leaves nothing out."""
    return [{"config": asdict(r.config), "numbers": r.numbers} for r in results]


def per_seed(results: Sequence[Result], name: str) -> np.ndarray:
    """A statistic of every seed of a setting's batches; NaN where a seed has none."""
    values = [v for result in results for v in result.numbers["per_seed"][name]]
    return np.array([np.nan if v is None else v for v in values], dtype=float)


def compact(value: Any, digits: int = 6) -> Any:
    """JSON with its numbers to so many digits: results are read by people and diffed.

    Example:
        >>> compact({"loss": [0.123456789, 3]}, 4)
        {'loss': [0.1235, 3]}
    """
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {key: compact(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [compact(item, digits) for item in value]
    return value
