"""Train, and measure what was recorded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import phasescope as ps
from phasescope.experiments.resnet_gradients.config import Config, Results
from phasescope.experiments.resnet_gradients.measure import measured, norms
from phasescope.experiments.resnet_gradients.training import network, train

Progress = Callable[[float, str], None]


def run(config: Config, directory: Path, *, progress: Progress | None = None) -> Results:
    """One network, trained and measured.

    A training that was interrupted in `directory` goes on from its last checkpoint.

    Args:
        config: The network, its images and its optimizer.
        directory: Where the run is kept.
        progress: Called with the share of the work done and what is being done.
    """
    tell = progress or (lambda share, what: None)
    place = directory / "run"
    if not (place / "run.json").exists() or ps.open_run(place).status != "complete":
        train(config, place, lambda share: tell(0.95 * share, "training"))
    recorded = ps.open_run(place)
    tell(0.95, "measuring")
    numbers = measured(recorded, config)
    shutil.rmtree(place / "checkpoints", ignore_errors=True)
    tell(1.0, "done")
    return Results(config, numbers, norms(recorded, config))


def load(config: Config, directory: Path, numbers: dict[str, Any]) -> Results:
    """The results of a finished run, with its norms if the recording is there."""
    place = directory / "run"
    if not (place / "run.json").exists():
        return Results(config, numbers)
    return Results(config, numbers, norms(ps.open_run(place), config))


def disk_bytes(config: Config) -> int:
    """Bytes that a run writes: weights of up to forty epochs, and norms."""
    model = network(config)
    n_tensors = len(list(model.parameters()))
    n_parameters = sum(p.numel() for p in model.parameters())
    rows = config.n_steps // config.norms_every + min(config.raw_steps, config.n_steps)
    return 4 * n_parameters * 43 + 8 * n_tensors * rows
