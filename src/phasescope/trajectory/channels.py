"""From rows in memory to committed blocks on disk: rotating buffers and one writer thread."""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phasescope.errors import RecordingError
from phasescope.trajectory.blocks import Block, Row
from phasescope.trajectory.sinks import Forwarder, Sink
from phasescope.trajectory.store import ArraySpec, TrajectoryStore

# What is handed to the writer at once. Memory that was never used costs several times the copy into
# it, and every block about a millisecond of the writer.
BUFFER_BYTES = 20_000_000
# How many blocks of a group are held; of larger ones fewer.
MAX_BUFFERS, MAX_LARGE_BUFFERS = 6, 3


@dataclass(frozen=True)
class Job:
    """Rows of one group to be written and committed."""

    group: str
    specs: Mapping[str, ArraySpec]
    steps: np.ndarray
    values: Mapping[str, np.ndarray]
    # Called before writing, in the writer's thread: waits for a device, looks for bad values.
    inspect: Callable[[Job], None] | None = None
    # Called when the rows are no longer needed.
    release: Callable[[], None] | None = None
    # Whether the loop has to wait for these rows to be written.
    behind: Callable[[], bool] | None = None
    # Whether the rows count from now on, or with a later job of the group.
    commit: bool = True
    # Names along the columns of the arrays.
    labels: tuple[str, ...] = ()


class WriterThread:
    """Writes and commits jobs in order; its first error stops all writing.

    Args:
        store: Where to.
        sinks: Who gets the metrics and norms once they are committed.
    """

    def __init__(self, store: TrajectoryStore, sinks: Sequence[Sink] = ()) -> None:
        self.store = store
        self.error: BaseException | None = None
        self._committed = {name: group.rows for name, group in store.groups.items()}
        self.forwarder = Forwarder(sinks, store.path.parent)
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="phasescope-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job. Bounded by the buffers: a job holds one until it is written."""
        self._jobs.put(job)

    def drain(self) -> None:
        """Wait until everything queued is committed.

        Raises:
            RecordingError: Writing failed.
        """
        self._jobs.join()
        self.check()

    def check(self) -> None:
        """Raise what went wrong in the thread, if anything did.

        Raises:
            RecordingError: Writing failed.
        """
        if self.error is None:
            self.forwarder.warn()
            return
        full = isinstance(self.error, OSError) and self.error.errno == errno.ENOSPC
        raise RecordingError(
            f"the recording in {self.store.path.parent} stopped: "
            + ("the disk is full. " if full else f"{type(self.error).__name__}: {self.error}. ")
            + f"Everything committed is intact (rows per group: {self._committed}). "
            + ("Free some space" if full else "Remove the cause")
            + " and resume with Recorder(..., resume=True)."
        ) from self.error

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if self.error is None:
                    self._write(job)
            except BaseException as error:  # reported by check() in the loop's thread
                self.error = error
            finally:
                if job.release:
                    job.release()
                self._jobs.task_done()
        self.forwarder.close()
        self._jobs.task_done()

    def _write(self, job: Job) -> None:
        if job.inspect:
            job.inspect(job)
        group = self.store.groups.get(job.group)
        if group is None:
            group = self.store.add_group(job.group, job.specs)
        group.add_arrays(job.specs)
        # The page cache takes more processor time, but less of everyone's while it has room.
        direct = job.behind is not None and not job.behind()
        if len(job.steps):
            group.write(job.steps, job.values, direct=direct)
        if not job.commit:
            return
        self.store.commit()
        self._committed = {name: group.rows for name, group in self.store.groups.items()}
        self.forwarder.forward(job.group, job.steps, job.values, job.labels)


