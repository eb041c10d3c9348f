"""What is trained, and what comes out of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

import phasescope as ps
from phasescope.experiments.settings import grouped

SOURCE = "G. Baker, SVD of a time series of gradient updates on MNIST (LessWrong), and its thread"
RUNTIME = "two cores: 20 s a seed (MLP), 3 minutes and 9 GB while it runs (convolutional network)"
CLAIM_IDS = ("A1", "A2", "A3", "A4", "A5", "A7")
THRESHOLDS = (0.05, 0.1, 0.15)
SAMPLE_SIZES = (300, 400)
RESIDUAL_SIZES = (25, 50, 100, 200, 300, 400, 600, 1000)
DROPPED = (0, 20, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Config:
    """One training and its analysis."""

    model: Literal["mlp", "convnet"] = "mlp"
    dataset: Literal["auto", "mnist", "digits"] = "auto"  # auto: MNIST when it can be had
    hidden: int = 128  # units of the MLP's hidden layer
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.0  # of SGD
    batch_size: int = 64
    n_epochs: int = 2
    n_samplings: int = 10  # random samples of steps per run and sample size
    seed: int = 0  # of initialisation, data order and dropout
    keep_trajectory: bool = False  # gradients are deleted once their Gram matrix is analysed


DEFAULT = Config()
SMOKE = Config(dataset="digits", hidden=32, batch_size=8, n_epochs=3, n_samplings=2)
_MLP = Config(dataset="mnist")
_OPTIMIZERS = (
    replace(_MLP, learning_rate=0.01),
    replace(_MLP, learning_rate=0.1),
    replace(_MLP, optimizer="adam", learning_rate=1e-3),
)
GRID = (
    *(replace(config, batch_size=batch) for config in _OPTIMIZERS for batch in (60, 64)),
    *(replace(config, model="convnet") for config in _OPTIMIZERS),
)
PRESETS: dict[str, tuple[Config, ...]] = {"smoke": (SMOKE,), "default": (DEFAULT,), "paper": GRID}


@dataclass(frozen=True)
class Detail:
    """What the figures of one run need beyond the numbers."""

    spectrum: ps.Spectrum
    null: ps.NormNull
    norm_steps: np.ndarray
    norms: np.ndarray
    names: tuple[str, ...]
    loss_steps: np.ndarray
    loss: np.ndarray
    accuracy_steps: np.ndarray
    accuracy: np.ndarray


@dataclass(frozen=True)
class Results:
    """One run: its configuration, every number as plain JSON, and what the figures need."""

    config: Config
    numbers: dict[str, Any]
    detail: Detail | None = None


def setting(config: Config) -> str:
    """The setting of a run without its seed: ``MLP, SGD 0.1, batch 64``."""
    model = {"mlp": "MLP", "convnet": "CNN"}[config.model]
    momentum = f" momentum {config.momentum:g}" if config.momentum else ""
    name = {"sgd": "SGD", "adam": "Adam"}[config.optimizer]
    return f"{model}, {name} {config.learning_rate:g}{momentum}, batch {config.batch_size}"


def setting_of(result: Results) -> str:
    """The setting of a run; another data set than MNIST is part of its name."""
    data = result.numbers["dataset"]
    return setting(result.config) + ("" if data == "mnist" else f", on {data}")


def group_by_setting(results: Sequence[Results]) -> dict[str, list[Results]]:
    """The runs of every setting, settings in the order in which they come."""
    return grouped(results, setting_of)


def sample_size(result: Results, wanted: int = 400) -> int:
    """The size of the samples to report: the one wanted, or the only one of a short run."""
    sizes = [int(size) for size in result.numbers["samples"]]
    return wanted if wanted in sizes else max(sizes)


def count_in_samples(
    result: Results,
    threshold: float = 0.1,
    *,
    size: int = 400,
    sampling: str = "random",
    null: bool = False,
) -> float:
    """Mean count above a threshold over a run's samples of `size` steps."""
    sample = result.numbers["samples"][str(sample_size(result, size))][sampling]
    draws = sample if isinstance(sample, list) else [sample]
    column = THRESHOLDS.index(threshold)
    return float(np.mean([d["null_counts" if null else "counts"][column] for d in draws]))


def for_storage(results: Sequence[Results]) -> list[dict[str, Any]]:
    """Every run's configuration and numbers, singular values of the first seed of a setting only.

    What the committed results hold: enough to draw every figure over runs again, in 1 MB.
    """
    rows = []
    for runs in group_by_setting(results).values():
        for i, result in enumerate(runs):
            left_out = {"singular_values"} if i else set()
            kept = {k: v for k, v in result.numbers.items() if k not in left_out}
            rows.append({"config": asdict(result.config), "numbers": kept})
    return rows


def summary(result: Results) -> dict[str, float]:
    """The numbers of a run that a sweep shows."""
    return {
        "count above 10%": count_in_samples(result),
        "the same, null": count_in_samples(result, null=True),
        "test accuracy": result.numbers["test_accuracy"],
    }
