"""Configurations of a sweep: every combination of the fields' values, with every seed."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from phasescope.experiments.runner import config_hash

SEED = "seed"


def grid(
    base: Any | Sequence[Any], values: Mapping[str, Sequence[Any]], n_seeds: int = 1
) -> list[Any]:
    """Configurations that differ from `base` in every combination of the values, and in the seed.

    Seeds are counted up from that of the base and change fastest, then the last field. A
    configuration that comes about twice is made once.

    Args:
        base: The configuration that gives the other fields; or several, as a preset may hold.
        values: Values of some fields.
        n_seeds: Seeds of every combination.

    Returns:
        The configurations.

    Raises:
        ValueError: A field does not exist or has no values, `n_seeds` is not positive, or the
            experiment refuses a combination.

    Example:
        >>> from phasescope.experiments.gradient_spectrum import SMOKE
        >>> configs = grid(SMOKE, {"learning_rate": [0.1, 0.01]}, n_seeds=2)
        >>> [(config.learning_rate, config.seed) for config in configs]
        [(0.1, 0), (0.1, 1), (0.01, 0), (0.01, 1)]
    """
    bases: list[Any] = list(base) if isinstance(base, list | tuple) else [base]
    _check(bases[0], values, n_seeds)
    configs = []
    for start, combination in itertools.product(bases, itertools.product(*values.values())):
        changed = dict(zip(values, combination, strict=True))
        for seed in range(start.seed, start.seed + n_seeds):
            try:
                configs.append(replace(start, **changed, seed=seed))
            except ValueError as error:
                described = ", ".join(f"{k}={v!r}" for k, v in changed.items())
                raise ValueError(
                    f"every combination of a grid must be a configuration, but {described} is "
                    f"refused: {error} Leave that combination out, in a sweep of its own."
                ) from error
    return list({config_hash(config): config for config in configs}.values())


def _check(base: Any, values: Mapping[str, Sequence[Any]], n_seeds: int) -> None:
    names = [field.name for field in dataclasses.fields(base)]
    for name, some in values.items():
        if name == SEED or name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            advice = f"Did you mean {close[0]!r}?" if close else ""
            advice = "Count seeds with n_seeds." if name == SEED else advice
            raise ValueError(
                f"a grid takes fields of the configuration ({', '.join(names)}; not the seed), "
                f"but {name!r} arrived. {advice}".rstrip()
            )
        if len(some) == 0:
            raise ValueError(f"every field of a grid needs a value, but {name!r} has none.")
    if n_seeds < 1:
        raise ValueError(f"a grid needs at least 1 seed, but got {n_seeds}.")


def varying(configs: Sequence[Any]) -> tuple[str, ...]:
    """Names of the fields that differ between configurations, the seed aside.

    Example:
        >>> from phasescope.experiments.gradient_spectrum import SMOKE
        >>> varying(grid(SMOKE, {"learning_rate": [0.1, 0.01], "momentum": [0.9]}, 3))
        ('learning_rate',)
    """
    if not configs:
        return ()
    first = configs[0]
    return tuple(
        field.name
        for field in dataclasses.fields(first)
        if field.name != SEED
        and any(getattr(c, field.name) != getattr(first, field.name) for c in configs)
    )


def without_seed(config: Any) -> str:
    """The same text for configurations that differ in their seed only."""
    return config_hash(replace(config, seed=0))
