"""One Zarr 3 store on local disk to which blocks of rows are appended and committed.

An uncompressed Zarr chunk is a file of raw little-endian values, so rows are written straight into
the chunk files. What counts is the store's ``zarr.json``: it carries the metadata of every array
(Zarr's consolidated metadata), is replaced in one rename, and its shapes are the commit marker.
Rows beyond them do not exist for any reader, whatever the chunk files hold.

Axis letters: t rows, p columns.
"""

from __future__ import annotations

import math
import shutil
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from phasescope.errors import RunError
from phasescope.trajectory.chunkfile import ChunkFiles
from phasescope.trajectory.files import write_json
from phasescope.trajectory.schema import STEP, read_metadata

STEP_CHUNK = 4096
_CODECS: dict[str, str] = {"string": "vlen-utf8"}


@dataclass(frozen=True)
class ArraySpec:
    """An array that grows along its first dimension.

    Args:
        dtype: NumPy name of the element type.
        tail: Shape of one row.
        dimensions: Names of the dimensions after `step`.
        chunk_rows: Rows of a chunk file.
        chunk_columns: Columns of a chunk file, for rows of one dimension; all of them by default.
        fill: Value of entries that were never written.
        attributes: What xarray shows beside the array, such as its unit.
    """

    dtype: str
    tail: tuple[int, ...]
    dimensions: tuple[str, ...]
    chunk_rows: int
    chunk_columns: int | None = None
    fill: float | int = 0
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def chunk_tail(self) -> tuple[int, ...]:
        """Shape of a chunk apart from its rows."""
        return self.tail if self.chunk_columns is None else (self.chunk_columns,)

    @property
    def n_column_chunks(self) -> int:
        """Chunk files side by side in one block of rows."""
        return 1 if self.chunk_columns is None else math.ceil(self.tail[0] / self.chunk_columns)

    @property
    def width(self) -> int:
        """Entries of a row as it is written, padding included."""
        return self.n_column_chunks * math.prod(self.chunk_tail)

    def metadata(self, rows: int) -> dict[str, Any]:
        """The Zarr 3 metadata of the array with `rows` committed rows."""
        return _array_metadata(
            [rows, *self.tail],
            [self.chunk_rows, *(max(1, n) for n in self.chunk_tail)],
            self.dtype,
            [STEP, *self.dimensions],
            self.fill,
            self.attributes,
        )


def _array_metadata(
    shape: list[int],
    chunks: list[int],
    dtype: str,
    dimensions: list[str],
    fill: float | int | str,
    attributes: dict[str, Any],
) -> dict[str, Any]:
    codec = _CODECS.get(dtype)
    bytes_codec: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN" if isinstance(fill, float) and math.isnan(fill) else fill,
        "codecs": [{"name": codec, "configuration": {}} if codec else bytes_codec],
        "attributes": attributes,
        "dimension_names": dimensions,
    }


