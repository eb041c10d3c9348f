"""A recorded run as its reader sees it: committed steps only, without the model."""

from __future__ import annotations

import difflib
import html
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phasescope.parameters import Component, ParameterTable
from phasescope.trajectory.lock import RunLock
from phasescope.trajectory.schema import (
    GROUPS,
    STEP,
    STORE,
    read_metadata,
    read_run_file,
    validate_store,
)
from phasescope.trajectory.series import Series
from phasescope.trajectory.sketch import CountSketch
from phasescope.trajectory.store import TrajectoryStore, read_steps

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class Run:
    """A recorded run: a snapshot of what was committed when it was opened.

    Made by `open_run`. ``run["norms/updates"]`` is any recorded array; the large groups have names
    of their own. Open it again to see what has been recorded since.
    """

    path: Path
    info: dict[str, Any]
    metadata: dict[str, Any]

    @cached_property
    def parameters(self) -> ParameterTable:
        """Name, shape and offset of every tensor of the flat vector."""
        return ParameterTable.from_json(self.info["parameters"])

    @cached_property
    def components(self) -> dict[str, Component]:
        """The components whose norms were recorded, ready for ``gram(components=...)``.

        Subspaces are left out: a run keeps their name, not their basis.
        """
        rows = self.info.get("components") or []
        return {row["name"]: Component.from_json(row) for row in rows if "blocks" in row}

    @property
    def sketch(self) -> CountSketch | None:
        """The sketch that made the group ``sketches``, if it was recorded."""
        stored = self.info.get("sketch")
        return None if stored is None else CountSketch.from_json(stored)

    @property
    def status(self) -> str:
        """``recording``, ``complete`` or ``interrupted``, as the recorder left it."""
        return self.info["status"]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that was given to the recorder."""
        return self.info["config"]

    @property
    def origin(self) -> dict[str, Any] | None:
        """Where a fork came from: run, step and intervention; None if it began by itself."""
        return self.info.get("origin")

    @cached_property
    def series_names(self) -> tuple[str, ...]:
        """Names of all recorded arrays; ``gradients/values`` is called ``gradients``."""
        names = []
        for key, node in self._nodes.items():
            if node["node_type"] == "array" and node["dimension_names"][0] == STEP:
                group, name = key.rsplit("/", 1)
                if name != STEP:
                    names.append(group if name == "values" else key)
        return tuple(names)

    @property
    def _nodes(self) -> dict[str, dict[str, Any]]:
        return self.metadata["consolidated_metadata"]["metadata"]

    def __getitem__(self, name: str) -> Series:
        """The recorded array called `name`, such as ``gradients`` or ``metrics/train_loss``."""
        return self.rows_from(name, 0)

    def n_rows(self, name: str) -> int:
        """Committed rows of an array; reads nothing."""
        return self._nodes[f"{self._key(name).rsplit('/', 1)[0]}/{STEP}"]["shape"][0]

    def rows_from(self, name: str, start: int, stop: int | None = None) -> Series:
        """The rows of an array from the `start`-th on; nothing before them is read.

        Args:
            name: As in ``run[name]``.
            start: Number of the first row, from 0.
            stop: Number of the row behind the last; all that are committed by default.

        Returns:
            A series of these rows only: its row 0 is row `start` of the array.

        Raises:
            KeyError: Nothing of this name was recorded.
            ValueError: The array has fewer rows.
        """
        key = self._key(name)
        group = key.rsplit("/", 1)[0]
        store = self.path / STORE
        rows = self.n_rows(name)
        stop = rows if stop is None else stop
        if not 0 <= start <= stop <= rows:
            raise ValueError(
                f"rows of {name} must lie within the {rows} that {self.path} has committed, but "
                f"{start} to {stop} were asked for. Open the run again to see what came since."
            )
        steps = read_steps(store / group, stop, start)
        labels = tuple(row["name"] for row in self.info.get("components") or ())
        return Series(name, store / key, self._nodes[key], steps, self.parameters, labels, start)

    def _key(self, name: str) -> str:
        """Where an array lies in the store."""
        if name not in self.series_names:
            raise KeyError(self._why_missing(name))
        whole = name in self._nodes and "shape" in self._nodes[name]
        return name if whole else f"{name}/values"

    def _why_missing(self, name: str) -> str:
        held = list(self.series_names)
        close = difflib.get_close_matches(name, held, n=1, cutoff=0.75)
        inside = [series for series in held if series.startswith(f"{name}/")]
        if name in self.info.get("save", {}) and not inside:
            return (
                f"{self.path} recorded {name!r}, but it has been deleted since, as experiments do "
                f"once they have analysed it (--keep-trajectory keeps it). It holds {held}."
            )
        advice = f"Did you mean {close[0]!r}?" if close else ""
        if inside:
            advice = f"Name one of {inside}."
        elif name.split("/")[0] in GROUPS and not close:
            advice = f"Record it with Recorder(..., save={{{name!r}: phasescope.every(1)}})."
            if name.startswith("metrics"):
                advice = f"Record it with recorder.log({name.partition('/')[2] or 'name'}=...)."
        return f"{self.path} has not recorded {name!r}; it holds {held}. {advice}".rstrip()

    @property
    def gradients(self) -> Series:
        """What the optimizer consumed at each step, steps x parameters."""
        return self["gradients"]

    @property
    def updates(self) -> Series:
        """Change of the weights made by each update, steps x parameters."""
        return self["updates"]

    @property
    def decay(self) -> Series:
        """The part of each update made by decoupled weight decay, steps x parameters."""
        return self["decay"]

    @property
    def weights(self) -> Series:
        """Weights before each update, steps x parameters."""
        return self["weights"]

    def dataset(self, group: str) -> xarray.Dataset:
        """A group as a labelled xarray Dataset, lazily read: ``run.dataset("metrics")``."""
        import xarray

        if self._nodes.get(group, {}).get("node_type") != "group":
            raise KeyError(self._why_missing(group))
        return xarray.open_zarr(self.path / STORE, group=group)

    def __repr__(self) -> str:
        """What was recorded, a line per array."""
        lines = [f"<Run {self.path.name}: {self.status}, {self.parameters.size:,} parameters>"]
        lines += [f"  {name:24s} {n:>8,} rows  {span}" for name, n, span in self._table()]
        lines += [f"  {line}" for line in self.remarks()]
        return "\n".join(lines)

    def _table(self) -> list[tuple[str, int, str]]:
        rows = []
        for name in self.series_names:
            steps = self[name].steps
            span = f"steps {steps[0]} … {steps[-1]}" if len(steps) else "nothing yet"
            rows.append((name, len(steps), span))
        return rows

    def remarks(self) -> list[str]:
        """What a reader must know before trusting the numbers."""
        remarks = []
        if self.origin is not None:
            remarks.append(
                f"forked from {self.origin['run']} at step {self.origin['step']}, intervention: "
                f"{self.origin['intervention']}"
            )
        bad = self.info.get("nonfinite") or []
        if bad:
            first = bad[0]
            remarks.append(
                f"not finite: gradients of {len(bad)}{'+' if len(bad) == 100 else ''} steps, first "
                f"step {first['step']} ({first['kind']} in {first['parameter']})"
            )
        missing = self.info.get("missing_gradients") or {}
        if missing:
            remarks.append(f"without gradient at some steps: {', '.join(missing)}")
        dense = self.info.get("densified_gradients") or []
        if dense:
            remarks.append(f"sparse gradients recorded as dense: {', '.join(dense)}")
        skips = self._nodes.get(f"skipped/{STEP}")
        if skips and skips["shape"][0]:
            n = skips["shape"][0]
            remarks.append(f"{n} update{'s' * (n > 1)} skipped by a gradient scaler: see 'skipped'")
        if self.info.get("failure"):
            remarks.append(f"recording ended early: {self.info['failure']}")
        return remarks

    def _repr_html_(self) -> str:
        """The same as a table, for notebooks."""
        steps = f"{self.info.get('step', 0):,} updates, {self.info.get('optimizer', 'unknown')}"
        title = f"{self.path.name}: {self.status}, {steps}, {self.parameters.size:,} parameters"
        remarks = "".join(f"<p>{html.escape(line)}</p>" for line in self.remarks())
        body = "".join(
            f"<tr><td>{html.escape(name)}</td><td style='text-align:right'>{n:,}</td>"
            f"<td>{html.escape(span)}</td></tr>"
            for name, n, span in self._table()
        )
        return (
            f"<table><caption>{html.escape(title)}</caption><thead><tr><th>recorded</th>"
            f"<th>rows</th><th>steps</th></tr></thead><tbody>{body}</tbody></table>{remarks}"
        )


def delete_group(path: str | Path, group: str) -> None:
    """Delete a recorded group, such as gradients whose Gram matrix has been taken.

    Readers that opened the run before can no longer read it; what else was recorded stays as it is.

    Args:
        path: The run's directory.
        group: A group of the store: ``gradients``, ``probes/logits``, …

    Raises:
        KeyError: The run has no such group.
        RunError: The directory is not a run, or is being written.

    Example:
        >>> import phasescope as ps, torch, tempfile
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> directory = tempfile.mkdtemp() + "/run"
        >>> save = {"gradients": ps.every(1), "norms/gradients": ps.every(1)}
        >>> with ps.Recorder(directory, model, optimizer, save=save):
        ...     pass
        >>> delete_group(directory, "gradients")
        >>> ps.open_run(directory).series_names
        ('norms/gradients',)
    """
    path = Path(path)
    read_run_file(path)
    lock = RunLock(path)
    try:
        store = TrajectoryStore(path / STORE)
        if group not in store.groups:
            raise KeyError(
                f"{path} has no group {group!r} to delete; it has {sorted(store.groups)}."
            )
        store.remove_group(group)
    finally:
        lock.release()


def open_run(path: str | Path) -> Run:
    """A recorded run, complete or still being written, without its model.

    Args:
        path: The run's directory.

    Returns:
        A snapshot of the steps committed so far.

    Raises:
        RunError: The directory is not a run, is damaged, or has another schema version.

    Example:
        >>> import phasescope as ps, torch, tempfile
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> directory = tempfile.mkdtemp() + "/run"
        >>> with ps.Recorder(directory, model, optimizer, save={"gradients": ps.every(1)}):
        ...     model(torch.ones(4, 2)).mean().backward()
        ...     optimizer.step()
        >>> ps.open_run(directory).gradients[0]
        array([1., 1., 1.], dtype=float32)
    """
    path = Path(path)
    info = read_run_file(path)
    metadata = read_metadata(path / STORE)
    run = Run(path, info, metadata)
    validate_store(metadata, run.parameters.size, path / STORE)
    return run
