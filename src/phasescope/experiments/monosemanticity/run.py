"""Train every point of a run's grid from all its seeds, and put the measures of each together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from phasescope.experiments.chunks import in_chunks, save_whole
from phasescope.experiments.monosemanticity.config import Config, Detail, Results
from phasescope.experiments.monosemanticity.numbers import point_numbers
from phasescope.experiments.monosemanticity.observe import shown_records
from phasescope.experiments.monosemanticity.training import (
    HELD_OUT_ROWS,
    Chunk,
    loss_steps,
    train_chunk,
)
from phasescope.training import train_ensemble

KEPT = Path("results") / "curves.safetensors"
TRIAL_STEPS = 4  # from which the cost is measured
TRIAL_MODELS = 4

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Cost:
    """What a run will take on this machine."""

    n_models: int
    """Points of the grid times seeds."""
    seconds: float
    """Of training, extrapolated from a few steps."""
    memory: int
    """Bytes of the models that are trained together, their optimizer and their data."""

    def __str__(self) -> str:
        """In words."""
        minutes = self.seconds / 60
        time = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
        return f"{self.n_models:,} models, about {time} and {self.memory / 1e6:,.0f} MB"


def expected_cost(config: Config) -> Cost:
    """Time and memory that a run will need, measured on a few steps.

    Args:
        config: The run.
    """
    n_models = len(config.points) * config.n_seeds
    together = min(TRIAL_MODELS, config.at_once, n_models)
    chunk = Chunk(config, list(range(together)))
    params, optimizer = chunk.start(), chunk.optimizer()
    train_ensemble(params, chunk.loss, optimizer, 1)
    start = time.perf_counter()
    train_ensemble(params, chunk.loss, optimizer, TRIAL_STEPS - 1)
    per_model_step = (time.perf_counter() - start) / (TRIAL_STEPS * together)
    d, k, N = config.d, config.n_neurons, config.n_features
    numbers = 5 * (k * d + k + N * k)  # weights, gradient, two moments, work
    numbers += config.batch_size * (3 * k + 3 * N + d) + HELD_OUT_ROWS * (d + N)
    at_once = min(config.at_once, n_models)
    return Cost(n_models, per_model_step * config.n_steps * n_models, 4 * numbers * at_once)


def run(config: Config, directory: Path, *, progress: Progress | None = None) -> Results:
    """Train all models of a run and measure each; what it will cost is said first.

    An interrupted run goes on: finished chunks of models are read, the one that was in training is
    taken up at its checkpoint, and the numbers are those of a run that was never interrupted.

    Args:
        config: The run.
        directory: Where chunks, checkpoints and curves are kept.
        progress: Called with the share of the work done and what is being done.
    """
    tell = progress or (lambda share, what: None)
    n_models = len(config.points) * config.n_seeds
    said = "training"
    if progress is not None:
        said = f"training {expected_cost(config)}"
        tell(0.0, said)
    shown = directory / "shown"

    def train(models: list[int], folder: Path) -> dict[str, Tensor]:
        return train_chunk(
            config,
            models,
            folder,
            shown,
            lambda share: tell((models[0] + share * len(models)) / n_models, said),
        )

    found = in_chunks(n_models, config.at_once, directory / "chunks", train)
    by_point = [
        {
            name: values[i * config.n_seeds : (i + 1) * config.n_seeds]
            for name, values in found.items()
        }
        for i in range(len(config.points))
    ]
    numbers = {
        "points": [
            point_numbers(point, values)
            for point, values in zip(config.points, by_point, strict=True)
        ]
    }
    (directory / KEPT).parent.mkdir(parents=True, exist_ok=True)
    kept = ("training_loss", "bias", "selectivity")
    save_whole({name: found[name].float() for name in kept}, directory / KEPT)
    tell(1.0, "done")
    return Results(config, numbers, _details(config, directory))


def load(config: Config, directory: Path, numbers: dict[str, Any]) -> Results:
    """The results of a finished run, from what it left in its directory."""
    return Results(config, numbers, _details(config, directory))


def _details(config: Config, directory: Path) -> tuple[Detail | None, ...]:
    """What the figures need of every point; None where the curves were not kept."""
    if not (directory / KEPT).exists():
        return (None,) * len(config.points)
    kept = {name: value.numpy() for name, value in load_file(directory / KEPT).items()}
    steps = config.record_steps
    details = []
    for point in range(len(config.points)):
        rows = slice(point * config.n_seeds, (point + 1) * config.n_seeds)
        frames, at = [], []
        for place in shown_records(config):
            file = directory / "shown" / f"point-{point:03d}-{place:05d}.safetensors"
            if file.exists():
                frames.append(load_file(file)["S"].numpy())
                at.append(steps[place])
        empty = np.empty((0, config.n_neurons, config.n_features))
        details.append(
            Detail(
                loss_steps=np.array(loss_steps(config)),
                loss=kept["training_loss"][rows],
                shown_steps=np.array(at, dtype=int),
                activations=np.stack(frames) if frames else empty,
                biases=kept["bias"][rows],
                selectivity=kept["selectivity"][rows],
            )
        )
    return tuple(details)