def _group_metadata(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


class GroupWriter:
    """The arrays of one group, their common `step` coordinate, and how many rows are committed."""

    def __init__(self, directory: Path, specs: Mapping[str, ArraySpec], rows: int) -> None:
        self.directory = directory
        self.specs = dict(specs)
        self.rows = rows
        self.last_step = int(read_steps(directory, rows)[-1]) if rows else -1
        self._files = ChunkFiles()

    def add_arrays(self, specs: Mapping[str, ArraySpec]) -> None:
        """Take up arrays that are not there yet; earlier rows of theirs hold the fill value."""
        for name, spec in specs.items():
            if name not in self.specs:
                # A killed process may have left values that were never committed.
                shutil.rmtree(self.directory / name, ignore_errors=True)
                self.specs[name] = spec

    def write(
        self, steps: np.ndarray, values: Mapping[str, np.ndarray], *, direct: bool = False
    ) -> None:
        """Write rows after the committed ones; they count from the next commit on.

        Args:
            steps: The step of every row.
            values: The rows of every array.
            direct: Try to write past the page cache; see `ChunkFiles.write`.
        """
        self._write_rows(STEP, _STEP_SPEC, self.rows, steps.reshape(-1, 1))
        for name, rows in values.items():
            self._write_rows(name, self.specs[name], self.rows, rows, direct=direct)
        self.rows += len(steps)
        self.last_step = int(steps[-1])

    def _write_rows(
        self, name: str, spec: ArraySpec, start: int, rows: np.ndarray, *, direct: bool = False
    ) -> None:
        """Write ``rows[n, width]`` into the chunk files that hold the rows from `start` on."""
        done = 0
        while done < len(rows):
            chunk, offset = divmod(start + done, spec.chunk_rows)
            n = min(spec.chunk_rows - offset, len(rows) - done)
            for column in range(spec.n_column_chunks):
                width = spec.width // spec.n_column_chunks
                self._files.write(
                    self._chunk_path(name, spec, chunk, column),
                    rows[done : done + n, column * width : (column + 1) * width],
                    offset,
                    chunk_rows=spec.chunk_rows,
                    fill=spec.fill,
                    direct=direct,
                )
            done += n

    def _chunk_path(self, name: str, spec: ArraySpec, chunk: int, column: int) -> Path:
        if not spec.tail:
            return self.directory / name / "c" / str(chunk)
        rest = [str(column)] + ["0"] * (len(spec.tail) - 1)
        return self.directory.joinpath(name, "c", str(chunk), *rest)

    def truncate(self, step: int) -> None:
        """Forget the rows whose step is `step` or later; they are gone from the next commit on."""
        steps = read_steps(self.directory, self.rows)
        self.rows = int(np.searchsorted(steps, step))
        self.last_step = int(steps[self.rows - 1]) if self.rows else -1

    def delete_unused(self) -> None:
        """Delete the chunk files behind the last row; only after a commit that forgets them."""
        for name, spec in [(STEP, _STEP_SPEC), *self.specs.items()]:
            kept = math.ceil(self.rows / spec.chunk_rows)
            folder = self.directory / name / "c"
            for path in folder.iterdir() if folder.is_dir() else ():
                if int(path.name) >= kept:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


_STEP_SPEC = ArraySpec("int64", (), (), STEP_CHUNK, attributes={"long_name": "updates applied"})


def read_steps(directory: Path, rows: int, start: int = 0) -> np.ndarray:
    """The step values of a group's rows from `start` up to `rows`; no chunk before is read.

    Raises:
        RunError: A chunk file is missing or cut off.
    """
    folder = directory / STEP / "c"
    chunks = [np.empty(0, np.int64)]
    first = start // STEP_CHUNK
    for i in range(first, math.ceil(rows / STEP_CHUNK)):
        path = folder / str(i)
        chunks.append(np.fromfile(path, "<i8") if path.exists() else chunks[0])
        if len(chunks[-1]) != STEP_CHUNK:
            raise RunError(
                f"{path} must hold {STEP_CHUNK} steps, but it holds {len(chunks[-1])}: the file is "
                "missing or was cut off. Restore it from a copy, or record the run again."
            )
    return np.concatenate(chunks)[start - first * STEP_CHUNK : rows - first * STEP_CHUNK]


class TrajectoryStore:
    """A Zarr 3 store whose groups grow in steps of commits.

    Args:
        path: The store's folder.
        attributes: Attributes of the root group, for a new store.

    Raises:
        RunError: An existing store cannot be read.
    """

    def __init__(self, path: Path, attributes: dict[str, Any] | None = None) -> None:
        self.path = path
        self.groups: dict[str, GroupWriter] = {}
        self._attributes: dict[str, dict[str, Any]] = {}
        self._fixed: dict[str, dict[str, Any]] = {}
        self._written: dict[str, dict[str, Any]] = {}
        # The loop adds groups while the writer's thread commits others.
        self._lock = threading.Lock()
        if (path / "zarr.json").exists():
            self._load()
            return
        path.mkdir(parents=True, exist_ok=True)
        self._attributes[""] = attributes or {}
        self.commit()

    def _load(self) -> None:
        root = read_metadata(self.path)
        nodes = root["consolidated_metadata"]["metadata"]
        self._attributes[""] = root["attributes"]
        specs: dict[str, dict[str, ArraySpec]] = {}
        rows: dict[str, int] = {}
        for key, node in nodes.items():
            if node["node_type"] == "group":
                self._attributes[key] = node["attributes"]
                continue
            group, name = key.rsplit("/", 1)
            if name == STEP:
                rows[group] = node["shape"][0]
            elif node["dimension_names"][0] == STEP:
                specs.setdefault(group, {})[name] = _spec_of(node)
            else:
                self._fixed[key] = node
        for group, count in rows.items():
            self.groups[group] = GroupWriter(self.path / group, specs.get(group, {}), count)

    def add_group(
        self,
        name: str,
        specs: Mapping[str, ArraySpec],
        *,
        attributes: dict[str, Any] | None = None,
        labels: Mapping[str, Sequence[str]] | None = None,
    ) -> GroupWriter:
        """Create a group (parents included) with its growing arrays and its label coordinates."""
        group = GroupWriter(self.path / name, {}, 0)
        group.add_arrays(specs)
        fixed: dict[str, dict[str, Any]] = {}
        for dimension, values in (labels or {}).items():
            fixed[f"{name}/{dimension}"] = _array_metadata(
                [len(values)], [max(1, len(values))], "string", [dimension], "", {}
            )
            path = group.directory / dimension / "c" / "0"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_encode_strings(values))
        parts = name.split("/")
        with self._lock:
            for i in range(1, len(parts)):
                self._attributes.setdefault("/".join(parts[:i]), {})
            self._attributes[name] = attributes or {}
            self._fixed |= fixed
            self.groups[name] = group
        return group

    def remove_group(self, name: str) -> None:
        """Forget a group in one commit, then delete its files."""
        del self.groups[name]
        self._attributes.pop(name, None)
        inside = f"{name}/"
        self._fixed = {k: v for k, v in self._fixed.items() if not k.startswith(inside)}
        self.commit()
        shutil.rmtree(self.path / name)

    def commit(self) -> None:
        """Make every row written so far count, in one atomic rename."""
        with self._lock:
            self._commit()

    def _commit(self) -> None:
        nodes: dict[str, dict[str, Any]] = {}
        for name, attributes in self._attributes.items():
            if name:
                nodes[name] = _group_metadata(attributes)
        for name, group in self.groups.items():
            nodes[f"{name}/{STEP}"] = _STEP_SPEC.metadata(group.rows)
            for array, spec in group.specs.items():
                nodes[f"{name}/{array}"] = spec.metadata(group.rows)
        # zarr-python groups the keys by parent as they come, so siblings must stand together.
        nodes = dict(sorted((nodes | self._fixed).items()))
        root = _group_metadata(self._attributes[""])
        root["consolidated_metadata"] = {
            "kind": "inline",
            "must_understand": False,
            "metadata": nodes,
        }
        write_json(self.path / "zarr.json", root, indent=None)
        # After the root: whatever reads a node by itself never sees more than was committed.
        for key, node in nodes.items():
            self._write_node(key, node)

    def truncate(self, step: int) -> None:
        """Drop the rows whose step is `step` or later, in every group, and commit."""
        for group in self.groups.values():
            group.truncate(step)
        self.commit()
        for group in self.groups.values():
            group.delete_unused()

    def _write_node(self, key: str, node: dict[str, Any]) -> None:
        """Write a node's own metadata if it changed, for readers that skip the root's."""
        if self._written.get(key) != node:
            write_json(self.path / key / "zarr.json", node, indent=None)
            self._written[key] = node


