"""What is trained: families of feature models on one embedding, and pairs of classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from phasescope.experiments.settings import grouped, per_seed

SOURCE = (
    "comment thread of Engineering Monosemanticity in Toy Models (arXiv:2211.09169); Git Re-Basin, "
    "arXiv:2209.04836, and S. Fort's notebook on its learning rates"
)
RUNTIME = "one core: 20 s per toy seed; about 1 minute per seed of four MNIST cells (estimated)"
CLAIM_IDS = ("D9", "D10", "D11", "D12", "D13")


@dataclass(frozen=True)
class Config:
    """One set-up; toys are `n_seeds` families in a run, classifiers one pair."""

    part: Literal["toy", "classifier"] = "toy"
    # Toys: N features through d dimensions and k neurons, LAMB in cycles.
    n_features: int = 64
    d: int = 32
    n_neurons: int = 128
    density: float = 1 / 32
    learning_rate: float = 0.01  # of both parts
    mono_offset: float = -1.0  # added to the initial biases of the monosemantic level
    bias_decay: float = 0.3  # of the monosemantic level, in the first half
    decay_both: bool = False  # whether the biases of the other level decay, too
    batch_size: int = 128
    n_steps: int = 4224
    half_period: int = 128
    n_forks: int = 4
    n_points: int = 25  # of the deciding paths
    curve_steps: int = 600
    hop_pull: int = 200  # steps with the pull
    hop_release: int = 150  # steps without it
    away_steps: int = 1500  # of connectivity-based fine-tuning
    away_rate: float = 0.1  # its first learning rate, which falls to zero on a cosine
    sgd_rate: float = 0.02  # of curves and hops
    # Classifiers: two seeds of a network.
    network: Literal["mlp", "resnet"] = "mlp"
    dataset: Literal["mnist", "digits"] = "mnist"
    width: int = 256
    optimizer: Literal["sgd", "adam"] = "sgd"
    n_train: int = 12_000
    n_epochs: int = 50
    n_seeds: int = 1
    seed: int = 0  # of a batch of toys: it has the seeds seed·n_seeds … (seed + 1)·n_seeds − 1

    def __post_init__(self) -> None:
        halves, rest = divmod(self.n_steps, self.half_period)
        if rest or halves < 5 or halves % 2 == 0:
            raise ValueError(
                "n_steps must be an odd number of half periods, five at least, so that the "
                f"training ends where the learning rate is zero, but n_steps={self.n_steps} is "
                f"{self.n_steps / self.half_period:g} times half_period={self.half_period}."
            )
        if self.part == "classifier" and self.n_seeds != 1:
            raise ValueError(
                f"a classifier's run has one pair, n_seeds=1, but n_seeds is {self.n_seeds}. Pass "
                "several seeds instead."
            )

    @property
    def annealed(self) -> list[int]:
        """Steps at which the learning rate is zero."""
        return list(range(self.half_period, self.n_steps + 1, 2 * self.half_period))

    @property
    def fork_step(self) -> int:
        """The first of them at or after half of the training."""
        return next(step for step in self.annealed if 2 * step >= self.n_steps)


TOY = Config(n_seeds=10)
SMOKE_TOY = Config(
    n_features=12,
    d=8,
    n_neurons=16,
    batch_size=32,
    n_steps=168,
    half_period=24,
    n_forks=2,
    n_points=5,
    curve_steps=6,
    hop_pull=4,
    hop_release=3,
    away_steps=6,
    n_seeds=2,
)
SMOKE_PAIR = Config(part="classifier", dataset="digits", width=16, n_train=500, n_epochs=2)
SMOKE_RESNET = replace(SMOKE_PAIR, network="resnet", width=4, n_train=100, n_epochs=1)

# The cells of the published table that decide: connected after matching, and not. Two cores have
# ten pairs of each in minutes with a fifth of the images, half of the width and 15 epochs of 50.
MLP = Config(part="classifier", n_points=9, n_epochs=15)
CONNECTED = (
    replace(MLP, optimizer="sgd", learning_rate=0.1),
    replace(MLP, optimizer="adam", learning_rate=0.005),
)
APART = (
    replace(MLP, optimizer="sgd", learning_rate=0.001),
    replace(MLP, optimizer="adam", learning_rate=0.02),
)
RESNET = Config(
    part="classifier",
    network="resnet",
    dataset="digits",
    width=16,
    optimizer="sgd",
    learning_rate=0.1,
    n_epochs=20,
    n_points=9,
)
DECAY_BOTH = replace(TOY, decay_both=True)
# The table as published: all 60,000 images, 512 neurons, batches of 500.
_TABLE = replace(MLP, width=512, n_train=60_000, batch_size=500, n_epochs=50, n_points=25)
_SGD = (1e-4, 2.2e-4, 4.6e-4, 1e-3, 2.2e-3, 4.6e-3, 1e-2, 2.2e-2, 4.6e-2, 0.1)
_ADAM = (0.005, 0.0063, 0.0079, 0.01, 0.0126, 0.0159, 0.02, 0.025, 0.032, 0.04)
PAPER = (
    *(replace(_TABLE, optimizer="sgd", learning_rate=lr) for lr in _SGD),
    *(replace(_TABLE, optimizer="adam", learning_rate=lr) for lr in _ADAM),
)
# Every run of the committed results: the toys' first ten seeds, two more since two of those have no
# pair that counts, and ten pairs of every classifier.
EVIDENCE = (
    TOY,
    replace(TOY, n_seeds=2, seed=5),  # the seeds 10 and 11
    *(replace(c, seed=s) for c in (*CONNECTED, *APART, RESNET) for s in range(10)),
    DECAY_BOTH,
)
PRESETS: dict[str, tuple[Config, ...]] = {
    "smoke": (SMOKE_TOY, SMOKE_PAIR, SMOKE_RESNET),
    "default": (TOY,),
    "toys": (TOY, DECAY_BOTH),
    "classifiers": (*CONNECTED, *APART, RESNET),
    "evidence": EVIDENCE,
    "paper": PAPER,
}


@dataclass(frozen=True)
class Results:
    """One run: its configuration and every number as plain JSON."""

    config: Config
    numbers: dict[str, Any]


def setting(config: Config) -> str:
    """The setting of a run without its seeds."""
    if config.part == "classifier":
        size = f"{config.network} of width {config.width}, {config.n_train:,} {config.dataset}"
        return f"{config.optimizer} {config.learning_rate:g}, {size}"
    name = f"N {config.n_features}, k {config.n_neurons}, LAMB {config.learning_rate:g}"
    return name + (", decay at both levels" if config.decay_both else "")


def group_by_setting(results: Sequence[Results]) -> dict[str, list[Results]]:
    """The runs of every setting, settings in the order in which they come."""
    return grouped(results, lambda r: setting(r.config))


def summary(result: Results) -> dict[str, float]:
    """The numbers of a run that a sweep shows."""
    names = (
        ("ratio naive", "ratio matched")
        if result.config.part == "classifier"
        else ("tolerance", "cross naive", "cross best", "cross curve")
    )
    return {name: float(np.nanmean(per_seed([result], name))) for name in names}
