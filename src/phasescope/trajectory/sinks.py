"""Who else gets the summaries of a recording: every metric and norm, once and in order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from phasescope.errors import RunError
from phasescope.trajectory.warn import warn

FORWARDED = "forwarded.json"
# Groups of which every row is forwarded. Their rows are in the order of steps.
GROUPS = ("metrics", "norms", "component_norms")


@runtime_checkable
class Sink(Protocol):
    """Takes the summaries of a recording, such as a tracker of experiments.

    Both methods are called from the thread that writes the run, never from the training loop.
    Metrics and norms of one step arrive in separate calls, each kind in the order of steps. A sink
    that raises is left out from then on; the recording goes on.
    """

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take numbers of one step.

        Args:
            step: Updates already applied.
            values: ``metrics/NAME`` as logged; ``norms/QUANTITY/TENSOR``, and ``norms/QUANTITY``
                for all tensors together, of gradients, updates, decay or weights.
        """
        ...

    def close(self) -> None:
        """No more will come."""
        ...


class Forwarder:
    """Forwards committed rows to sinks: each once, also when a resumed run records it again.

    How far it has come is kept in a file of the run, written before a row is forwarded: a process
    that is killed meanwhile loses that row for the sinks, and never forwards one twice.

    Args:
        sinks: Who gets the rows.
        directory: The run's directory.

    Raises:
        RunError: The file of an earlier process cannot be read.
    """

    def __init__(self, sinks: Sequence[Sink], directory: Path) -> None:
        self._sinks = list(sinks)
        self._failures: list[str] = []
        path = directory / FORWARDED
        self._last: dict[str, int] = dict.fromkeys(GROUPS, -1)
        self._file = None
        if sinks:
            self._last |= _read_progress(path)
            self._file = open(path, "r+b" if path.exists() else "w+b", buffering=0)  # noqa: SIM115

    def forward(
        self,
        group: str,
        steps: np.ndarray,
        values: Mapping[str, np.ndarray],
        labels: Sequence[str],
    ) -> None:
        """Forward rows of one group that have just been committed.

        Args:
            group: Name of the group; others than metrics and norms are ignored.
            steps: Step of every row.
            values: Per array, its rows.
            labels: Names of the columns, for norms.
        """
        if not self._sinks or group not in GROUPS:
            return
        columns = _named_columns(group, values, labels)
        for i in np.flatnonzero(steps > self._last[group]):
            row = {name: float(column[i]) for name, column in columns.items()}
            if group == "metrics":  # what was not logged at this step
                row = {name: value for name, value in row.items() if value == value}
            step = int(steps[i])
            try:
                self._advance(group, step)
            except OSError as error:
                self._failures.append(f"every sink: {FORWARDED} cannot be written ({error})")
                self._end(self._sinks)
                return
            if row:
                self._write(step, row)

    def warn(self) -> None:
        """Warn of the sinks that have failed since the last call; for the loop's thread."""
        while self._failures:
            warn(
                f"a sink gets no more values: {self._failures.pop(0)}. The recording itself goes "
                "on and is complete.",
            )

    def close(self) -> None:
        """Close the sinks."""
        self._end(self._sinks)
        if self._file is not None:
            self._file.close()

    def _write(self, step: int, row: Mapping[str, float]) -> None:
        for sink in list(self._sinks):
            try:
                sink.write(step, row)
            except Exception as error:
                self._failed(sink, f"failed at step {step}", error)
                self._end([sink])

    def _end(self, sinks: Sequence[Sink]) -> None:
        """Close sinks and leave them out from now on."""
        for sink in list(sinks):
            self._sinks.remove(sink)
            try:
                sink.close()
            except Exception as error:
                self._failed(sink, "could not be closed", error)

    def _failed(self, sink: Sink, what: str, error: Exception) -> None:
        self._failures.append(f"{type(sink).__name__} {what} ({type(error).__name__}: {error})")

    def _advance(self, group: str, step: int) -> None:
        self._last[group] = step
        if self._file is not None:
            # Of constant length, so that one write replaces it: cheap enough for every row.
            fields = ", ".join(f'"{name}": {last:20d}' for name, last in self._last.items())
            self._file.seek(0)
            self._file.write(f"{{{fields}}}\n".encode())


def _read_progress(path: Path) -> dict[str, int]:
    if not path.exists():
        return {}
    try:
        return {name: int(json.loads(path.read_bytes())[name]) for name in GROUPS}
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} must say up to which step each of {GROUPS} was forwarded to the sinks, but it "
            f"cannot be read ({error!r}). Delete it: rows that are recorded again are then "
            "forwarded again."
        ) from error


def _named_columns(
    group: str, values: Mapping[str, np.ndarray], labels: Sequence[str]
) -> dict[str, np.ndarray]:
    """One column per number that is forwarded, under its name."""
    columns: dict[str, np.ndarray] = {}
    for array, rows in values.items():
        if group == "metrics":
            columns[f"{group}/{array}"] = rows[:, 0]
            continue
        if group == "norms":  # components may overlap: their norms have no total
            squares = np.square(rows[:, : len(labels)], dtype=np.float64)
            columns[f"{group}/{array}"] = np.sqrt(squares.sum(axis=1))
        columns |= {f"{group}/{array}/{label}": rows[:, k] for k, label in enumerate(labels)}
    return columns
