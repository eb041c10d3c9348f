"""What is trained: feature models, dense and sparse, from one initial bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from phasescope.experiments.settings import grouped, per_seed

SOURCE = (
    "comment thread of Engineering Monosemanticity in Toy Models (arXiv:2211.09169); lottery "
    "tickets, arXiv:1803.03635"
)
RUNTIME = "one core: 15 to 30 s per seed and initial bias at k 128"
CLAIM_IDS = ("D14", "D15")


@dataclass(frozen=True)
class Config:
    """Networks of one shape and one initial bias; all seeds are one batch."""

    n_features: int = 64
    d: int = 32
    n_neurons: int = 128
    density: float = 1 / 32  # mean probability of a feature
    learning_rate: float = 0.01
    bias_offset: float = 0.0  # added to the initial biases; -1 makes monosemantic networks
    bias_decay: float = 0.0  # in the first half
    batch_size: int = 128
    n_steps: int = 4224
    half_period: int = 128
    kept: float = 0.2  # share of weights under fixed masks and prune-and-grow
    grow_every: int = 96
    grow_until: float = 0.75  # share of the training after which masks stay
    grow_fraction: float = 0.3
    n_levels: int = 8  # prunings of the tickets
    fraction: float = 1 / 3  # pruned at each level
    checked: Sequence[int] = (4, 7)  # levels with controls
    at_once: int = 16  # models trained together; their data depend on it
    n_seeds: int = 100
    seed: int = 0  # number of the batch: it has the seeds seed·n_seeds … (seed + 1)·n_seeds − 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "checked", tuple(self.checked))  # JSON has lists only
        halves, rest = divmod(self.n_steps, self.half_period)
        if rest or halves % 2 == 0:
            raise ValueError(
                "n_steps must be an odd number of half periods, so that the training ends where "
                f"the learning rate is zero, but n_steps={self.n_steps} is "
                f"{self.n_steps / self.half_period:g} times half_period={self.half_period}."
            )
        if any(not 1 <= level <= self.n_levels for level in self.checked) or not self.checked:
            raise ValueError(
                f"levels from 1 to {self.n_levels} can have controls, but checked is "
                f"{self.checked}."
            )


POLY = Config()
MONO = replace(POLY, bias_offset=-1.0, bias_decay=0.3)
SMOKE = Config(
    n_features=12,
    d=8,
    n_neurons=16,
    batch_size=32,
    n_steps=72,
    half_period=24,
    grow_every=8,
    n_levels=2,
    checked=(1, 2),
    at_once=2,
    n_seeds=2,
)
WIDTHS = tuple(replace(start, n_neurons=k) for k in (32, 64, 256) for start in (POLY, MONO))
PRESETS: dict[str, tuple[Config, ...]] = {
    "smoke": (SMOKE,),
    "default": tuple(replace(c, n_seeds=10) for c in (POLY, MONO)),
    "sweep": (POLY, MONO, *WIDTHS),
}


@dataclass(frozen=True)
class Results:
    """One run: its configuration and every number as plain JSON."""

    config: Config
    numbers: dict[str, Any]


def setting(config: Config) -> str:
    """The setting of a run without its seeds."""
    start = f"bias {config.bias_offset:g}"
    if config.bias_decay:
        start += f" with decay {config.bias_decay:g}"
    return f"k {config.n_neurons}, N {config.n_features}, {start}"


def group_by_setting(results: Sequence[Results]) -> dict[str, list[Results]]:
    """The runs of every setting, settings in the order in which they come."""
    return grouped(results, lambda r: setting(r.config))


def left(config: Config, level: int) -> float:
    """Share of the weights that is left at a level, up to rounding."""
    return (1 - config.fraction) ** level


def summary(result: Results) -> dict[str, float]:
    """The numbers of a run that a sweep shows: means over its seeds."""
    names = ("dense", "fixed", "set", "rigl")
    return {f"{n} loss": float(per_seed([result], f"{n} loss").mean()) for n in names}
