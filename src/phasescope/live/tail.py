"""The rows that a run has committed since one last looked.

Letters: t rows, c columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from phasescope.errors import RunError
from phasescope.trajectory.reader import Run, open_run
from phasescope.trajectory.schema import RUN_FILE, STORE

WATCHED = ("metrics", "norms", "component_norms")
MOST_ROWS = 20_000
MOST_BYTES = 32_000_000


@dataclass(frozen=True, eq=False)
class Rows:
    """New rows of one recorded array."""

    name: str
    """Of the array, as in ``run[name]``."""
    labels: tuple[str, ...]
    """Names of the columns; empty for scalars."""
    steps: Int[np.ndarray, " t"]
    """Step of every row, increasing."""
    values: Float[np.ndarray, "t c"]
    """The rows."""


@dataclass(frozen=True, eq=False)
class News:
    """What one look at a run has brought."""

    run: Run | None
    """The run as it is now; None while it is not there or cannot be read."""
    why: str
    """Why it is not there or could not be read; empty otherwise."""
    anew: bool
    """Whether the run went back or was begun again: what came before counts no longer."""
    rows: tuple[Rows, ...]
    """New rows; after `anew` from the first one on."""
    more: bool
    """Whether there is more to be had by the next look at once."""
    changed: bool = True
    """Whether the run's files have changed since the last look."""


class RunTail:
    """Reads a run while another process writes it: each row once, and only committed ones.

    Takes no lock and writes nothing. A look at a run that has not changed costs two calls of
    ``stat``; otherwise run.json, the store's metadata and the new rows are read, of each array also
    the last row that is known. If that has changed, or is gone, or another process has taken up the
    recording, the run went back to a checkpoint: everything is read anew and `News.anew` says so.
    What is read while the run goes back is thrown away.

    Args:
        path: The run's directory; it need not exist yet.
        groups: Groups of the store that are read: those whose rows are small.

    Example:
        >>> import phasescope as ps, tempfile, torch
        >>> folder, model = tempfile.mkdtemp() + "/run", torch.nn.Linear(2, 1)
        >>> tail = RunTail(folder)
        >>> tail.poll().why.endswith("is not there yet")
        True
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> save = {"weights": ps.every(1)}
        >>> with ps.Recorder(folder, model, optimizer, save=save) as recorder:
        ...     for step in range(3):
        ...         model(torch.ones(1, 2)).sum().backward()
        ...         optimizer.step()
        ...         recorder.log(loss=float(step))
        >>> [(rows.name, rows.values[:, 0].tolist()) for rows in tail.poll().rows]
        [('metrics/loss', [0.0, 1.0, 2.0])]
        >>> tail.poll().changed
        False
    """

    def __init__(self, path: Path | str, groups: tuple[str, ...] = WATCHED) -> None:
        self.path = Path(path)
        self._groups = groups
        self._seen: tuple[Any, ...] = ()
        self._run: Run | None = None
        self._forget()

    def _forget(self) -> None:
        # Of every array: how many rows were read, and the last one of them.
        self._known: dict[str, tuple[int, int, np.ndarray]] = {}
        self._session: tuple[Any, Any] | None = None

    def poll(self) -> News:
        """Whatever is new."""
        seen = _state_of(self.path)
        if seen and seen == self._seen:
            return News(self._run, "", False, (), False, changed=False)
        try:
            run = open_run(self.path)
            session = _session(run, self._session)
            began = self._session is not None and session != self._session
            found = None if began else self._read(run, self._known)
            anew = found is None
            found = self._read(run, {}) if found is None else found
        except (RunError, OSError) as error:
            return self._failed(error)
        if found is None or self._went_back(run, found):
            return News(run, "the run is going back to a checkpoint", False, (), True)
        rows = tuple(read for read, _ in found)
        if anew:
            self._known = {}
        for read, end in found:
            self._known[read.name] = (end, int(read.steps[-1]), read.values[-1].copy())
        self._session, self._run = session, run
        more = any(run.n_rows(name) > end for name, (end, _, _) in self._known_of(run))
        self._seen = () if more else seen
        return News(run, "", anew, rows, more)

    def _known_of(self, run: Run) -> list[tuple[str, tuple[int, int, np.ndarray]]]:
        return [item for item in self._known.items() if item[0] in run.series_names]

    def _read(
        self, run: Run, known: dict[str, tuple[int, int, np.ndarray]]
    ) -> list[tuple[Rows, int]] | None:
        """New rows and the number of the row behind them; None if known rows have changed."""
        found = []
        for name in run.series_names:
            if name.split("/")[0] not in self._groups:
                continue
            n, step, last = known.get(name, (0, -1, np.empty(0)))
            committed = run.n_rows(name)
            if committed < n:
                return None
            if committed == n:
                continue
            first = max(n - 1, 0)  # the last known row again
            columns = run.rows_from(name, first, first).shape[1]
            most = min(MOST_ROWS, max(1, MOST_BYTES // (4 * max(columns, 1))))
            stop = min(committed, n + most)
            series = run.rows_from(name, first, stop)
            values, steps = series[:], series.steps
            if n:
                if steps[0] != step or values[0].tobytes() != last.tobytes():
                    return None
                values, steps = values[1:], steps[1:]
            found.append((Rows(name, tuple(series.labels or ()), steps, values), stop))
        return found

    def _went_back(self, run: Run, found: list[tuple[Rows, int]]) -> bool:
        """Whether rows that were just read may not be those that were committed."""
        try:
            now = open_run(self.path)
        except (RunError, OSError):
            return True
        if _session(now, _session(run, None)) != _session(run, None):
            return True
        names = now.series_names
        return any(read.name not in names or now.n_rows(read.name) < end for read, end in found)

    def _failed(self, error: Exception) -> News:
        anew, self._seen = self._run is not None and not (self.path / RUN_FILE).is_file(), ()
        if anew:
            self._run = None
            self._forget()
        return News(self._run, why_not_there(self.path) or str(error), anew, (), False, anew)


def _state_of(path: Path) -> tuple[Any, ...]:
    """What changes whenever one of the two files of a run is replaced; empty without them."""
    found = []
    for file in (path / RUN_FILE, path / STORE / "zarr.json"):
        try:
            stat = file.stat()
        except OSError:
            return ()
        found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def _session(run: Run, before: tuple[Any, Any] | None) -> tuple[Any, Any]:
    """When the run was created, and when its present process began to write.

    A recorder writes run.json when it begins, when it takes up a run, and when it ends.
    """
    modified = run.info.get("modified")
    if run.status != "recording" and before is not None:
        modified = before[1]
    return run.info.get("created"), modified


def why_not_there(path: Path) -> str:
    """Why a directory holds no run (yet), in words; empty if it seems to hold one."""
    if not path.exists():
        return f"{path} is not there yet"
    if not path.is_dir():
        return f"{path} is a file; a run is a directory"
    if (path / RUN_FILE).is_file():
        return "" if (path / STORE / "zarr.json").is_file() else f"{path} is being begun"
    below = sorted(p.parent for depth in ("*", "*/*") for p in path.glob(f"{depth}/{RUN_FILE}"))
    if below:
        names = ", ".join(str(p) for p in below[:8])
        more = f" and {len(below) - 8} more" if len(below) > 8 else ""
        return f"{path} holds no {RUN_FILE}, but below it are the runs {names}{more}"
    return f"{path} holds no {RUN_FILE} yet"
