"""What is trained, and what comes out of one batch of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from phasescope.experiments.settings import grouped, per_seed

SOURCE = "A. Jermyn and B. Shlegeris, Multi-Component Learning and S-Curves (LessWrong), and thread"
RUNTIME = "two cores: 3 to 60 s per setting of 128 seeds, 15 minutes for the whole grid"
CLAIM_IDS = ("E1", "E2", "E3", "E4", "E5", "E6", "E7", "E8", "E9", "E10", "E11")


@dataclass(frozen=True)
class Config:
    """One setting, trained from many seeds at once."""

    rank: int = 2  # of the target and of the factors
    d: int = 100  # rows and columns of the target
    loss: Literal["squared_error", "cross_entropy", "softmax_squared_error"] = "squared_error"
    temperature: float = 1.0  # of the softmax; squared error has none
    target_scale: float = 1.0  # length of the columns of A and B; 10 gives entries N(0, 1)
    init_scale: float = 1.0  # the same of X and Y
    balance: Literal["random", "balanced"] = "random"  # balanced: XᵀX = YᵀY at the start
    imbalance: float = 1.0  # X is multiplied by it, Y divided
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: float = 0.05
    momentum: float = 0.0  # of SGD
    weight_decay: float = 0.0  # decoupled for adamw, else part of the gradient
    n_steps: int = 400
    record_every: int = 1  # steps between records of alignments
    window: int = 5  # steps over which the rate of the loss is taken
    floor: float = 0.01  # share of the first loss at which a curve ends
    prominence: float = 0.05  # of a bump, in |cos|
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    n_seeds: int = 128  # trained as one batch
    seed: int = 0  # number of the batch: it has the seeds seed·n_seeds … (seed + 1)·n_seeds − 1


DEFAULT = Config()
SMOKE = Config(rank=2, d=20, n_steps=150, n_seeds=8)
_SOFTMAX = Config(
    loss="cross_entropy",
    target_scale=10.0,
    init_scale=10.0,
    optimizer="adam",
    learning_rate=0.02,
    n_steps=1500,
    record_every=10,
    floor=1e-3,
)

# The settings that the claims speak of, by rank unless something else is said.
GD = {rank: Config(rank=rank) for rank in (1, 2, 10)} | {
    100: Config(rank=100, n_steps=300, record_every=2)
}
DECAYED = {decay: Config(rank=1, weight_decay=decay, n_steps=600) for decay in (0.1, 0.3)}
MOMENTUM = {rank: Config(rank=rank, momentum=0.9, learning_rate=0.005) for rank in (2, 10)}
_ADAM = Config(optimizer="adam", learning_rate=0.01, n_steps=300)
_FULL_ADAM = replace(_ADAM, rank=100, record_every=2)
ADAM = {rank: replace(_ADAM, rank=rank) for rank in (1, 2, 10)} | {
    100: replace(_FULL_ADAM, n_steps=200)
}
# Learning rates at which pilot seeds took Adam as many steps to 1% of the loss as SGD at .05.
MATCHED = {
    rank: replace(_ADAM, rank=rank, learning_rate=rate, n_steps=600)
    for rank, rate in ((2, 0.003), (10, 0.0022))
} | {100: replace(_FULL_ADAM, learning_rate=0.004)}
FULL_ADAM = (MATCHED[100], ADAM[100], replace(_FULL_ADAM, learning_rate=0.03, n_steps=200))
ADAMW = {
    decay: replace(_ADAM, rank=1, optimizer="adamw", weight_decay=decay) for decay in (0.01, 0.1)
}
CROSS_ENTROPY = {
    2: _SOFTMAX,
    10: replace(_SOFTMAX, rank=10, n_steps=3000),
    100: replace(_SOFTMAX, rank=100, temperature=10.0, n_steps=600, record_every=4),
}
WARM_CROSS_ENTROPY = replace(_SOFTMAX, rank=10, temperature=10**0.5)
SOFTMAX_ERROR = {
    config.rank: replace(config, loss="softmax_squared_error")
    for config in (CROSS_ENTROPY[2], WARM_CROSS_ENTROPY, CROSS_ENTROPY[100])
}
SMALL = {
    (1, 0.3): replace(GD[1], init_scale=0.3, n_steps=700),
    (1, 0.1): replace(GD[1], init_scale=0.1, n_steps=700),
    (1, 0.01): replace(GD[1], init_scale=0.01, n_steps=700),
    (2, 0.1): replace(GD[2], init_scale=0.1, n_steps=700),
    (10, 0.1): replace(GD[10], init_scale=0.1, n_steps=700),
    (100, 0.3): replace(GD[100], init_scale=0.3, n_steps=600, record_every=4),
    (100, 0.1): replace(GD[100], init_scale=0.1, n_steps=600, record_every=4),
}
BALANCED = {rank: replace(GD[rank], balance="balanced") for rank in (1, 2, 10)}
UNBALANCED = {rank: replace(GD[rank], imbalance=2.0, n_steps=1000) for rank in (1, 2, 10)}
GRID = tuple(
    dict.fromkeys(
        config
        for family in (GD, DECAYED, MOMENTUM, ADAM, MATCHED, dict(enumerate(FULL_ADAM)), ADAMW)
        for config in family.values()
    )
) + tuple(
    config
    for family in (
        CROSS_ENTROPY,
        {10: WARM_CROSS_ENTROPY},
        SOFTMAX_ERROR,
        SMALL,
        BALANCED,
        UNBALANCED,
    )
    for config in family.values()
)
PRESETS: dict[str, tuple[Config, ...]] = {"smoke": (SMOKE,), "default": (DEFAULT,), "paper": GRID}


@dataclass(frozen=True)
class Detail:
    """What the figures need beyond the numbers."""

    loss: np.ndarray
    """Loss of every seed at every step."""
    alignment_steps: np.ndarray
    """Steps of the alignments that are kept."""
    alignments: np.ndarray
    """|cos| between the columns of X and of A over these steps, of the first seed."""
    theory_steps: np.ndarray
    """Steps of the theory; none where there is none."""
    theory_loss: np.ndarray
    """Loss of every seed by the four equations of rank one."""


@dataclass(frozen=True)
class Results:
    """One setting: its configuration, every number as plain JSON, and what the figures need."""

    config: Config
    numbers: dict[str, Any]
    detail: Detail | None = None


_LOSSES = {
    "squared_error": "",
    "cross_entropy": "cross-entropy",
    "softmax_squared_error": "softmax + squared error",
}


def setting(config: Config) -> str:
    """The setting of a run without its seeds: ``rank 2, SGD 0.05``, and what is not the default."""
    name = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}[config.optimizer]
    parts = [f"rank {config.rank}", f"{name} {config.learning_rate:g}"]
    plain = Config()
    if config.d != plain.d:
        parts.insert(0, f"d {config.d}")
    if config.loss != plain.loss:
        parts += [_LOSSES[config.loss], f"T {config.temperature:.3g}"]
    usual = 1.0 if config.loss == plain.loss else 10.0
    for label, value, default in (
        ("momentum", config.momentum, 0.0),
        ("decay", config.weight_decay, 0.0),
        ("targets x", config.target_scale, usual),
        ("start x", config.init_scale, usual),
        ("X/Y x", config.imbalance**2, 1.0),
    ):
        if value != default:
            parts.append(f"{label} {value:g}".replace("x ", "x"))
    if config.balance == "balanced":
        parts.append("balanced")
    return ", ".join(parts)


def group_by_setting(results: Sequence[Results]) -> dict[str, list[Results]]:
    """The batches of every setting, settings in the order in which they come."""
    return grouped(results, lambda r: setting(r.config))


def summary(result: Results) -> dict[str, float]:
    """The numbers of a batch that a sweep shows: medians over its seeds."""
    named = {"steps to 1%": "t1", "S-ratio": "s_ratio", "bumps": "bumps"}
    found = {shown: per_seed([result], name) for shown, name in named.items()}
    return {
        shown: float(np.median(values[np.isfinite(values)]))
        if np.isfinite(values).any()
        else np.nan
        for shown, values in found.items()
    }
