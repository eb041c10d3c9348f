"""The runs that a rule compares, seed by seed, and what a decision consists of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from phasescope.experiments.evidence import OverSeeds, with_enough_seeds
from phasescope.experiments.grokking.config import (
    RECORDING,
    SMOKE,
    Config,
    Results,
    one_by_one,
    setting,
)
from phasescope.report import Claim, Verdict

POST = "the post on operations and activations"
NONE = "no number"  # where a statistic has no run
NOT_RUN = "Not run."
# What a rule may vary. Of all other fields the setting that most runs have is compared.
PLAIN: dict[str, Any] = {
    "operation": "add",
    "activation": "relu",
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "beta2": 0.98,
    "eps": 1e-8,
    "loss_dtype": "float64",
    "reject_rises": False,
    "decay_on_rise": 1.0,
}
_NO_SETTING = {"seed", "data_seed", *RECORDING}
Seed = tuple[int, int | None]
Statistic = Callable[[Results], float | None]


class Evidence:
    """Runs of one seed each, found by what they have in common.

    Args:
        results: Runs and batches; those as short as the smoke preset count nowhere. A seed that was
            run twice, alone and in a batch, counts once.
    """

    def __init__(self, results: Sequence[Results]) -> None:
        long = [result for result in results if result.config.n_steps > SMOKE.n_steps]
        singles = [single for result in long for single in one_by_one(result)]
        kept: dict[Any, Results] = {}
        for single in singles:
            kept.setdefault((without_seed(single.config), seed_of(single)), single)
        self.all = list(kept.values())
        scales = Counter(_scale(result.config) for result in self.all)
        self.scale = dict(scales.most_common(1)[0][0]) if scales else {}

    def runs(self, **wanted: Any) -> list[Results]:
        """Runs with the wanted fields, plain in what else rules vary, and of the usual scale."""
        fields = PLAIN | self.scale | wanted
        return [r for r in self.all if all(getattr(r.config, k) == v for k, v in fields.items())]

    def plain(self) -> list[Results]:
        """Runs of every scale that are plain in all that rules vary."""
        return [r for r in self.all if all(getattr(r.config, k) == v for k, v in PLAIN.items())]

    def over(self, runs: Sequence[Results], statistic: Statistic) -> OverSeeds | None:
        """A statistic over the seeds that have it; None without any."""
        values = [value for r in runs for value in [_known(statistic, r)] if value is not None]
        return OverSeeds(values) if values else None

    def paired(
        self, ours: Sequence[Results], others: Sequence[Results], statistic: Statistic
    ) -> OverSeeds | None:
        """Our statistic less the other's, over the seeds that both have."""
        by_seed = {seed_of(r): _known(statistic, r) for r in others}
        differences = []
        for r in ours:
            a, b = _known(statistic, r), by_seed.get(seed_of(r))
            if a is not None and b is not None:
                differences.append(a - b)
        return OverSeeds(differences) if differences else None

    def log_ratios(
        self, ours: Sequence[Results], others: Sequence[Results], event: str = "grokked"
    ) -> OverSeeds | None:
        """Binary logarithm of the ratio of times, over the seeds that both have."""
        return self.paired(ours, others, lambda r: math.log2(time_of(r, event)))

    def floor(self, event: str = "grokked", operation: str = "add") -> OverSeeds | None:
        """GELU-new against GELU-fast, which are one function up to rounding."""
        new, fast = (
            self.runs(operation=operation, activation=f"gelu_{x}") for x in ("new", "fast")
        )
        return self.log_ratios(new, fast, event)

    def floor_text(self, event: str = "grokked") -> str:
        """The noise floor in words."""
        floor = self.floor(event)
        return f"GELU-new against GELU-fast: {'not run' if floor is None else floor}"


@dataclass(frozen=True)
class Part:
    """One part of a statement: what it measured, and whether it holds."""

    name: str
    found: OverSeeds | None
    holds: Callable[[OverSeeds], bool]
    fails: Callable[[OverSeeds], bool]

    def __str__(self) -> str:
        """Name, mean and interval."""
        return f"{self.name} {self.found}"