def holds_rows(path: Path) -> bool:
    """Whether a folder holds committed rows, or anything that is not a store of ours.

    A process that dies while it begins a run leaves an empty store, or a temporary file only.
    """
    if not path.exists():
        return False
    if not path.is_dir():
        return True
    if not (path / "zarr.json").exists():
        return any(not entry.name.startswith("zarr.json.") for entry in path.iterdir())
    try:
        nodes = read_metadata(path)["consolidated_metadata"]["metadata"]
        return any(nodes[key]["shape"][0] for key in nodes if key.endswith(f"/{STEP}"))
    except (RunError, KeyError, TypeError):
        return True


def _spec_of(node: dict[str, Any]) -> ArraySpec:
    chunks = node["chunk_grid"]["configuration"]["chunk_shape"]
    tail = tuple(node["shape"][1:])
    one_dimensional = len(tail) == 1 and chunks[1] != max(1, tail[0])
    return ArraySpec(
        dtype=node["data_type"],
        tail=tail,
        dimensions=tuple(node["dimension_names"][1:]),
        chunk_rows=chunks[0],
        chunk_columns=chunks[1] if one_dimensional else None,
        fill=math.nan if node["fill_value"] == "NaN" else node["fill_value"],
        attributes=node["attributes"],
    )


def _encode_strings(values: Sequence[str]) -> bytes:
    """The chunk of Zarr's vlen-utf8 codec: a count, then length and bytes of every string."""
    encoded = [value.encode() for value in values]
    parts = [struct.pack("<I", len(encoded))]
    for item in encoded:
        parts += [struct.pack("<I", len(item)), item]
    return b"".join(parts)