@dataclass
class Channel:
    """A group being recorded: the loop fills rows, full blocks go to the writer.

    Args:
        group: Name in the store.
        specs: Its arrays; all with the same rows per chunk.
        writer: Where full blocks go.
        pinned: Whether rows are filled from a GPU.
        inspect: Passed on with every job.
        attributes: Of a new group.
        labels: Names along the dimensions of a new group.
        shapes: Shapes of the pieces into which a row is cut; none for a row in one piece.
    """

    group: str
    specs: Mapping[str, ArraySpec]
    writer: WriterThread
    pinned: bool = False
    inspect: Callable[[Job], None] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    shapes: Sequence[Sequence[int]] = ()

    def __post_init__(self) -> None:
        group = self.writer.store.groups.get(self.group)
        if group is None:
            group = self.writer.store.add_group(
                self.group, self.specs, attributes=self.attributes, labels=self.labels
            )
        # A run that goes on keeps the blocks and chunks that it began with.
        self.specs = {name: group.specs.get(name, spec) for name, spec in self.specs.items()}
        self._chunk_rows = next(iter(self.specs.values())).chunk_rows
        # Rows keep their place in the chunk: a resumed run goes on in the middle of a block.
        self._row = group.rows % self._chunk_rows
        self.rows_per_block, self._max_buffers = self._sizes_of_blocks()
        self._fill = self._start = self._row % self.rows_per_block
        self.last_step = group.last_step
        self._free: queue.Queue[Block] = queue.Queue()
        self._n_buffers = 0
        self._uncommitted = False
        self._buffer = self._next_buffer()

    def _sizes_of_blocks(self) -> tuple[int, int]:
        """Rows of a block, and how many blocks there may be."""
        n_bytes = sum(np.dtype(spec.dtype).itemsize * spec.width for spec in self.specs.values())
        rows = self._chunk_rows
        if self.shapes:
            divisors = [n for n in range(1, rows + 1) if rows % n == 0]
            rows = max(n for n in divisors if n == 1 or n * n_bytes <= BUFFER_BYTES)
        large = rows * n_bytes > 2 * BUFFER_BYTES
        return rows, MAX_LARGE_BUFFERS if large else MAX_BUFFERS

    def row(self) -> Row:
        """The row to fill next. Nothing counts before `advance`."""
        return self._buffer.row(self._fill)

    def advance(self, step: int) -> None:
        """The row is filled: it belongs to `step`."""
        self._buffer.steps[self._fill] = step
        self.last_step = step
        self._fill += 1
        self._row += 1
        if self._fill == self.rows_per_block:
            finished = self._buffer
            self._row %= self._chunk_rows
            # A commit takes longer than a small block: one for each chunk.
            self._submit(lambda: self._free.put(finished), commit=self._row == 0)
            self._fill = self._start = 0
            self._buffer = self._next_buffer()

    def flush(self) -> None:
        """Have every row written and committed; the open block stays open."""
        if self._fill > self._start or self._uncommitted:
            self._submit(None, commit=True)
            self._start = self._fill

    def _submit(self, release: Callable[[], None] | None, *, commit: bool) -> None:
        self._uncommitted = not commit
        rows = slice(self._start, self._fill)
        values = {name: block[rows] for name, block in self._buffer.arrays.items()}
        steps = self._buffer.steps[rows].copy()
        inspect = self._after_copies() if self.pinned else self.inspect
        labels = next(iter(self.labels.values()), ())
        self.writer.submit(
            Job(
                self.group,
                self.specs,
                steps,
                values,
                inspect,
                release,
                self._behind,
                commit,
                labels,
            )
        )

    def _behind(self) -> bool:
        """Whether all buffers are in use, so that the loop will soon wait for one."""
        return self._n_buffers == self._max_buffers and self._free.empty()

    def _after_copies(self) -> Callable[[Job], None]:
        """An inspection that first waits until the device has delivered the block's rows."""
        event = torch.cuda.Event()
        event.record()

        def inspect(job: Job) -> None:
            event.synchronize()
            if self.inspect:
                self.inspect(job)

        return inspect

    def _next_buffer(self) -> Block:
        try:
            return self._free.get_nowait()
        except queue.Empty:
            if self._n_buffers == self._max_buffers:
                return self._free.get()
        self._n_buffers += 1
        return Block(self.specs, self.rows_per_block, self.shapes, pinned=self.pinned)


class MetricsLog:
    """Scalars by step, kept open until no more can arrive for their step."""

    ROWS = 4096

    def __init__(self, writer: WriterThread) -> None:
        self._writer = writer
        self.pending: dict[int, dict[str, float | Tensor]] = {}
        group = writer.store.groups.get("metrics")
        self.written = group.last_step if group else -1
        self._specs: dict[str, ArraySpec] = dict(group.specs) if group else {}

    def log(self, step: int, values: Mapping[str, float | Tensor]) -> None:
        """File values under a step.

        Raises:
            ValueError: The row of this step is written already.
        """
        if step <= self.written:
            raise ValueError(
                f"metrics are filed in the order of steps, but step {step} arrived after step "
                f"{self.written} had been written. Log a step's values before the training "
                "moves on."
            )
        self.pending.setdefault(step, {}).update(values)

    def flush(self, before: int | None = None) -> None:
        """Write the pending rows of steps below `before` (all by default)."""
        steps = sorted(s for s in self.pending if before is None or s < before)
        if not steps:
            return
        rows = [self.pending.pop(step) for step in steps]
        for name in sorted({name for row in rows for name in row} - set(self._specs)):
            self._specs[name] = ArraySpec("float64", (), (), self.ROWS, fill=float("nan"))
        values = {
            name: np.array([float(row.get(name, np.nan)) for row in rows]).reshape(-1, 1)
            for name in self._specs
        }
        self.written = steps[-1]
        self._writer.submit(Job("metrics", dict(self._specs), np.array(steps, np.int64), values))
