"""A statistic of the levels of an axis, out of the runs that there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from phasescope.experiments.spectrum_controls.axes import AXES, Axis
from phasescope.experiments.spectrum_controls.config import Config, Results

STATISTICS = {
    "flips": "components above sign-flipped copies",
    "count": "singular values above 10% of the largest",
    "ratio": "participation ratio",
    "normalised_count": "the same, steps normalised and centred",
    "normalised_ratio": "participation ratio, steps normalised and centred",
}
DECIDING = "flips"


@dataclass(frozen=True, eq=False)
class Series:
    """A statistic along an axis, of the seeds that all its levels have."""

    axis: Axis
    """The axis, with the levels that were run and stayed finite only."""
    values: Float[np.ndarray, "levels seeds"]
    """Of the trainings."""
    null: Float[np.ndarray, "levels seeds"]
    """Of the gradients at the frozen initial weights."""
    accuracy: Float[np.ndarray, "levels seeds"]
    """On test images that were spoilt in the same way."""
    missing: tuple[str, ...]
    """Levels that were not run."""
    diverged: tuple[str, ...]
    """Levels at which a training left the finite numbers; they are not part of the series."""

    @property
    def excess(self) -> Float[np.ndarray, "levels seeds"]:
        """What training adds to what gradients at frozen weights show."""
        return self.values - self.null


def all_series(results: Sequence[Results], statistic: str = DECIDING) -> list[Series]:
    """The axes of which at least two levels were run; runs of no axis make one of their own."""
    members = _members(results)
    found = [_series(axis, members, statistic) for axis in AXES]
    found = [series for series in found if series is not None]
    if found:
        return found
    first = next(iter(members))
    labels = tuple(_difference(first, config) for config in members)
    own = _series(Axis("levels as run", "", labels, tuple(members)), members, statistic)
    return [] if own is None else [own]


Members = dict[Config, dict[int, dict]]


def _members(results: Sequence[Results]) -> Members:
    """Rows of the seeds of every level, whatever batches they were trained in."""
    members: Members = {}
    for result in results:
        level = replace(result.config, seed=0, dataset=result.numbers["dataset"])
        rows = {row["seed"]: row for row in result.numbers["members"]}
        members.setdefault(level, {}).update(rows)
    return members


def _series(axis: Axis, members: Members, statistic: str) -> Series | None:
    usable, diverged, missing = [], [], []
    for label, config in zip(axis.labels, axis.configs, strict=True):
        rows = members.get(config)
        if rows is None:
            missing.append(label)
        elif any(row["diverged"] for row in rows.values()):
            diverged.append(label)
        else:
            usable.append((label, config, rows))
    if len(usable) < 2:
        return None
    seeds = sorted(set.intersection(*(set(rows) for _, _, rows in usable)))
    if not seeds:
        return None

    def table(*keys: str) -> np.ndarray:
        def value(row: dict) -> float:
            for key in keys:
                row = row[key]
            return float(row)  # type: ignore[arg-type]

        return np.array([[value(rows[seed]) for seed in seeds] for _, _, rows in usable])

    kept = replace(axis, labels=tuple(u[0] for u in usable), configs=tuple(u[1] for u in usable))
    return Series(
        kept, table("trained", statistic), table("frozen_start", statistic),
        table("test_accuracy"), tuple(missing), tuple(diverged),
    )  # fmt: skip


def _difference(first: Config, config: Config) -> str:
    changed = [
        f"{name} {value}" for name, value in vars(config).items() if value != getattr(first, name)
    ]
    return ", ".join(changed) or "first"
