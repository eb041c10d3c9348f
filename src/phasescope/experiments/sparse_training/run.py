"""Train everything of a run, a few seeds at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from phasescope.experiments.chunks import in_chunks
from phasescope.experiments.sparse_training.config import Config, Results
from phasescope.experiments.sparse_training.training import Chunk

Progress = Callable[[float, str], None]


def run(config: Config, directory: Path, *, progress: Progress | None = None) -> Results:
    """Train all seeds of a run; finished chunks of an interrupted one are kept.

    Args:
        config: The run.
        directory: Where the numbers of every chunk are kept.
        progress: Called with the share of the work done and what is being done.
    """
    tell = progress or (lambda share, what: None)

    def measure(models: list[int], folder: Path) -> dict[str, Tensor]:
        tell(models[0] / config.n_seeds, f"dense, sparse and pruned, from seed {models[0]}")
        return Chunk(config, models).everything()

    found = in_chunks(config.n_seeds, config.at_once, directory / "chunks", measure)
    numbers = {"per_seed": {n: v.double().tolist() for n, v in found.items()}}
    return Results(config, numbers)


def load(config: Config, directory: Path, numbers: dict[str, Any]) -> Results:
    """The results of a finished run."""
    return Results(config, numbers)
