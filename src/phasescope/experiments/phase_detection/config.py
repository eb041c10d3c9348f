"""Which trainings there are, and what comes out of scoring detectors on one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from phasescope.experiments.phase_detection.bias_phase import bias_phase_system
from phasescope.experiments.phase_detection.factors import (
    factors_system,
    features_system,
    parity_system,
)
from phasescope.experiments.phase_detection.induction import induction_system
from phasescope.experiments.phase_detection.modular import quadratic_system, transformer_system
from phasescope.experiments.phase_detection.regression import regression_system, spikes_system
from phasescope.experiments.phase_detection.slingshots import slingshots_system
from phasescope.experiments.phase_detection.system import System

SOURCE = '"What\'s going on with Per-Component Weight Updates?" (LessWrong)'
RUNTIME = (
    "one core: up to a minute per system whose runs are packaged; training them anew takes up to "
    "4 minutes more"
)
CLAIM_IDS = ("B19", "B20")

Maker = Callable[[str, Sequence[int]], System]
_GROK = partial(quadratic_system, fraction=0.45, weight_decay=4.0)
# Systems in which something happens, by what they are, and those in which nothing does.
WITH_EVENTS: dict[str, Maker] = {
    "grok_add": _GROK,
    "grok_subtract": partial(_GROK, operation="subtract"),
    "grok_multiply": partial(_GROK, operation="multiply"),
    "grok_add_29": partial(_GROK, p=29, fraction=0.4),
    "grok_transformer": partial(transformer_system, n_steps=4000),
    "s_curve": partial(factors_system, strengths=(0.5,)),
    "s_curves": factors_system,
    "features": features_system,
    "parity": parity_system,
    "induction": induction_system,
    "bias_phase": bias_phase_system,
}
GROKKING = tuple(name for name in WITH_EVENTS if name.startswith("grok"))
SPIKES: dict[str, Maker] = {"spikes": spikes_system, "slingshots": slingshots_system}
WITHOUT: dict[str, Maker] = {
    "random_labels": partial(_GROK, random_labels=True, n_steps=1000),
    "memoriser": partial(quadratic_system, fraction=0.3, weight_decay=0.0, n_steps=1000),
    "memorising_transformer": partial(
        transformer_system, fraction=0.3, weight_decay=0.0, n_steps=1000
    ),
    "one_layer": partial(induction_system, n_layers=1),
    "power_law": regression_system,
    "regression": partial(regression_system, d=50, spectrum=0.0, batch_size=16, n_steps=1000),
    "rate_drops": partial(regression_system, batch_size=8, rate_drops=(1000, 2500)),
    "slingshots_float64": partial(slingshots_system, dtype=torch.float64),
}
SYSTEMS: dict[str, Maker] = {**WITH_EVENTS, **SPIKES, **WITHOUT}
_TWENTY = ("random_labels", "memoriser", "power_law", "regression", "rate_drops")
N_SEEDS = {name: 20 if name in _TWENTY else 10 for name in SYSTEMS}
N_SEEDS["grok_transformer"] = 12  # not every one groks


@dataclass(frozen=True)
class Config:
    """The seeds of one system, on which every detector is scored."""

    system: str = "grok_add"
    every_signal: bool = False  # also relative updates, their cosine, and components one by one
    packaged: bool = True  # score the runs of `ps.datasets.transitions()` instead of new ones
    n_seeds: int = 10
    seed: int = 0  # number of the batch: it has the seeds seed·n_seeds … (seed + 1)·n_seeds − 1

    def __post_init__(self) -> None:
        if self.system not in SYSTEMS:
            raise ValueError(f"system must be one of {', '.join(SYSTEMS)}, not {self.system!r}.")

    @property
    def seeds(self) -> list[int]:
        """Of the runs."""
        return list(range(self.seed * self.n_seeds, (self.seed + 1) * self.n_seeds))


DEFAULT = tuple(Config(system, n_seeds=N_SEEDS[system]) for system in SYSTEMS)
SMOKE = Config("s_curve", packaged=False, n_seeds=2, seed=50)
PRESETS: dict[str, tuple[Config, ...]] = {
    "smoke": (SMOKE,),
    "default": DEFAULT,
    "one": (DEFAULT[0],),
    "paper": DEFAULT,
    "everything": tuple(Config(c.system, every_signal=True, n_seeds=c.n_seeds) for c in DEFAULT),
    "fresh": tuple(Config(c.system, packaged=False, n_seeds=c.n_seeds, seed=1) for c in DEFAULT),
}


@dataclass(frozen=True, eq=False)
class Results:
    """One system: its configuration, and per run what every detector said of every signal."""

    config: Config
    numbers: dict[str, Any]
    """``runs``, each with ``seed, steps, events, saturated, alarms, located``."""


def summary(results: Results) -> dict[str, float]:
    """The main numbers of a system."""
    runs = results.numbers["runs"]
    return {
        "runs": float(len(runs)),
        "events": float(sum(len(run["events"]) for run in runs)),
        "signals": float(len(runs[0]["alarms"])),
    }
