"""What is trained: networks of one shape over a small grid of rates, offsets and densities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import numpy as np

SOURCE = (
    "Jermyn, Schiefer & Hubinger (2022), Engineering Monosemanticity in Toy Models, "
    "arXiv:2211.09169, and thread"
)
RUNTIME = "one core: 1 to 6 minutes per setting of 128 seeds, 50 minutes for the whole grid"
CLAIM_IDS = ("D1", "D2", "D3", "D4", "D5", "D6", "D7")


@dataclass(frozen=True)
class Config:
    """Networks of one shape; all points of the grid and all seeds are one batch of models."""

    n_features: int = 64
    d: int = 32  # of the embedding
    n_neurons: int = 128
    task: Literal["decoder", "reprojector", "absolute"] = "decoder"
    activation: Literal["relu", "gelu", "x_exp"] = "relu"
    frequencies: Literal["uniform", "power_law"] = "uniform"
    importance_power: float = 0.0  # importance of feature i = 1, 2, … is i to minus this power
    optimizer: Literal["lamb", "adam"] = "lamb"
    learning_rates: Sequence[float] = (0.03,)  # grid
    bias_offsets: Sequence[float] = (0.0,)  # grid: added to the initial biases
    densities: Sequence[float] = (1 / 32,)  # grid: mean probability of a feature
    bias_decay: float = 0.0  # biases shrink by this times the rate, in the first half
    skip: Literal["none", "max", "per_neuron", "quantile"] = "none"  # of the bias-only phase
    firing_rate: float = 0.01  # of the quantile rule: share of rows on which a neuron starts firing
    l1: float = 0.0  # penalty on the activations
    top_k: int | None = None  # neurons that act on a row; all by default
    n_groups: int | None = None  # groups of neurons, switched by gates
    n_active_groups: int | None = None  # groups that act on a row
    batch_size: int = 128
    n_steps: int = 4224  # an odd number of half periods ends where the learning rate is zero
    half_period: int = 128  # steps from the largest learning rate to zero
    at_once: int = 16  # models trained together; their data depend on it
    device: str = "cpu"
    n_seeds: int = 128
    seed: int = 0  # number of the batch: it has the seeds seed·n_seeds … (seed + 1)·n_seeds − 1

    def __post_init__(self) -> None:
        for name in ("learning_rates", "bias_offsets", "densities"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON has lists only
        halves, rest = divmod(self.n_steps, self.half_period)
        if rest or halves < 3 or halves % 2 == 0:
            raise ValueError(
                "n_steps must be an odd number of half periods, three at least, so that the "
                f"training ends where the learning rate is zero, but n_steps={self.n_steps} is "
                f"{self.n_steps / self.half_period:g} times half_period={self.half_period}. "
                f"Pass n_steps={self.half_period * max(3, halves + 1 - halves % 2)}."
            )

    @property
    def points(self) -> list[Config]:
        """The points of the grid, as configurations with one of each."""
        grid = product(self.learning_rates, self.bias_offsets, self.densities)
        return [
            replace(self, learning_rates=(lr,), bias_offsets=(offset,), densities=(density,))
            for lr, offset, density in grid
        ]

    @property
    def record_steps(self) -> list[int]:
        """Steps at which everything is measured: every end of a half period, and the last one."""
        return [*range(0, self.n_steps, self.half_period), self.n_steps]

    @property
    def annealed(self) -> list[int]:
        """Places among the records at which the learning rate was zero."""
        return [
            i
            for i, step in enumerate(self.record_steps)
            if step % (2 * self.half_period) == self.half_period
        ]


DEFAULT = Config()
SMOKE = Config(
    n_features=12, d=8, n_neurons=16, batch_size=32, n_steps=120, half_period=24, n_seeds=4
)

# The settings that the claims speak of. "Long" ones are trained twice as long.
RATES = replace(DEFAULT, learning_rates=(0.003, 0.01, 0.02, 0.03))
DECAYED = replace(DEFAULT, learning_rates=(0.01, 0.02), bias_offsets=(-1.0,), bias_decay=0.3)
LONG = replace(DEFAULT, learning_rates=(0.02,), n_steps=8320)
LONG_POWER = replace(LONG, frequencies="power_law")
FEW = replace(DEFAULT, n_neurons=48)  # d < k < N
FEW_POWER = replace(FEW, frequencies="power_law")
FEW_RATES, FEW_POWER_RATES = (replace(c, learning_rates=(0.01, 0.03)) for c in (FEW, FEW_POWER))
FEW_STARTS, FEW_POWER_STARTS = (
    replace(c, bias_offsets=(-0.3,), bias_decay=0.3) for c in (FEW, FEW_POWER)
)
LONG_FEW, LONG_FEW_POWER = (replace(c, n_neurons=48) for c in (LONG, LONG_POWER))
IMPORTANCE = replace(DEFAULT, importance_power=1.1, learning_rates=(0.02,))
SKIPS = {
    rule: replace(DEFAULT, learning_rates=(0.01,), bias_decay=0.3, skip=rule)
    for rule in ("max", "per_neuron", "quantile")
}
_SLOW = replace(DEFAULT, learning_rates=(0.01,))
TOP_K = replace(_SLOW, top_k=8)  # multiplies as many weights as 48 dense neurons
GATED = replace(_SLOW, n_groups=8, n_active_groups=2)  # about as many as 32 dense neurons
SMALL = replace(_SLOW, n_neurons=32)
DECIDING = (
    RATES,
    DECAYED,
    LONG,
    LONG_POWER,
    FEW_RATES,
    FEW_POWER_RATES,
    FEW_STARTS,
    FEW_POWER_STARTS,
    LONG_FEW,
    LONG_FEW_POWER,
    IMPORTANCE,
    *SKIPS.values(),
    TOP_K,
    GATED,
    SMALL,
)
# Shown beside, with fewer seeds: the plane of (k, density), and the other variants of the source.
PLANE = tuple(
    replace(
        DEFAULT,
        n_neurons=k,
        learning_rates=(0.02,),
        densities=(1 / 64, 1 / 32, 1 / 16, 1 / 8),
        n_seeds=32,
    )
    for k in (32, 64, 128)
)
_VARIED: tuple[dict[str, Any], ...] = (
    {"activation": "gelu"},
    {"activation": "x_exp"},
    {"task": "absolute"},
    {"task": "reprojector"},
    {"l1": 0.01},
    {"frequencies": "power_law"},
    {"optimizer": "adam", "learning_rates": (0.003,)},
)
VARIANTS = tuple(
    replace(DEFAULT, **{"learning_rates": (0.02,), "n_seeds": 32, **changes}) for changes in _VARIED
)
# The sizes of the public replication: LR1 and LR2 of the paper's Table 1, and its last anneal.
_PUBLISHED_RATES = (0.001, 0.003, 0.005, 0.007, 0.01, 0.03)
_REPLICATION = Config(
    n_features=512,
    d=64,
    n_neurons=1024,
    learning_rates=_PUBLISHED_RATES,
    densities=(1 / 64,),
    batch_size=2**8,
    n_steps=2**15 + 512,
    half_period=512,
    at_once=6,
    n_seeds=1,
)
REPLICATION = (_REPLICATION, replace(_REPLICATION, frequencies="power_law"))
PAPER = tuple(
    replace(config, batch_size=2**13, n_steps=2**17 + 512, at_once=2) for config in REPLICATION
)
PRESETS: dict[str, tuple[Config, ...]] = {
    "smoke": (SMOKE,),
    "default": (DEFAULT,),
    "sweep": (*DECIDING, *PLANE, *VARIANTS),
    "replication": REPLICATION,
    "all": (*DECIDING, *PLANE, *VARIANTS, *REPLICATION),
    "paper": PAPER,
}


@dataclass(frozen=True)
class Detail:
    """What the figures need beyond the numbers, of one point of the grid."""

    loss_steps: np.ndarray
    """Steps of the training losses."""
    loss: np.ndarray
    """Training loss of every seed."""
    shown_steps: np.ndarray
    """Steps of the activations that are kept."""
    activations: np.ndarray
    """Single-feature activations of the first seed: record, neuron, feature."""
    biases: np.ndarray
    """Of every neuron at the end: seed, neuron."""
    selectivity: np.ndarray
    """The same of the selectivity."""


@dataclass(frozen=True)
class Results:
    """One run: its configuration, every number as plain JSON, and what the figures need."""

    config: Config
    numbers: dict[str, Any]
    details: tuple[Detail | None, ...] = ()
    """One per point of the grid."""


def setting(config: Config) -> str:
    """A point of the grid without its seeds: ``N 64 k 128, LAMB 0.03`` and what is unusual."""
    plain = Config()
    parts = [f"N {config.n_features} k {config.n_neurons}"]
    rates, offsets = (
        "/".join(f"{value:g}" for value in values)
        for values in (config.learning_rates, config.bias_offsets)
    )
    parts.append(f"{'LAMB' if config.optimizer == 'lamb' else 'Adam'} {rates}")
    for name in ("task", "activation", "frequencies"):
        if getattr(config, name) != getattr(plain, name):
            parts.append(str(getattr(config, name)).replace("_", " "))
    if config.d != plain.d:
        parts[0] += f" d {config.d}"
    for label, value, usual in (
        ("importance power", config.importance_power, 0.0),
        ("decay", config.bias_decay, 0.0),
        ("L1", config.l1, 0.0),
        ("steps", config.n_steps, plain.n_steps),
        ("batch", config.batch_size, plain.batch_size),
    ):
        if value != usual:
            parts.append(f"{label} {value:g}")
    if config.bias_offsets != plain.bias_offsets:
        parts.append(f"bias {offsets}")
    if config.densities != plain.densities:
        parts.append("density " + "/".join(f"1/{1 / p:.3g}" for p in config.densities))
    if config.skip != "none":
        parts.append(f"skip {config.skip.replace('_', ' ')}")
    if config.top_k is not None:
        parts.append(f"top {config.top_k}")
    if config.n_groups is not None:
        parts.append(f"{config.n_active_groups} of {config.n_groups} groups")
    return ", ".join(parts)


def multiplications(config: Config) -> int:
    """Weights that a row has to be multiplied with, if neurons that do not act are left out."""
    d, k, N = config.d, config.n_neurons, config.n_features
    outputs = d if config.task == "reprojector" else N
    if config.n_groups is not None and config.n_active_groups is not None:
        acting = k * config.n_active_groups // config.n_groups
        return config.n_groups * d + acting * (d + outputs)
    if config.top_k is not None:
        return k * d + config.top_k * outputs
    return k * (d + outputs)


def per_seed(result: Results, point: int, name: str) -> np.ndarray:
    """A statistic of every seed at a point of the grid; NaN where a seed has none."""
    values = result.numbers["points"][point]["per_seed"][name]
    return np.array([np.nan if v is None else v for v in values], dtype=float)


def summary(result: Results) -> dict[str, float]:
    """The numbers of a run that a sweep shows: means over seeds and points."""
    points = range(len(result.config.points))
    return {
        shown: float(np.nanmean([per_seed(result, point, name) for point in points]))
        for shown, name in (("loss", "loss"), ("mono/N at .9", "mono_90"), ("covered", "covered"))
    }
