"""Train, measure every checkpoint, ablate the heads of the last one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import phasescope as ps
from phasescope.experiments.induction_heads.ablation import ablated
from phasescope.experiments.induction_heads.config import Config, Results
from phasescope.experiments.induction_heads.measure import measured
from phasescope.experiments.induction_heads.training import train

Progress = Callable[[float, str], None]


def run(config: Config, directory: Path, *, progress: Progress | None = None) -> Results:
    """One network, trained and measured.

    A training that was interrupted begins anew: it takes a minute.

    Args:
        config: The network, its data and its optimizer.
        directory: Where the run is kept.
        progress: Called with the share of the work done and what is being done.
    """
    tell = progress or (lambda share, what: None)
    place = directory / "run"
    if not (place / "run.json").exists() or ps.open_run(place).status != "complete":
        shutil.rmtree(place, ignore_errors=True)
        train(config, place, tell)
    recorded = ps.open_run(place)
    tell(0.9, "measuring")
    numbers = measured(recorded, config) | {"final": ablated(recorded, config)}
    tell(1.0, "done")
    return Results(config, numbers)


def load(config: Config, directory: Path, numbers: dict[str, Any]) -> Results:
    """The results of a finished run; everything is in its numbers."""
    return Results(config, numbers)


def disk_bytes(config: Config) -> int:
    """Bytes that a run writes: weights at every measurement."""
    width = config.d_model
    per_layer = 4 * width * width + 2 * width
    parameters = width * (2 * config.d_vocab + config.n_ctx + 2) + config.n_layers * per_layer
    return 4 * parameters * (config.n_steps // config.measure_every + 1)
