"""What is trained, and what comes out of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor

from phasescope.experiments.runner import added_field
from phasescope.experiments.settings import compact

SOURCE = '"What\'s going on with Per-Component Weight Updates?" (LessWrong)'
RUNTIME = "one core: 25 to 40 s per training at width 8 and 16 pixels, about 800 steps"
CLAIM_IDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B13", "B16", "B17", "B18")


Freezing = Literal["none", "linear", "cubic", "settled"]


@dataclass(frozen=True)
class Config:
    """One ResNet on images of CIFAR-10."""

    width: int = 8  # channels of the first stage; 64 in the source
    n_blocks: Sequence[int] = (2, 2, 2, 2)
    small_images: bool = True  # a 3 x 3 convolution at the start instead of 7 x 7 and pooling
    image_size: int = 16  # pixels; CIFAR has 32
    n_train: int = 512  # images; 50,000 in the source
    n_test: int = 250  # images of the accuracy over training; the final one takes all
    batch_size: int = 32  # 128 in the source
    n_epochs: int = 48  # 800 in the source
    learning_rate: float = 0.05  # .01 in the source
    momentum: float = 0.9
    weight_decay: float = 4e-3  # 5e-4 in the source
    cosine: bool = False  # the rate falls to 0 at the end, or where the stage is frozen
    freezing: Freezing = "none"  # FreezeOut (linear, cubic), or once a stage has settled
    freeze_first: float = 0.8  # t_0 of FreezeOut, before its power is taken
    stitched: bool = False  # a second network is trained, and layers of both are joined
    norms_every: int = 1  # steps; 20 in the source
    raw_steps: int = 2000  # at the start, whose norms are recorded at every step
    seed: int = 0
    scored: int = added_field(0)  # intervals between checkpoints at which units are scored, or none

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_blocks", tuple(self.n_blocks))  # JSON has lists only
        if self.freezing in ("linear", "cubic") and not self.cosine:
            raise ValueError(
                "FreezeOut lets the rate of a stage fall to zero before it is frozen, so cosine "
                f"must be set where freezing is {self.freezing!r}."
            )
        if self.scored and self.n_steps % self.scored:
            raise ValueError(
                f"the {self.n_steps:,} steps must divide into the intervals between checkpoints, "
                f"but scored is {self.scored}."
            )

    @property
    def n_steps(self) -> int:
        """Updates of the whole training."""
        return self.n_epochs * -(-self.n_train // self.batch_size)

    @property
    def time_scale(self) -> float:
        """(1 − μ)/(2ηλ): steps within which ‖w‖² of a scale-invariant tensor finds its balance."""
        if not self.weight_decay:
            return float("inf")
        return (1 - self.momentum) / (2 * self.learning_rate * self.weight_decay)


DEFAULT = Config()
NO_DECAY = replace(DEFAULT, weight_decay=0.0)
# Freezing and stopping (B17) need networks that still generalise: more images, fewer epochs.
CONSTANT = replace(DEFAULT, n_train=2048, n_test=1000, n_epochs=12)
COSINE = replace(CONSTANT, cosine=True)
SHORT = replace(COSINE, n_epochs=10)  # as much computation as FreezeOut leaves, for all stages
LINEAR = replace(COSINE, freezing="linear", freeze_first=0.5)
CUBIC = replace(COSINE, freezing="cubic")
SETTLED = replace(COSINE, freezing="settled")
FREEZING = {
    "constant rate": CONSTANT,
    "all stages": COSINE,
    "all stages, shorter": SHORT,
    "FreezeOut linear": LINEAR,
    "FreezeOut cubic": CUBIC,
    "frozen when settled": SETTLED,
}
STITCHED = replace(COSINE, n_blocks=(1, 1, 1, 1), n_epochs=8, stitched=True)
# Units that score (B16, B13): more images for features, less depth for the time.
UNITS = replace(CONSTANT, n_blocks=(1, 1, 1), n_train=4096, n_epochs=8, scored=32)
SMOKE = Config(width=2, n_train=32, n_test=16, batch_size=8, n_epochs=12, raw_steps=20)
PAPER = Config(
    width=64,
    image_size=32,
    n_train=50_000,
    n_test=10_000,
    batch_size=128,
    n_epochs=800,
    learning_rate=0.01,
    weight_decay=5e-4,
    norms_every=20,
)
NORMS = (DEFAULT, NO_DECAY)
STAGES = tuple(FREEZING.values())
PRESETS: dict[str, tuple[Config, ...]] = {
    "smoke": (SMOKE,),
    "default": NORMS,
    "freezing": STAGES,
    "stitching": (STITCHED,),
    "units": (UNITS,),
    "all": (*NORMS, *STAGES, STITCHED, UNITS),  # what the claims are decided by
    "paper": (PAPER, replace(PAPER, weight_decay=0.0)),
}
TIME_SCALES = 3  # that a training must last for its norms to be judged


@dataclass(frozen=True, eq=False)
class Detail:
    """Norms of a recorded run, for its figures."""

    steps: np.ndarray
    """Steps of the norms, every `norms_every`."""
    gradients: Tensor
    """‖g‖ of every layer: [layers, steps]."""
    weights: Tensor
    """‖w‖ likewise."""
    scores: Tensor | None = None
    """Every score of every unit at every checkpoint: [score, unit, checkpoint]."""


@dataclass(frozen=True, eq=False)
class Results:
    """One run: its numbers, and the norms if the run is at hand."""

    config: Config
    numbers: dict[str, Any]
    """``layers``, ``shapes`` and ``blocks`` of the norms of each, ``smoothing``, curves and final
    accuracy."""
    detail: Detail | None = None


Runs = dict[int, Results]  # of one setting, by seed


def setting(config: Config) -> str:
    """The setting of a run without its seed."""
    parts = [
        f"width {config.width}",
        f"{config.n_train:,} images of {config.image_size} pixels",
        f"{config.n_epochs} epochs",
        f"rate {config.learning_rate:g}{' cosine' * config.cosine}",
        f"decay {config.weight_decay:g}",
    ]
    if config.freezing != "none":
        parts.append(f"freezing {config.freezing}")
    if config.stitched:
        parts.append(f"{sum(config.n_blocks)} blocks, stitched")
    if config.scored:
        parts.append(f"{sum(config.n_blocks)} blocks, units scored")
    return ", ".join(parts)


def for_storage(results: Sequence[Results]) -> list[dict[str, Any]]:
    """What the committed results keep of the runs: their numbers, to four digits."""
    return [{"config": asdict(r.config), "numbers": compact(r.numbers, 4)} for r in results]


def summary(results: Results) -> dict[str, float]:
    """The main numbers of a run."""
    curves = results.numbers["curves"]
    return {
        "final training loss (nats)": curves["train_loss"][-1],
        "test accuracy": results.numbers["final_accuracy"],
    }
