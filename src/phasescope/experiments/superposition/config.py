"""What is trained, and what comes out of one batch of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from phasescope.experiments.settings import grouped, per_seed

SOURCE = "Elhage et al. (2022), Toy Models of Superposition, 'The Geometry of Superposition'"
RUNTIME = "one core: 5 minutes for 100 seeds of the deciding setting; published size: see the page"
CLAIM_IDS = ("D8",)
FEATURES_OF_A_GROUP = 4000  # on which lines are looked for: 20 densities of 200 features
LEVELS = {"1": 1.0, "3/4": 3 / 4, "2/3": 2 / 3, "1/2": 1 / 2, "2/5": 2 / 5, "3/8": 3 / 8}
SHAPES = {
    "1": "a dimension of its own",
    "3/4": "tetrahedron",
    "2/3": "triangle",
    "1/2": "antipodal pair",
    "2/5": "pentagon",
    "3/8": "square antiprism",
}


@dataclass(frozen=True)
class Config:
    """One setting: all its seeds at all its densities are one batch of models."""

    n_features: int = 40
    d: int = 4  # dimensions that the features share
    n_densities: int = 20  # probabilities of a feature, from 1 downwards in equal ratios
    lowest_density: float = 0.05
    importance_decay: float = 1.0  # importance of feature i is its i-th power
    batch_size: int = 128
    n_steps: int = 2500
    learning_rate: float = 0.003
    anneal: bool = True  # the learning rate falls to zero as a cosine, else it is constant
    weight_decay: float = 0.01  # of AdamW
    at_once: int = 20  # models trained together; their data depend on it
    device: str = "cpu"
    n_seeds: int = 100
    seed: int = 0  # number of the batch: it has the seeds seed·n_seeds … (seed + 1)·n_seeds − 1

    @property
    def group_size(self) -> int:
        """Seeds of a group, which have as many features as the published run, 4,000."""
        return max(1, FEATURES_OF_A_GROUP // (self.n_densities * self.n_features))

    @property
    def densities(self) -> np.ndarray:
        """Probabilities of a feature, the largest first."""
        return np.geomspace(1.0, self.lowest_density, self.n_densities)

    @property
    def importance(self) -> np.ndarray:
        """Weight of every feature in the loss."""
        return self.importance_decay ** np.arange(self.n_features)


DEFAULT = Config()
SMOKE = Config(n_features=12, d=3, n_densities=3, batch_size=32, n_steps=200, n_seeds=2)
# The sweep of importances: few features, so that each is a curve.
IMPORTANCE = Config(
    n_features=20,
    d=5,
    n_densities=12,
    lowest_density=0.01,
    importance_decay=0.9,
    at_once=60,
    n_seeds=20,
)
PUBLISHED = Config(
    n_features=200,
    d=20,
    batch_size=1024,
    n_steps=10_000,
    learning_rate=0.001,
    anneal=False,
    n_seeds=1,
)
PRESETS: dict[str, tuple[Config, ...]] = {
    "smoke": (SMOKE,),
    "default": (DEFAULT, IMPORTANCE),
    "paper": (PUBLISHED,),
}


@dataclass(frozen=True)
class Detail:
    """What the figures need beyond the numbers."""

    W: np.ndarray
    """Directions of the first seed: density, feature, d."""


@dataclass(frozen=True)
class Results:
    """One setting: its configuration, every number as plain JSON, and what the figures need."""

    config: Config
    numbers: dict[str, Any]
    detail: Detail | None = None


def setting(config: Config) -> str:
    """The setting of a run without its seeds: ``80 features in 8 dimensions``."""
    name = f"{config.n_features} features in {config.d} dimensions"
    plain = Config()
    if config.importance_decay != 1:
        name += f", importance {config.importance_decay:g}^i"
    if config.n_steps != plain.n_steps:
        name += f", {config.n_steps:,} steps"
    return name


def per_group(results: Sequence[Results], name: str) -> np.ndarray:
    """A statistic of every group of seeds of a setting's batches."""
    return np.array([v for result in results for v in result.numbers["per_group"][name]])


def group_by_setting(results: Sequence[Results]) -> dict[str, list[Results]]:
    """The batches of every setting, settings in the order in which they come."""
    return grouped(results, lambda r: setting(r.config))


def summary(result: Results) -> dict[str, float]:
    """The numbers of a batch that a sweep shows: means over its seeds."""
    return {
        "lines": float(sum(per_group([result], f"line {level}").mean() for level in LEVELS)),
        "densities with D* at 1/2": float(per_seed([result], "densities_at_half").mean()),
    }
