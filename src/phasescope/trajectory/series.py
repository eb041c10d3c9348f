"""One recorded array, read from its chunk files as it is sliced."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from phasescope.errors import RunError
from phasescope.parameters import ParameterTable
from phasescope.trajectory.schema import COMPONENT, PARAMETER, TENSOR

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
        labels: Names of the columns, where they have some (tensors, components).
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
        self,
        name: str,
        path: Path,
        node: dict[str, Any],
        steps: np.ndarray,
        table: ParameterTable,
        components: tuple[str, ...] = (),
        first_row: int = 0,
    ) -> None:
        self.name = name
        self.steps = steps
        self._path = path
        self._first_row = first_row
        self.value_shape = tuple(node["shape"][1:])
        columns = math.prod(self.value_shape)
        self.shape = (len(steps), columns)
        self.dtype = np.dtype(np.float32)
        dimensions = node["dimension_names"]
        self.parameters = table if dimensions[1:] == [PARAMETER] else None
        labels = {TENSOR: table.names, COMPONENT: components}
        self.labels = labels.get(dimensions[1]) if len(dimensions) == 2 else None
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
        first = self._first_row
        by_chunk = itertools.groupby(
            range(len(rows)), lambda i: (first + rows[i]) // self._chunk_rows
        )
        for chunk, group in by_chunk:
            positions = list(group)
            offsets = [(first + rows[i]) % self._chunk_rows for i in positions]
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
