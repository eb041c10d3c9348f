"""What is trained, and what comes out of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from phasescope.figures import NetworkFrame
from phasescope.models import PairTransformer
from phasescope.training import TrainingCurves

SOURCE = "Nanda et al. (2023), and the post on operations and activations that varied it"
RUNTIME = "two cores: the default in about a minute, a published run (p = 113) in half an hour"
SPECTRA_IDS = ("A9", "A10", "A11", "A12", "A13", "A14", "A15", "A17", "A19")
CLAIM_IDS = ("C1", "C2", "C4", "C8", "C9", "C10", "C11", "C16", "C17", "C20", *SPECTRA_IDS)


@dataclass(frozen=True)
class Config:
    """One network on one task. The defaults are those of the source but for its size."""

    operation: Literal["add", "subtract", "multiply", "divide"] = "add"
    p: int = 59  # modulus: sets the number of tokens and of pairs; 113 in the source
    units_only: bool = False  # leave out 0, and what else has no inverse
    train_fraction: float = 0.4  # share of the pairs that is trained on; .3 in the source
    data_seed: int | None = None  # of the split; None: the seed
    activation: str = "relu"  # a name of models.ACTIVATIONS, with or without _ln at its end
    d_model: int = 64  # width of the residual stream; 128 in the source
    n_heads: int = 4
    d_mlp: int = 256  # neurons of every layer; 512 in the source
    n_layers: int = 1
    init: Literal["progress_measures", "transformerlens", "pizza"] = "progress_measures"
    attention_rate: float = 1.0  # r in the attention r·softmax + (1 − r)·1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = (
        2.0  # decoupled under AdamW, part of the gradient under SGD; 1 in the source
    )
    beta1: float = 0.9  # of AdamW, as the next two
    beta2: float = 0.98
    eps: float = 1e-8
    warmup_steps: int = 10  # of linear warm-up: the first update has rate 0
    decay_on_rise: float = 1.0  # what every rise of the training loss divides the rate by
    reject_rises: bool = False  # take updates back that raise the training loss
    loss_dtype: Literal["float64", "float32"] = "float64"  # in which the loss is computed
    n_steps: int = 6000  # updates, each on all training pairs
    n_log_spaced: int = 60  # weights kept at so many log-spaced steps
    weights_every: int = 100  # and at every so many steps
    spectra_every: int = 0  # keep weights and gradients at every so many steps for their spectra
    seed: int = 0  # of the initial weights


DEFAULT = Config()
SMOKE = Config(p=11, train_fraction=0.5, d_model=16, n_heads=2, d_mlp=32, n_steps=60)
PUBLISHED = Config(
    p=113,
    train_fraction=0.3,
    d_model=128,
    d_mlp=512,
    weight_decay=1.0,
    n_steps=25_000,
    n_log_spaced=100,
)
PRESETS: dict[str, tuple[Config, ...]] = {
    "smoke": (SMOKE,),
    "default": (DEFAULT,),
    "paper": tuple(
        replace(PUBLISHED, operation=operation, activation=activation)
        for operation in ("add", "subtract", "multiply")
        for activation in ("relu", "gelu")
    ),
}


@dataclass(frozen=True)
class Detail:
    """What the figures of one run need beyond the numbers, read from its directory."""

    curves: TrainingCurves
    """Losses and accuracies at every step."""
    weight_steps: np.ndarray
    """The steps whose weights were kept."""
    final: PairTransformer
    """The network at the end."""
    frames: Sequence[NetworkFrame]
    """The network at some of the kept steps, for the figure with the slider."""


@dataclass(frozen=True)
class Results:
    """One run: its configuration, every number as plain JSON, and what the figures need."""

    config: Config
    numbers: dict[str, Any]
    detail: Detail | None = None


def setting(config: Config) -> str:
    """The setting of a run without its seed: ``add mod 59, relu``."""
    named = {"operation", "p", "activation", "seed", "data_seed"}
    changed = [
        f"{name} {value}"
        for name, value in asdict(config).items()
        if name not in named and value != getattr(DEFAULT, name)
    ]
    return ", ".join([f"{config.operation} mod {config.p}", config.activation, *changed])


def for_storage(results: Sequence[Results]) -> list[dict[str, Any]]:
    """Every run's configuration and numbers."""
    return [{"config": asdict(result.config), "numbers": result.numbers} for result in results]


def summary(result: Results) -> dict[str, float]:
    """The numbers of a run that a sweep shows."""
    final = result.numbers["final"]
    return {name.replace("_", " "): final[name] for name in ("test_accuracy", "test_loss")}


def disk_bytes(config: Config) -> int:
    """Bytes that a run writes while it runs."""
    d, m = config.d_model, config.d_mlp
    n_weights = 2 * (config.p + 2) * d + config.n_layers * (4 * d * d + 2 * d * m + d + m)
    kept = config.n_log_spaced + config.n_steps // config.weights_every + 10  # 10 checkpoints
    n_spectra = config.n_steps // config.spectra_every + 1 if config.spectra_every else 0
    return 4 * n_weights * (3 * kept + 2 * n_spectra)
