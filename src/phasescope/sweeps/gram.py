"""The Gram matrix of a trajectory too large for one machine: column windows on a Dask cluster.

Letters: T steps (rows), P parameters (columns), K = A Aᵀ.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from phasescope.analysis.columns import Source, StepMatrix, source
from phasescope.analysis.gram import Gram, check_components, gathered_entries, gram
from phasescope.analysis.products import product_buffer
from phasescope.errors import PhasescopeError
from phasescope.parameters import Component
from phasescope.sweeps.cluster import connect, cores, threads_per_run, usable_workers
from phasescope.trajectory.reader import open_run
from phasescope.trajectory.schema import RUN_FILE

if TYPE_CHECKING:
    from distributed import Client, Future

# Windows per worker: enough that a slow worker does not hold up the others, and that the loss of
# one costs little. Each leaves 8 T² bytes until it is added to its neighbour.
_WINDOWS_PER_WORKER = 4


def distributed_gram(
    path: str | Path,
    group: str = "gradients",
    *,
    client: Client | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    components: Mapping[str, Component] | None = None,
    dtype: torch.dtype | None = None,
    memory: int = 400_000_000,
    progress: Callable[[float], None] | None = None,
) -> Gram:
    r"""Gram matrix $K = A A^\top$ of a recorded trajectory, its columns shared out over a cluster.

    Every worker takes windows of columns, made of the very blocks that `phasescope.gram` would read
    with the same `memory`; their sums are added pairwise, neighbours first. So every product is the
    local one, and K differs from the local one by the order of the float64 additions only: by
    nothing at all where those are exact, as sums of float32 products usually are, else by a few
    $10^{-16}$ of $\lVert a_s \rVert \lVert a_t \rVert$.

    A worker holds the buffers of one window, `memory` bytes, and a few sums of $8 T^2$ bytes for K
    and for each component. A window whose worker died is read again by another.

    Args:
        path: A run's directory, or a two-dimensional Zarr array; workers must reach it too.
        group: What of the run: ``gradients``, ``updates``, ``weights``, ``norms/updates``, …
        client: A connected `distributed.Client`.
        scheduler: Address of a running Dask scheduler, instead.
        workers: Processes of a local cluster, where neither is given; by default one per core.
        components: Parts of the parameter vector that get a Gram of their own.
        dtype: Of the products; see `phasescope.gram`.
        memory: Bytes for the buffers of a window.
        progress: Called with the share of the columns that are done.

    Returns:
        Inner products, steps and row sums.

    Raises:
        TypeError: An array in memory was given, which workers cannot open.
        ValueError: As `phasescope.gram`; values that are not finite are named with their window.
        RunError: The directory is not a readable run.
        KeyError: The run has no such group.

    Example:
        >>> distributed_gram("runs/mine", scheduler="tcp://127.0.0.1:8786")  # doctest: +SKIP
    """
    matrix = source(_opened(path, group), dtype=dtype)
    work = Passes(matrix, dict(components or {}), memory)
    if client is not None:
        return _gram(client, work, progress)
    with connect(scheduler=scheduler, workers=workers, n_tasks=work.n_blocks) as connected:
        return _gram(connected, work, progress)


def _opened(path: Any, group: str) -> StepMatrix:
    """The matrix behind a path, as something that can be sent to a worker without its values."""
    if not isinstance(path, str | Path):
        raise TypeError(
            "distributed_gram requires a path that every worker can open, a run's directory or a "
            f"Zarr array, but {type(path).__name__} arrived. An array in memory is for "
            "phasescope.gram; of a run pass the directory and the group."
        )
    path = Path(path).absolute()
    zarr_files = ("zarr.json", ".zarray", ".zgroup")
    if (path / RUN_FILE).exists() or not any((path / name).exists() for name in zarr_files):
        return open_run(path)[group]
    import zarr

    found = zarr.open(path, mode="r")
    if not isinstance(found, zarr.Array):
        raise ValueError(
            f"distributed_gram requires a run's directory or one Zarr array, but {path} is a Zarr "
            f"group with {sorted(found.keys())}. Add the array's name to the path."
        )
    return found


@dataclass(frozen=True)
class Passes:
    """How a pass over all columns is cut into passes over windows that read the same blocks.

    Args:
        matrix: The matrix on disk.
        components: Parts with a Gram of their own.
        memory: Bytes for the buffers of the one pass, and of each window's.
    """

    matrix: Source
    components: dict[str, Component]
    memory: int

    def __post_init__(self) -> None:
        check_components(self.components, self.matrix.n_columns)

    @property
    def width(self) -> int:
        """Columns of the blocks that `gram` reads."""
        reserved = self._reserved(self.matrix.n_columns, bool(self.components))
        return self.matrix.width(self.memory, reserved=reserved)

    @property
    def n_blocks(self) -> int:
        """Blocks of the whole matrix, the last one perhaps narrower."""
        return math.ceil(self.matrix.n_columns / self.width)

    def windows(self, at_most: int) -> list[tuple[int, int]]:
        """Cut the columns between blocks, into windows of nearly equally many of them.

        A narrower last block is a window of its own: `gram` would read it together with a
        single wider one before it if there is room for both.
        """
        P, width = self.matrix.n_columns, self.width
        whole, rest = divmod(P, width)
        count = max(1, min(at_most - bool(rest), whole))
        edges = [width * (i * whole // count) for i in range(count + 1)] if whole else [0]
        return list(itertools.pairwise(edges + [P] * bool(rest)))

    def inside(self, start: int, stop: int) -> dict[str, Component]:
        """The parts of the components that lie in a window, counted from its first column."""
        cut = {}
        for name, component in self.components.items():
            ranges = [
                (max(a, start) - start, min(b, stop) - start)
                for a, b in component.intervals
                if a < stop and b > start
            ]
            if ranges:
                cut[name] = Component(component.name, ranges)
        return cut

    def memory_of(self, start: int, stop: int) -> int:
        """Bytes that leave a window the same room for blocks as the one pass has."""
        whole = self._reserved(self.matrix.n_columns, bool(self.components))
        return self.memory - whole + self._reserved(stop - start, bool(self.inside(start, stop)))

    def _reserved(self, n_columns: int, has_components: bool) -> int:
        """Bytes that `gram` needs besides its blocks."""
        T, itemsize = self.matrix.n_steps, self.matrix.dtype.itemsize
        gathered = gathered_entries(T, n_columns, has_components)
        stripe = len(product_buffer(T, self.matrix.dtype, torch.device("cpu")))
        return (stripe + gathered) * itemsize


def _gram(client: Client, work: Passes, progress: Callable[[float], None] | None) -> Gram:
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    hosts = list(usable_workers(client.scheduler_info(n_workers=-1)["workers"]).values())
    windows = work.windows(_WINDOWS_PER_WORKER * max(1, len(hosts)))
    parts = [
        client.submit(
            _window_gram,
            ColumnWindow(work.matrix.A, start, stop),
            work.inside(start, stop),
            work.matrix.dtype,
            work.memory_of(start, stop),
            max((hosts.count(host) for host in hosts), default=1),
            pure=False,
            priority=-i,  # neighbours first, so that their sums can be added soon
        )
        for i, (start, stop) in enumerate(windows)
    ]
    sizes = {part.key: stop - start for part, (start, stop) in zip(parts, windows, strict=True)}
    total = _added(client, parts)
    with client.as_current():
        waiting = as_completed(parts)
    del parts  # held, they would keep every window's sums in memory
    done = 0
    for part in waiting:
        if part.status != "finished":
            break
        done += sizes[part.key]
        if progress is not None:
            progress(done / work.matrix.n_columns)
    try:
        return total.result()
    except KilledWorker as error:
        raise PhasescopeError(
            f"the workers that read a window of columns died {error.allowed_failures + 1} times. "
            f"They need {work.memory:,} bytes for buffers and a few times "
            f"{8 * work.matrix.n_steps**2 * (1 + len(work.components)):,} for sums: lower memory=, "
            "or start larger workers."
        ) from error


def _added(client: Client, parts: list[Future]) -> Future:
    """The sum of all windows, added pairwise as they come."""
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=False)
        added = [client.submit(_add, *pair, pure=False, priority=len(parts)) for pair in pairs]
        parts = added + parts[2 * len(added) :]
    return parts[0]


def _window_gram(
    window: ColumnWindow,
    components: dict[str, Component],
    dtype: torch.dtype,
    memory: int,
    sharing: int,
) -> Gram:
    torch.set_num_threads(threads_per_run(sharing, cores()))
    try:
        return gram(window, components=components, dtype=dtype, memory=memory)
    except ValueError as error:
        raise ValueError(
            f"in columns {window.start} ... {window.stop - 1}, counted from {window.start}: {error}"
        ) from None


def _add(left: Gram, right: Gram) -> Gram:
    """The Gram of two windows together."""
    parts = dict(left.components)
    for name, part in right.components.items():
        parts[name] = _add(parts[name], part) if name in parts else part
    return Gram(
        left.K + right.K,
        left.steps,
        left.row_sums + right.row_sums,
        left.n_columns + right.n_columns,
        parts,
        left.eps,
    )


@dataclass(frozen=True)
class ColumnWindow:
    """Consecutive columns of a matrix on disk, as a matrix of its own.

    Args:
        A: A recorded series or a Zarr array.
        start: First column.
        stop: Column after the last.
    """

    A: Any
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, int]:
        """Steps, and columns of the window."""
        return (self.A.shape[0], self.stop - self.start)

    @property
    def dtype(self) -> Any:
        """That of the matrix."""
        return self.A.dtype

    def __getattr__(self, name: str) -> Any:
        """What only some matrices have: the same as of the whole, or shifted."""
        if name in ("steps", "chunks", "chunk_columns"):
            return getattr(self.A, name)
        if name == "read_columns":
            read = self.A.read_columns
            return lambda start, stop, out: read(self.start + start, self.start + stop, out)
        if name == "parameters" and self.A.parameters is not None:
            return _ShiftedTable(self.A.parameters, self.start)
        raise AttributeError(name)

    def __getitem__(self, key: tuple[slice, slice]) -> Any:
        """Rows and columns by two slices."""
        rows, columns = key
        first, last, _ = columns.indices(self.stop - self.start)
        return self.A[rows, self.start + first : self.start + last]


@dataclass(frozen=True)
class _ShiftedTable:
    """The parameters of a window's columns."""

    table: Any
    start: int

    def locate(self, column: int) -> Any:
        """The parameter of a column of the window."""
        return self.table.locate(self.start + column)
