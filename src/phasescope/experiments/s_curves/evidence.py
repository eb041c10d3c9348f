"""The seeds that decide a claim, and what a decision consists of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from phasescope.experiments.evidence import OverSeeds, undecided
from phasescope.experiments.s_curves.config import SOURCE, Config, Results, per_seed, setting
from phasescope.report import Claim, Verdict

MIN_SEEDS = 100  # of a batched toy, for a verdict
PLATEAU = 2.0  # S-ratio from which a curve has a plateau: the loss slows to half of its later rate


@dataclass(frozen=True)
class Share:
    """Share of seeds of which something is true, with its exact (Clopper-Pearson) 95% interval."""

    mean: float
    low: float
    high: float
    n_seeds: int

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends."""
        return self.low, self.high

    def __str__(self) -> str:
        """Share and interval."""
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def share(true: np.ndarray) -> Share:
    """The share of seeds, from one boolean per seed."""
    from scipy.stats import binomtest

    test = binomtest(int(true.sum()), len(true)).proportion_ci(method="exact")
    return Share(float(true.mean()), float(test.low), float(test.high), len(true))


class Evidence:
    """Statistics by setting and name, one value per seed."""

    def __init__(self, results: Sequence[Results]) -> None:
        self._results: dict[Config, list[Results]] = {}
        for result in results:
            self._results.setdefault(_deciding(result.config), []).append(result)

    def has(self, config: Config) -> bool:
        """Whether a setting was run, with every number that a claim rests on as committed."""
        return _deciding(config) in self._results

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


@dataclass(frozen=True)
class Finding:
    """What was measured for a claim."""

    value: float
    interval: tuple[float, float] | None
    unit: str
    null: str
    n_seeds: int
    verdict: Verdict
    sentence: str


@dataclass(frozen=True)
class Rule:
    """A claim with its decision rule and the settings it needs."""

    id: str
    statement: str
    rule: str
    needs: tuple[Config, ...]
    decide: Callable[[Evidence], Finding]

    def claim(self, evidence: Evidence) -> Claim:
        """The claim with its verdict; not tested where a setting is missing."""
        missing = [setting(c) for c in self.needs if not evidence.has(c)]
        if missing:
            return not_tested(
                self,
                f"Not run: {missing[0]}"
                + (f" and {len(missing) - 1} more." * (len(missing) > 1) or "."),
            )
        found = self.decide(evidence)
        verdict = found.verdict if found.n_seeds >= MIN_SEEDS else undecided(found.n_seeds)
        return Claim(
            self.id,
            self.statement,
            SOURCE,
            self.rule,
            found.value,
            found.interval,
            found.unit,
            found.null,
            found.n_seeds,
            verdict,
            found.sentence,
        )


def not_tested(rule: Rule, sentence: str) -> Claim:
    """A claim of which nothing was measured."""
    return Claim(
        rule.id,
        rule.statement,
        SOURCE,
        rule.rule,
        None,
        None,
        "",
        "none",
        0,
        "not tested",
        sentence,
    )


def verdict_of(holds: Sequence[bool], fails: Sequence[bool]) -> Verdict:
    """Reproduced if every part holds, refuted if one fails, else inconclusive."""
    if all(holds):
        return "reproduced"
    return "refuted" if any(fails) else "inconclusive"
