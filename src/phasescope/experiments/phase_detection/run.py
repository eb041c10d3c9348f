"""Score every detector on the runs of one system."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from phasescope.datasets import KnownRun, transitions
from phasescope.datasets.known_runs import packed, unpacked
from phasescope.experiments.phase_detection.config import SYSTEMS, Config, Results
from phasescope.experiments.phase_detection.scoring import scored
from phasescope.experiments.phase_detection.system import record
from phasescope.trajectory.files import write_atomic

Progress = Callable[[float, str], None]
RUNS = Path("results") / "runs.safetensors.xz"


def run(config: Config, directory: Path, *, progress: Progress | None = None) -> Results:
    """Train a system's seeds, or take them from the data set, and score the detectors on them.

    New trainings are kept in the directory and not repeated.

    Args:
        config: The system and its seeds.
        directory: Where new runs are kept.
        progress: Called with the share of the work done and what is being done.
    """
    tell = progress or (lambda share, what: None)
    runs = runs_of(config, directory, lambda share: tell(0.5 * share, "training"))
    rows: list[dict[str, Any]] = []
    for i, known in enumerate(runs):
        tell(0.5 + 0.5 * i / len(runs), "detecting")
        rows.append(scored(known, every_signal=config.every_signal))
    return Results(config, {"runs": rows})


def load(config: Config, directory: Path, numbers: dict[str, Any]) -> Results:
    """The results of a finished run; everything is in its numbers."""
    return Results(config, numbers)


def runs_of(
    config: Config, directory: Path, tell: Callable[[float], None] | None = None
) -> Sequence[KnownRun]:
    """The runs of a configuration.

    Args:
        config: The system and its seeds.
        directory: Where new runs are kept.
        tell: Called with the share of a new training that is done.

    Raises:
        ValueError: The data set has not got all the seeds.
    """
    if config.packaged:
        found = [r for r in transitions().of(config.system) if r.seed in config.seeds]
        if len(found) < config.n_seeds:
            raise ValueError(
                f"the data set has {len(found)} of the {config.n_seeds} seeds of "
                f"{config.system!r} that were asked for: {config.seeds}. Pass packaged=False to "
                "train them."
            )
        return found
    file = directory / RUNS
    if not file.exists():
        made = record(SYSTEMS[config.system](config.system, config.seeds), config.seeds, tell)
        write_atomic(file, packed(made, {}))
    return unpacked(file.read_bytes()).runs
