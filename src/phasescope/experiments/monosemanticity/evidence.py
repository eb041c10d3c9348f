"""Statistics of the seeds of single points of the grid, from runs over several points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.monosemanticity.config import (
    SOURCE,
    Config,
    Results,
    per_seed,
    setting,
)
from phasescope.experiments.rules import Share, share
from phasescope.experiments.runner import seeds_of

MATCHED = 0.02  # largest relative difference of two held-out losses that count as equal


class Evidence:
    """Statistics by point and name, one value per seed."""

    source = SOURCE

    def __init__(self, results: Sequence[Results]) -> None:
        self._found: dict[Config, list[tuple[Results, int]]] = {}
        counted: dict[Config, set[int]] = {}
        # A seed counts once, whichever batches it was part of: the largest batch first.
        for result in sorted(results, key=lambda r: -r.config.n_seeds):
            seeds = set(seeds_of(result.config))
            for i, point in enumerate(result.config.points):
                known = counted.setdefault(_deciding(point), set())
                if seeds.isdisjoint(known):
                    known |= seeds
                    self._found.setdefault(_deciding(point), []).append((result, i))

    def missing(self, needs: Sequence[Config]) -> list[str]:
        """Names of the points that were not run."""
        points = [point for config in needs for point in config.points]
        return [setting(point) for point in points if _deciding(point) not in self._found]

    def numbers(self, config: Config) -> list[dict[str, Any]]:
        """The numbers of every batch of a point."""
        return [result.numbers["points"][i] for result, i in self._found[_deciding(config)]]

    def values(self, config: Config, name: str) -> np.ndarray:
        """A statistic of every seed; NaN where a seed has none."""
        return np.concatenate([per_seed(r, i, name) for r, i in self._found[_deciding(config)]])

    def mean(self, config: Config, name: str) -> OverSeeds:
        """Mean and interval over the seeds that have the statistic."""
        return over(self.values(config, name))

    def share(self, config: Config, name: str, holds: Callable[[np.ndarray], np.ndarray]) -> Share:
        """Share of the seeds of whose statistic something is true."""
        return share(holds(self.values(config, name)))

    def difference(self, first: Config, second: Config, name: str) -> OverSeeds:
        """Mean over seeds of the first setting's minus the second's, seed by seed."""
        return over(self.values(first, name) - self.values(second, name))

    def ratio(self, first: Config, second: Config, name: str) -> OverSeeds:
        """Geometric mean over seeds of the first setting's over the second's, as a logarithm."""
        with np.errstate(all="ignore"):
            return over(np.log(self.values(first, name) / self.values(second, name)))

    def matched(self, first: Config, second: Config, shift: int = 0) -> np.ndarray:
        """mono/N of the second minus the first where their losses are equal, seed by seed.

        Of all pairs of annealed records after the first quarter of the training, those whose
        held-out losses differ by 2% at most; of these the pair with the lowest losses. NaN where a
        seed has none.

        Args:
            first: A point.
            second: Another one.
            shift: The second one's seeds are moved on by so many: 0 compares a seed with itself.
        """
        loss_a, mono_a = self._annealed(first)
        loss_b, mono_b = (np.roll(values, -shift, axis=0) for values in self._annealed(second))
        found = np.full(len(loss_a), np.nan)
        for seed in range(len(loss_a)):
            a, b = loss_a[seed][:, None], loss_b[seed][None, :]
            equal = np.abs(np.log(a / b)) <= MATCHED
            if equal.any():
                i, j = np.unravel_index(np.where(equal, a + b, np.inf).argmin(), equal.shape)
                found[seed] = mono_b[seed][j] - mono_a[seed][i]
        return found

    def _annealed(self, config: Config) -> tuple[np.ndarray, np.ndarray]:
        """Losses and mono/N at the annealed records after the first quarter: seed × record."""
        parts = self.numbers(config)
        steps = np.array(parts[0]["annealed"]["steps"])
        late = steps >= 0.25 * config.n_steps
        loss, mono = (
            np.concatenate([np.array(part["annealed"][name], dtype=float) for part in parts])
            for name in ("loss", "mono_90")
        )
        return loss[:, late], mono[:, late]


def over(values: np.ndarray) -> OverSeeds:
    """Mean and interval over the seeds that have a value; NaN of one seed where none has."""
    finite = values[np.isfinite(values)].tolist()
    return OverSeeds(finite or [float("nan")])


def _deciding(point: Config) -> Config:
    """A configuration without what no verdict depends on."""
    return replace(point, n_seeds=1, seed=0, device="cpu", at_once=1)
