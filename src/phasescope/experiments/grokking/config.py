"""What is trained, and what comes out of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor

from phasescope.experiments.runner import added_field
from phasescope.figures import NetworkFrame
from phasescope.models import PairTransformer
from phasescope.training import TrainingCurves

SOURCE = "Nanda et al. (2023), and the post on operations and activations that varied it"
RUNTIME = "two cores: the default in a minute, a published run (p = 113) in half an hour"
SPECTRA_IDS = ("A9", "A10", "A11", "A12", "A13", "A14", "A15", "A17", "A19")
CLAIM_IDS = (*(f"C{i}" for i in range(1, 23)), *SPECTRA_IDS, "E12", "B13")


@dataclass(frozen=True)
class Config:
    """One network on one task. The defaults are those of the source but for its size."""

    operation: Literal["add", "subtract", "multiply", "divide"] = "add"
    p: int = 53  # modulus: sets the number of tokens and of pairs; 113 in the source
    units_only: bool = False  # leave out 0, and what else has no inverse
    train_fraction: float = 0.5  # share of the pairs that is trained on; .3 in the source
    data_seed: int | None = None  # of the split; None: the seed
    # relu, gelu, gelu_new, gelu_fast, silu, solu, leaky_relu, softplus, elu, square or
    # gelu_clipped; with _ln at its end a LayerNorm follows.
    activation: str = "relu"
    d_model: int = 48  # width of the residual stream; 128 in the source
    n_heads: int = 4
    d_mlp: int = 128  # neurons of every layer; 512 in the source
    n_layers: int = 1
    init: Literal["progress_measures", "transformerlens", "pizza"] = "progress_measures"
    attention_rate: float = 1.0  # r in the attention r·softmax + (1 − r)·1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 2.5  # decoupled under AdamW, part of SGD's gradient; 1 in the source
    beta1: float = 0.9  # of AdamW, as the next two
    beta2: float = 0.98
    eps: float = 1e-8
    warmup_steps: int = 10  # of linear warm-up: the first update has rate 0
    decay_on_rise: float = 1.0  # what every rise of the training loss divides the rate by
    reject_rises: bool = False  # take updates back that raise the training loss
    loss_dtype: Literal["float64", "float32"] = "float64"  # in which the loss is computed
    n_steps: int = 2500  # updates, each on all training pairs
    n_log_spaced: int = 40  # weights kept at so many log-spaced steps
    weights_every: int = 50  # and at every so many steps
    spectra_every: int = 0  # keep weights and gradients at every so many steps for their spectra
    scales_every: int = 1  # steps between records of the scales of Adam's updates; 0: none
    n_seeds: int = 1  # more are trained as one batch, and leave numbers only
    compiled: bool = added_field(False)  # by torch.compile: pays off for a published run
    seed: int = 0  # of the initial weights; of a batch its number: seeds seed·n_seeds and on


DEFAULT = Config()
SMOKE = Config(
    p=11, train_fraction=0.5, d_model=16, n_heads=2, d_mlp=32, n_steps=60, n_log_spaced=60
)
# Fields that change what is kept of a run or how it is computed, and nothing else but rounding.
RECORDING = (
    "n_log_spaced",
    "weights_every",
    "spectra_every",
    "scales_every",
    "n_seeds",
    "compiled",
)


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
    scales: Mapping[str, Tensor] = field(default_factory=dict)
    """Scales of Adam's updates by name, and their ``"steps"``; empty without Adam."""


@dataclass(frozen=True)
class Results:
    """One run: its configuration, every number as plain JSON, and what the figures need."""

    config: Config
    numbers: dict[str, Any]
    detail: Detail | None = None


def members(config: Config) -> list[Config]:
    """The configurations of a batch's seeds, each as a run of its own."""
    first = config.seed * config.n_seeds
    return [replace(config, seed=first + i, n_seeds=1) for i in range(config.n_seeds)]


def one_by_one(result: Results) -> list[Results]:
    """A result as one result per seed."""
    if result.config.n_seeds == 1:
        return [result]
    singles = members(result.config)
    return [Results(c, n) for c, n in zip(singles, result.numbers["seeds"], strict=True)]


def setting(config: Config) -> str:
    """The setting of a run without its seed: ``add mod 53, relu``."""
    named = {"operation", "p", "activation", "seed", "data_seed", *RECORDING}
    changed = [
        f"{name} {value}"
        for name, value in asdict(config).items()
        if name not in named and value != getattr(DEFAULT, name)
    ]
    return ", ".join([f"{config.operation} mod {config.p}", config.activation, *changed])


def for_storage(results: Sequence[Results]) -> list[dict[str, Any]]:
    """Every run's configuration and numbers; a batch's seeds without series and single spikes."""
    return [
        {
            "config": asdict(result.config),
            "numbers": result.numbers
            if result.config.n_seeds == 1
            else result.numbers | {"seeds": [_stored(seed) for seed in result.numbers["seeds"]]},
        }
        for result in results
    ]


def summary(result: Results) -> dict[str, float]:
    """The main numbers of a run, times where it got there; of a batch, means over its seeds."""
    single = result.config.n_seeds == 1
    seeds = [result.numbers] if single else result.numbers["seeds"]
    found = {
        name.replace("_", " "): float(np.mean([n["final"][name] for n in seeds]))
        for name in ("test_accuracy", "test_loss")
    }
    for event in ("memorised", "grokked"):
        steps = [n["times"][event] for n in seeds]
        if not single:
            found[f"share that {event}"] = float(np.mean([step is not None for step in steps]))
        elif steps[0] is not None:
            found[f"{event} at step"] = float(steps[0])
    if single and result.numbers["diverged"] is not None:
        found["diverged at step"] = float(result.numbers["diverged"])
    return found


def _stored(numbers: dict[str, Any]) -> dict[str, Any]:
    """What is kept of one seed of a batch."""
    kept = {name: value for name, value in numbers.items() if name != "measures"}
    for row in ("untrained", "final_measures", "other_basis"):
        if kept[row]:
            dropped = ("excluded_per_frequency", "harmonics")
            kept[row] = {n: v for n, v in kept[row].items() if n not in dropped}
    lists = ("peak", "start", "end", "height", "phase")
    kept["spikes"] = {
        kind: {name: value for name, value in spikes.items() if name not in lists}
        for kind, spikes in numbers["spikes"].items()
    }
    if kept.get("scales"):
        kept["scales"] = {n: v for n, v in kept["scales"].items() if n != "series"}
    return kept


def disk_bytes(config: Config) -> int:
    """Bytes that a run writes while it runs."""
    d, m = config.d_model, config.d_mlp
    n_weights = 2 * (config.p + 2) * d + config.n_layers * (4 * d * d + 2 * d * m + d + m)
    if config.n_seeds > 1:
        return 0  # its weights stay in memory
    kept = config.n_log_spaced + config.n_steps // config.weights_every + 10  # 10 checkpoints
    n_spectra = config.n_steps // config.spectra_every + 1 if config.spectra_every else 0
    return 4 * n_weights * (3 * kept + 2 * n_spectra)
