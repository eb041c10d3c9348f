"""A recorded run as its reader sees it: committed steps only, without the model."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phasescope.errors import RunError
from phasescope.parameters import ParameterTable
from phasescope.trajectory.schema import PARAMETER, STEP, STORE, read_run_file
from phasescope.trajectory.store import read_metadata, read_steps

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
        value_shape: Shape of one row before flattening.
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
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        row_list = _positions(rows, self.shape[0], "rows", self.name)
        column_list = _positions(columns, self.shape[1], "columns", self.name)
        start, stop = (column_list[0], column_list[-1] + 1) if len(column_list) else (0, 0)
        if len(column_list) > 1 and column_list.step < 0:
            start, stop = column_list[-1], column_list[0] + 1
        out = np.empty((len(row_list), stop - start), np.float32)
        self._read(row_list, start, stop, out)
        picked = out[:, [c - start for c in column_list]] if abs(column_list.step) != 1 else out
        picked = picked[:, ::-1] if column_list.step == -1 else picked
        picked = picked[0] if isinstance(rows, int | np.integer) else picked
        return picked[..., 0] if isinstance(columns, int | np.integer) else picked

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All values in memory."""
        return self[:].astype(dtype or np.float32, copy=False)

    def read_columns(self, start: int, stop: int, out: np.ndarray) -> None:
        """Fill ``out[rows, stop - start]`` (float32, C-contiguous) with the columns of every row."""
        self._read(range(self.shape[0]), start, stop, out)

    def _read(self, rows: range, start: int, stop: int, out: np.ndarray) -> None:
        """Chunk file by chunk file; a run of full-width rows is one read into place."""
        done = 0
        while done < len(rows):
            chunk = rows[done] // self._chunk_rows
            n = 1
            while done + n < len(rows) and rows[done + n] // self._chunk_rows == chunk:
                n += 1
            offsets = [rows[i] - chunk * self._chunk_rows for i in range(done, done + n)]
            column = start
            while column < stop:
                index = column // self.chunk_columns
                end = min(stop, (index + 1) * self.chunk_columns)
                target = out[done : done + n, column - start : end - start]
                self._read_chunk(chunk, index, offsets, column - index * self.chunk_columns, target)
                column = end
            done += n

    def _read_chunk(
        self, chunk: int, index: int, offsets: list[int], first: int, out: np.ndarray
    ) -> None:
        tail = [str(index), *["0"] * (self._n_tail - 1)] if self._n_tail else []
        path = self._path.joinpath("c", str(chunk), *tail)
        width, n = self.chunk_columns, len(offsets)
        size = self._stored.itemsize
        direct = not self._bfloat16 and self._stored == np.dtype("<f4")
        rows = out if direct else np.empty(out.shape, self._stored)
        try:
            file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed below, in every case
        except FileNotFoundError:
            out[:] = self._fill
            return
        with file:
            contiguous = offsets == list(range(offsets[0], offsets[0] + n))
            if contiguous and rows.shape[1] == width and rows.flags.c_contiguous:
                file.seek(offsets[0] * width * size)
                _fill(file, memoryview(rows).cast("B"), path)
            else:
                for i, offset in enumerate(offsets):
                    file.seek((offset * width + first) * size)
                    _fill(file, memoryview(rows[i]).cast("B"), path)
        if self._bfloat16:
            out[:] = (rows.astype(np.uint32) << 16).view(np.float32)
        elif not direct:
            out[:] = rows

    def array(self) -> np.ndarray:
        """All rows under the shape of one value: ``[rows, *value_shape]``."""
        return self[:].reshape(len(self), *self.value_shape)


def _fill(file: Any, view: memoryview, path: Path) -> None:
    while view:
        n = file.readinto(view)
        if not n:
            raise RunError(
                f"{path} must hold whole chunks, but it ends early: the file was cut off. "
                "The steps of this block are lost; record them again by resuming the run."
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
            raise KeyError(
                f"{self.path} has not recorded {name!r}; it holds {list(self.series_names)}. "
                f"Record it with Recorder(..., save={{{name!r}: phasescope.every(1)}})."
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
    return Run(path, info, read_metadata(path / STORE))
