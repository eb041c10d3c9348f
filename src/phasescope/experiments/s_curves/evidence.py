"""The seeds that decide a claim, and what a decision consists of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.rules import Share, share
from phasescope.experiments.s_curves.config import SOURCE, Config, Results, per_seed, setting

PLATEAU = 2.0  # S-ratio from which a curve has a plateau: the loss slows to half of its later rate


class Evidence:
    """Statistics by setting and name, one value per seed."""

    source = SOURCE

    def __init__(self, results: Sequence[Results]) -> None:
        self._results: dict[Config, list[Results]] = {}
        for result in results:
            self._results.setdefault(_deciding(result.config), []).append(result)

    def has(self, config: Config) -> bool:
        """Whether a setting was run, with every number that a claim rests on as committed."""
        return _deciding(config) in self._results

    def missing(self, needs: Sequence[Config]) -> list[str]:
        """Names of the settings that were not run."""
        return [setting(config) for config in needs if not self.has(config)]

    def values(self, config: Config, name: str) -> np.ndarray:
        """A statistic of every seed; NaN where a seed has none."""
        return per_seed(self._results[_deciding(config)], name)

    def finite(self, config: Config, name: str) -> np.ndarray:
        """The same without the seeds that have none."""
        values = self.values(config, name)
        return values[np.isfinite(values)]

    def mean(self, config: Config, name: str) -> OverSeeds:
        """Mean and interval over the seeds that have the statistic."""
        return OverSeeds(self.finite(config, name).tolist())

    def median(self, config: Config, name: str) -> float:
        """Median over the seeds that have the statistic; NaN without any."""
        values = self.finite(config, name)
        return float(np.median(values)) if len(values) else float("nan")

    def with_plateau(self, config: Config) -> Share:
        """Share of seeds whose loss has a plateau."""
        return share(self.finite(config, "s_ratio") >= PLATEAU)

    def paired(
        self, first: Config, second: Config, name: str, change: Callable[..., np.ndarray]
    ) -> OverSeeds:
        """Mean over seeds of a change from the second setting to the first, seed by seed."""
        a, b = self.values(first, name), self.values(second, name)
        n = min(len(a), len(b))
        with np.errstate(all="ignore"):
            changes = change(a[:n], b[:n])
        return OverSeeds(changes[np.isfinite(changes)].tolist())


def log_ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Change as ln(a / b)."""
    return np.log(a / b)


def _deciding(config: Config) -> Config:
    """A configuration without what no verdict depends on."""
    return replace(config, n_seeds=Config.n_seeds, seed=0, device="cpu", dtype="float32")
