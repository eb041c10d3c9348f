"""Decision rules of batched toys: shares of seeds, findings, and claims with their verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from phasescope.experiments.evidence import undecided
from phasescope.report import Claim, Verdict

MIN_SEEDS = 100  # of a batched toy, for a verdict


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


@runtime_checkable
class RunSettings(Protocol):
    """What a rule needs of the evidence, beside the statistics it reads."""

    @property
    def source(self) -> str:
        """Where the statements come from."""
        ...

    def missing(self, needs: Sequence[Any]) -> list[str]:
        """Names of the settings that were not run."""
        ...


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
    needs: tuple[Any, ...]
    """Configurations."""
    decide: Callable[[Any], Finding]
    """What the evidence says."""

    def claim(self, evidence: RunSettings) -> Claim:
        """The claim with its verdict; not tested where a setting is missing."""
        missing = evidence.missing(self.needs)
        if missing:
            return not_tested(
                self,
                evidence.source,
                f"Not run: {missing[0]}"
                + (f" and {len(missing) - 1} more." * (len(missing) > 1) or "."),
            )
        found = self.decide(evidence)
        verdict = found.verdict if found.n_seeds >= MIN_SEEDS else undecided(found.n_seeds)
        return Claim(
            self.id,
            self.statement,
            evidence.source,
            self.rule,
            _finite(found.value),
            None if _finite(found.value) is None else found.interval,
            found.unit,
            found.null,
            found.n_seeds,
            verdict,
            found.sentence,
        )


def _finite(value: float) -> float | None:
    """None for what no seed has."""
    return value if np.isfinite(value) else None


def not_tested(rule: Rule, source: str, sentence: str) -> Claim:
    """A claim of which nothing was measured."""
    return Claim(
        rule.id,
        rule.statement,
        source,
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
