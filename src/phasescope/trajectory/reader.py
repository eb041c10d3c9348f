"""A recorded run as its reader sees it: committed steps only, without the model."""

from __future__ import annotations

import html
import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phasescope.errors import RunError
from phasescope.parameters import ParameterTable
from phasescope.trajectory.lock import RunLock
from phasescope.trajectory.schema import (
    PARAMETER,
    STEP,
    STORE,
    read_metadata,
    read_run_file,
    validate_store,
)
from phasescope.trajectory.store import TrajectoryStore, read_steps

if TYPE_CHECKING:
    import xarray

BFLOAT16 = "bfloat16"


class Series:
    """One recorded array, a row per recorded step, read from disk as it is sliced.

    Behaves like a two-dimensional array of float32 (bfloat16 codes are decoded on reading), so the
    analyses take it as it is. What it shows was committed when the run was opened.

    Attributes:
        name: Path in the store, such as ``gradients`` or ``norms/updates``.
        shape: ``(rows, columns)``; the dimensions of a probe's value are flattened into columns.
        dtype: float32.
        steps: Step of every row, strictly increasing.
        parameters: The table of the columns, for groups over parameters.
        labels: Names of the columns, where they have some (tensors).
        chunk_columns: Columns of a chunk file, the natural width of a column read.
        value_shape: Shape of one row before flattening.

    Example:
        >>> import phasescope as ps, torch, tempfile
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> directory = tempfile.mkdtemp() + "/run"
        >>> with ps.Recorder(directory, model, optimizer, save={"gradients": ps.every(2)}):
        ...     for step in range(5):
        ...         optimizer.zero_grad()
        ...         (step * model(torch.ones(1, 2))).sum().backward()
        ...         optimizer.step()
        >>> gradients = ps.open_run(directory).gradients
        >>> gradients
        <Series gradients: 3 x 3 float32, steps 0…4>
        >>> gradients.steps, gradients[-1, :2]
        (array([0, 2, 4]), array([4., 4.], dtype=float32))
    """

    def __init__(
        self, name: str, path: Path, node: dict[str, Any], steps: np.ndarray, table: ParameterTable
    ) -> None:
        self.name = name
        self.steps = steps
        self._path = path
        self.value_shape = tuple(node["shape"][1:])
        columns = math.prod(self.value_shape)
        self.shape = (len(steps), columns)
        self.dtype = np.dtype(np.float32)
        dimensions = node["dimension_names"]
        self.parameters = table if dimensions[1:] == [PARAMETER] else None
        self.labels = table.names if dimensions[1:] == ["tensor"] else None
        chunk = node["chunk_grid"]["configuration"]["chunk_shape"]
        self._chunk_rows = chunk[0]
        # Only arrays over parameters are cut into columns; the others keep a row in one file.
        self.chunk_columns = chunk[1] if self.parameters else max(1, columns)
        self._n_tail = len(self.value_shape)
        self._stored = np.dtype(node["data_type"]).newbyteorder("<")
        self._bfloat16 = node["attributes"].get("encoding") == BFLOAT16
        self._fill = np.nan if node["fill_value"] == "NaN" else node["fill_value"]

    def __len__(self) -> int:
        """Number of recorded steps."""
        return self.shape[0]

    def __repr__(self) -> str:
        """Name, size and steps in one line."""
        span = f"steps {self.steps[0]}…{self.steps[-1]}" if len(self) else "no steps yet"
        return f"<Series {self.name}: {self.shape[0]} x {self.shape[1]} float32, {span}>"

    def __getitem__(self, key: Any) -> np.ndarray:
        """Values of ``[rows]`` or ``[rows, columns]``: integers or slices."""
        row_key, column_key = key if isinstance(key, tuple) else (key, slice(None))
        rows = _positions(row_key, self.shape[0], "rows", self.name)
        columns = _positions(column_key, self.shape[1], "columns", self.name)
        ascending = columns if columns.step > 0 else columns[::-1]
        start, stop = (ascending[0], ascending[-1] + 1) if ascending else (0, 0)
        span = np.empty((len(rows), stop - start), np.float32)
        self._read(rows, start, stop, span)
        picked = span[:, :: columns.step]
        picked = picked[0] if isinstance(row_key, int | np.integer) else picked
        return picked[..., 0] if isinstance(column_key, int | np.integer) else picked

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All values in memory."""
        return self[:].astype(dtype or np.float32, copy=False)

    def read_columns(self, start: int, stop: int, out: np.ndarray) -> None:
        """Fill ``out[rows, stop - start]`` (float32, C-contiguous) with columns of every row."""
        self._read(range(self.shape[0]), start, stop, out)

    def _read(self, rows: range, start: int, stop: int, out: np.ndarray) -> None:
        """Fill `out` chunk file by chunk file."""
        width = self.chunk_columns
        starts = range(start - start % width, stop, width) if start < stop else ()
        by_chunk = itertools.groupby(range(len(rows)), lambda i: rows[i] // self._chunk_rows)
        for chunk, group in by_chunk:
            positions = list(group)
            offsets = [rows[i] % self._chunk_rows for i in positions]
            block = out[positions[0] : positions[-1] + 1]
            for origin in starts:
                left, right = max(start, origin), min(stop, origin + width)
                part = block[:, left - start : right - start]
                self._read_chunk(chunk, origin // width, offsets, left - origin, part)

    def _read_chunk(
        self, chunk: int, index: int, offsets: list[int], first: int, out: np.ndarray
    ) -> None:
        """Fill `out` with some rows of a chunk file, from its column `first` on."""
        tail = [str(index), *["0"] * (self._n_tail - 1)] if self._n_tail else []
        path = self._path.joinpath("c", str(chunk), *tail)
        width, size = self.chunk_columns, self._stored.itemsize
        direct = self._stored == np.dtype("<f4")
        rows: np.ndarray = out if direct else np.empty(out.shape, self._stored)
        try:
            file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed below, in every case
        except FileNotFoundError:
            if not np.isnan(self._fill):  # only metrics leave chunks out, before they first appear
                raise RunError(f"{path} is missing. {_LOST}") from None
            out[:] = self._fill
            return
        with file:
            consecutive = offsets[-1] - offsets[0] == len(offsets) - 1
            if consecutive and out.shape[1] == width and rows.flags.c_contiguous:
                file.seek(offsets[0] * width * size)
                _fill(file, rows.data.cast("B"), path)
            else:
                for row, offset in zip(rows, offsets, strict=True):
                    file.seek((offset * width + first) * size)
                    _fill(file, row.data.cast("B"), path)
        if self._bfloat16:
            out[:] = (rows.astype(np.uint32) << 16).view(np.float32)
        elif not direct:
            out[:] = rows

    def array(self) -> np.ndarray:
        """All rows under the shape of one value: ``[rows, *value_shape]``."""
        return self[:].reshape(len(self), *self.value_shape)


_LOST = "The rows of this block are lost: restore the file from a copy, or record the run again."


def _fill(file: Any, view: memoryview, path: Path) -> None:
    while view:
        n = file.readinto(view)
        if not n:
            raise RunError(
                f"{path} must hold a whole chunk, but it ends early: it was cut off. {_LOST}"
            )
        view = view[n:]


def _positions(key: Any, length: int, what: str, name: str) -> range:
    if isinstance(key, slice):
        return range(*key.indices(length))
    if isinstance(key, int | np.integer):
        if not -length <= key < length:
            raise IndexError(f"{name} has {length} {what}, but index {key} was asked for.")
        position = int(key) % length
        return range(position, position + 1)
    raise TypeError(
        f"{name} is read from disk by slices or integers, but {what} were given as "
        f"{type(key).__name__}. Slice a range first and index the array that comes back."
    )


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

    @property
    def status(self) -> str:
        """``recording``, ``complete`` or ``interrupted``, as the recorder left it."""
        return self.info["status"]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that was given to the recorder."""
        return self.info["config"]

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
        if name not in self.series_names:
            group, _, metric = name.partition("/")
            call = f"Recorder(..., save={{{name!r}: phasescope.every(1)}})"
            if group == "metrics":
                call = f"recorder.log({metric or 'name'}=...)"
            raise KeyError(
                f"{self.path} has not recorded {name!r}; it holds {list(self.series_names)}. "
                f"Record it with {call}."
            )
        key = name if name in self._nodes and "shape" in self._nodes[name] else f"{name}/values"
        group = key.rsplit("/", 1)[0]
        store = self.path / STORE
        rows = self._nodes[f"{group}/{STEP}"]["shape"][0]
        steps = read_steps(store / group, rows)
        return Series(name, store / key, self._nodes[key], steps, self.parameters)

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

        return xarray.open_zarr(self.path / STORE, group=group)

    def __repr__(self) -> str:
        """What was recorded, a line per array."""
        lines = [f"<Run {self.path.name}: {self.status}, {self.parameters.size:,} parameters>"]
        lines += [f"  {name:24s} {n:>8,} rows  {span}" for name, n, span in self._table()]
        return "\n".join(lines)

    def _table(self) -> list[tuple[str, int, str]]:
        rows = []
        for name in self.series_names:
            steps = self[name].steps
            span = f"steps {steps[0]} … {steps[-1]}" if len(steps) else "nothing yet"
            rows.append((name, len(steps), span))
        return rows

    def _repr_html_(self) -> str:
        """The same as a table, for notebooks."""
        title = f"{self.path.name}: {self.status}, {self.parameters.size:,} parameters"
        body = "".join(
            f"<tr><td>{html.escape(name)}</td><td style='text-align:right'>{n:,}</td>"
            f"<td>{html.escape(span)}</td></tr>"
            for name, n, span in self._table()
        )
        return (
            f"<table><caption>{html.escape(title)}</caption><thead><tr><th>recorded</th>"
            f"<th>rows</th><th>steps</th></tr></thead><tbody>{body}</tbody></table>"
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
