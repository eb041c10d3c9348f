"""Run families of toys, one after the other, or one pair of classifiers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phasescope.experiments.chunks import in_chunks
from phasescope.experiments.mode_connectivity.between import Between
from phasescope.experiments.mode_connectivity.classifiers import measure_pair
from phasescope.experiments.mode_connectivity.config import Config, Results
from phasescope.experiments.mode_connectivity.family import train_family

Progress = Callable[[float, str], None]


def run(config: Config, directory: Path, *, progress: Progress | None = None) -> Results:
    """Train and measure everything of a run; finished seeds of an interrupted one are kept.

    Args:
        config: The run.
        directory: Where the numbers of every seed are kept.
        progress: Called with the share of the work done and what is being done.
    """
    tell = progress or (lambda share, what: None)
    if config.part == "classifier":
        numbers = {n: [v] for n, v in measure_pair(config, tell).items()}
        return Results(config, {"per_seed": numbers})
    first = config.seed * config.n_seeds

    def measure(models: list[int], folder: Path) -> dict[str, Tensor]:
        (model,) = models
        seed = first + model
        tell(model / config.n_seeds, f"training the models of seed {seed}")
        family = train_family(config, seed)
        tell((model + 0.2) / config.n_seeds, f"measuring between the models of seed {seed}")
        found = Between(config, family, seed).everything()
        return {n: torch.tensor([v], dtype=torch.float64) for n, v in found.items()}

    found = in_chunks(config.n_seeds, 1, directory / "seeds", measure)
    return Results(config, {"per_seed": {n: _plain(v) for n, v in found.items()}})


def _plain(values: Tensor) -> list:
    """One entry per seed; None for the pull that would have to be infinite, which JSON has not."""
    if values.ndim > 1:
        return values.tolist()
    return [value if math.isfinite(value) else None for value in values.tolist()]


def load(config: Config, directory: Path, numbers: dict[str, Any]) -> Results:
    """The results of a finished run."""
    return Results(config, numbers)
