"""What became of the runs of a sweep."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Status = Literal["finished", "failed"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """One run of a sweep."""

    config: Any
    """Its configuration, seed included."""
    folder: Path
    """Its folder."""
    status: Status
    """Whether it has results."""
    results: Any = None
    """What the experiment loads from a finished run."""
    seconds: float | None = None
    """How long it took; None if it was finished before."""
    error: str = ""
    """Why it failed."""
    traceback: tuple[str, ...] = ()
    """The last lines of the error's traceback."""
    warnings: tuple[str, ...] = ()
    """What was warned of during the run."""

    def to_json(self) -> dict[str, Any]:
        """Everything but the results, the folder by its name."""
        seconds = None if self.seconds is None else round(self.seconds, 3)
        described: dict[str, Any] = {
            "config": dataclasses.asdict(self.config),
            "folder": self.folder.name,
            "status": self.status,
            "seconds": seconds,
        }
        if self.warnings:
            described["warnings"] = list(self.warnings)
        if self.error:
            described |= {"error": self.error, "traceback": list(self.traceback)}
        return described


@dataclass(frozen=True)
class RunProgress:
    """A run that is going on."""

    share: float
    """Share that is done."""
    what: str
    """What is being done."""
    seconds: float
    """Since it was handed to a worker."""


@dataclass(frozen=True)
class Progress:
    """How far a sweep has come."""

    total: int
    """Runs of the sweep."""
    kept: int
    """Runs that were finished before."""
    finished: int
    """Runs that finished since."""
    failed: int
    """Runs that failed."""
    running: tuple[RunProgress, ...]
    """Runs that are going on."""
    seconds_left: float | None
    """Estimated from the durations of finished runs; None before there are any."""
    waiting: str = ""
    """What the next run waits for, if it is not a worker."""
    last: Outcome | None = None
    """The run that ended last."""

    @property
    def ended(self) -> int:
        """Runs that will not be touched again."""
        return self.kept + self.finished + self.failed


def seconds_left(
    durations: list[float], running: tuple[RunProgress, ...], n_waiting: int, n_workers: int
) -> float | None:
    """Estimated seconds until the last run ends.

    A run is expected to take as long as the finished ones on average; before one has finished, as
    long as the running ones promise by the share that they have done.

    Args:
        durations: Seconds of the finished runs.
        running: Runs that are going on.
        n_waiting: Runs not begun.
        n_workers: Runs at once.

    Example:
        >>> running = (RunProgress(0.5, "training", 4.0), RunProgress(0.0, "training", 1.0))
        >>> seconds_left([10.0, 10.0], running, 4, n_workers=2)
        27.5
    """
    expected = durations or [run.seconds / run.share for run in running if run.share > 0.02]
    if not expected:
        return None
    each = sum(expected) / len(expected)
    work = sum(each * (1 - min(1.0, run.share)) for run in running) + each * n_waiting
    return work / max(1, min(n_workers, n_waiting + len(running)))