def above(name: str, found: OverSeeds | None, threshold: float = 0.0, margin: float = 0.0) -> Part:
    """Holds if the interval lies above a threshold; fails if it lies below threshold + margin.

    With a margin, an effect that is shown to be smaller than that fails too.
    """
    return Part(
        name, found, lambda x: x.low > threshold, lambda x: x.high < threshold + max(margin, 1e-300)
    )


def below(name: str, found: OverSeeds | None, threshold: float = 0.0, margin: float = 0.0) -> Part:
    """Holds if the interval lies below a threshold; fails if it lies above threshold − margin."""
    return Part(
        name, found, lambda x: x.high < threshold, lambda x: x.low > threshold - max(margin, 1e-300)
    )


def parts_claim(
    id: str, statement: str, rule: str, parts: Sequence[Part], *, unit: str, null: str
) -> Claim:
    """A statement of several parts: reproduced if all hold, refuted if one fails.

    The number of the claim is that of its first part.
    """
    missing = [part.name for part in parts if part.found is None]
    if missing:
        sentence = f"Of {missing[0]} nothing was run, or no seed has what the rule counts."
        return claim(id, statement, rule, None, unit, null, "not tested", sentence)
    known = [(part, part.found) for part in parts if part.found is not None]
    verdict: Verdict = "inconclusive"
    if all(part.holds(found) for part, found in known):
        verdict = "reproduced"
    elif any(part.fails(found) and not part.holds(found) for part, found in known):
        verdict = "refuted"
    n = min(found.n_seeds for _, found in known)
    told = "; ".join(str(part) for part in parts)
    sentence = f"{told[0].upper()}{told[1:]}."
    return claim(
        id, statement, rule, known[0][1], unit, null, with_enough_seeds(verdict, n), sentence, n
    )


def claim(
    id: str,
    statement: str,
    rule: str,
    found: OverSeeds | None,
    unit: str,
    null: str,
    verdict: Verdict,
    sentence: str,
    n_seeds: int | None = None,
    *,
    source: str = POST,
) -> Claim:
    """A claim of the post (or of another source) from what was found."""
    return Claim(
        id=id,
        statement=statement,
        source=source,
        rule=rule,
        value=None if found is None else found.mean,
        interval=None if found is None else found.interval,
        unit=unit,
        null=null,
        n_seeds=(0 if found is None else found.n_seeds) if n_seeds is None else n_seeds,
        verdict=verdict,
        sentence=sentence,
    )


def most_seeds(results: Sequence[Results], part: str) -> list[Results]:
    """The runs that have a part of the numbers, of the setting with the most seeds, each once.

    Args:
        results: Runs of any settings.
        part: Name in the numbers of a run; runs in which it is None do not have it.
    """
    groups: dict[str, dict[Seed, Results]] = {}
    for result in results:
        if result.numbers.get(part) is not None:
            groups.setdefault(setting(result.config), {})[seed_of(result)] = result
    return list(max(groups.values(), key=len, default={}).values())


def time_of(result: Results, event: str) -> float:
    """Step of an event; the last step where it has not come, so that differences only shrink."""
    step = result.numbers["times"][event]
    return max(1.0, float(result.config.n_steps if step is None else step))


def seed_of(result: Results) -> Seed:
    """What pairs runs of different settings."""
    return result.config.seed, result.config.data_seed


def number(result: Results, *path: str) -> float | None:
    """A number of a run by its path; None where it is missing."""
    value: Any = result.numbers
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return None if value is None else float(value)


def without_seed(config: Config) -> tuple[tuple[str, Any], ...]:
    """What a configuration has in common with other seeds of its setting."""
    return tuple((k, v) for k, v in asdict(config).items() if k not in _NO_SETTING)


def _scale(config: Config) -> tuple[tuple[str, Any], ...]:
    return tuple((k, v) for k, v in without_seed(config) if k not in PLAIN)


def _known(statistic: Statistic, result: Results) -> float | None:
    """A run's statistic; None where the run does not have it."""
    try:
        value = statistic(result)
    except KeyError:
        return None
    return value if value is not None and math.isfinite(value) else None
