"""One training, recorded; the same with another order of its data; gradients where it stood still.

Letters: n steps (rows), P parameters (columns).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

import phasescope as ps
from phasescope.experiments.gradient_nulls.config import PLACES, Config
from phasescope.experiments.gradient_nulls.processes import Process, make_process
from phasescope.models.evaluation import evaluating
from phasescope.training import frozen_gradients, train

_ROWS = 256  # steps read at once
_OTHER_ORDERS = 1_000_000  # seeds of data orders that no training has


@dataclass(frozen=True, eq=False)
class ExamplePaths:
    """Logits and losses of fixed examples over the training; empty if there are no examples."""

    steps: list[int]
    """Updates applied."""
    logits: list[Float[Tensor, "examples classes"]]
    """In nats."""
    losses: list[Float[Tensor, " examples"]]
    """Cross-entropy, in nats."""
    labels: Int64[Tensor, " examples"] | None
    """Classes."""


@dataclass(frozen=True, eq=False)
class Training:
    """What a training left."""

    recorded: ps.Run
    """All gradients, updates and weights of the sampled steps, norms of all updates."""
    sample: list[int]
    """The sampled steps."""
    models: dict[str, nn.Module]
    """Copies of the model at the three places."""
    paths: ExamplePaths
    """What became of the examples."""
    final_loss: float
    """Of the last batch."""


def sampled_steps(config: Config) -> list[int]:
    """One step at random from each of `n_sampled` equal stretches of the training."""
    edges = np.round(np.linspace(0, config.n_steps, config.n_sampled + 1)).astype(int)
    return np.random.default_rng(config.seed).integers(edges[:-1], edges[1:]).tolist()


def record(
    config: Config, process: Process, directory: Path, progress: Callable[[float], None]
) -> Training:
    """Train a process with every gradient recorded, and follow its examples."""
    model, sample = process.model, sampled_steps(config)
    models = {"initialisation": copy.deepcopy(model)}
    due = set(np.round(np.linspace(0, config.n_steps, config.n_checkpoints)).astype(int).tolist())
    labels = None if process.examples is None else process.examples[1]
    paths, last = ExamplePaths([], [], [], labels), [float("nan")]

    def look(step: int) -> None:
        if process.examples is not None and step in due:
            x, y = process.examples
            with evaluating(model):
                logits = model(x)
            paths.steps.append(step)
            paths.logits.append(logits)
            paths.losses.append(functional.cross_entropy(logits, y, reduction="none"))

    def after(step: int, loss: Tensor) -> None:
        if step == config.n_steps // 2:
            models["middle"] = copy.deepcopy(model)
        last[0] = float(loss)
        look(step)
        progress(step / config.n_steps)

    look(0)
    save = {
        "gradients": ps.every(1),
        "updates": ps.at(*sample),
        "weights": ps.at(*sorted({0, *sample})),
        "norms/updates": ps.every(1),
    }
    optimizer = _optimizer(config, model)
    batches = itertools.islice(process.batches(config.seed), config.n_steps)
    with ps.Recorder(directory, model, optimizer, save=save, n_steps=config.n_steps) as recorder:
        train(model, optimizer, batches, loss_fn=process.loss_fn, recorder=recorder, on_step=after)
    models["end"] = model
    return Training(ps.open_run(directory), sample, models, paths, last[0])


def gradients_at(
    config: Config, process: Process, training: Training, place: str, directory: Path
) -> np.memmap:
    """Twice as many gradients as are sampled of the training, at weights that do not move."""
    batches = process.batches(_OTHER_ORDERS * (1 + PLACES.index(place)) + config.seed)
    return frozen_gradients(
        training.models[place],
        batches,
        2 * config.n_sampled,
        directory / f"{place}.npy",
        loss_fn=process.loss_fn,
    )


def other_order(config: Config) -> Float[Tensor, "n P"]:
    """Gradients at the sampled steps of a training from the same weights in another data order."""
    process, wanted = make_process(config), set(sampled_steps(config))
    optimizer, parameters = _optimizer(config, process.model), list(process.model.parameters())
    batches = process.batches(_OTHER_ORDERS * 9 + config.seed)
    rows = []
    for step, (x, y) in enumerate(itertools.islice(batches, config.n_steps)):
        optimizer.zero_grad()
        process.loss_fn(process.model(x), y).backward()
        if step in wanted:
            rows.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
        optimizer.step()
    return torch.stack(rows)


def rows_of(series: ps.Series, steps: list[int]) -> Float[Tensor, "n P"]:
    """Some rows of a recorded series, in memory."""
    rows = np.searchsorted(series.steps, steps)
    parts = []
    for start in range(0, len(series), _ROWS):
        wanted = rows[(rows >= start) & (rows < start + _ROWS)]
        if len(wanted):
            parts.append(series[int(wanted[0]) : int(wanted[-1]) + 1][wanted - wanted[0]])
    return torch.from_numpy(np.concatenate(parts))


def _optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    if config.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    return torch.optim.SGD(model.parameters(), lr=config.learning_rate)
