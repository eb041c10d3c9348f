"""Recording one run from several processes: who writes, and whether all are in step.

Nothing here is a collective, so a process that has no recorder keeps nobody waiting.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from phasescope.errors import RecordingError
from phasescope.trajectory.warn import warn

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

WAIT = timedelta(seconds=10)

# How often this process attached a recorder to a directory: names of one life are used once.
_attached: Counter[str] = Counter()


def process_rank() -> tuple[int, int]:
    """This process's rank and the number of processes; without torch.distributed 0 and 1.

    Example:
        >>> process_rank()
        (0, 1)
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


class Attendance:
    """Which processes record a run together, and from which step on.

    Each process leaves a note in the key-value store that torch.distributed started with, and
    looks at the notes of the others at its first update. By then they have attached too: an update
    needs the gradients of all.

    Args:
        directory: The run's directory, as it was passed.
        step: The step at which this process begins.
        resumed: Whether it went back to a checkpoint.
        sharded: Whether the parameters are spread over the processes.
    """

    def __init__(self, directory: Path, step: int, *, resumed: bool, sharded: bool) -> None:
        self._directory = directory
        self._step = step
        self._resumed = resumed
        self._sharded = sharded
        self._rank, self._size = process_rank()
        self._store = _store() if self._size > 1 else None
        name = directory.as_posix()
        _attached[name] += 1
        self._prefix = f"phasescope/{name}/{_attached[name]}"
        if self._store is not None:
            try:
                self._store.set(self._key(self._rank), str(step))
                # An answer to a later question says that the note has arrived.
                self._store.check([self._key(self._rank)])
            except RuntimeError:  # a simulated group, whose store keeps nothing
                self._store = None

    def check(self) -> None:
        """Look whether the others are here and at the same step; called before the first update.

        Raises:
            RecordingError: They are not, and what would be trained or recorded is wrong.
        """
        if self._store is None:
            return
        if self._rank > 0:
            step = self._note(0, wait=True)
            if step is None and not self._sharded:
                warn(
                    f"rank {self._rank} records nothing: only rank 0 writes, but it has no "
                    f"Recorder for {self._directory}. Pass the same directory on every rank. (If "
                    "every process trains a model of its own, record before "
                    "torch.distributed.init_process_group, or without it.)",
                )
                return
            self._compare(0, step)
            return
        needed = self._resumed or self._sharded
        for rank in range(1, self._size):
            step = self._note(rank, wait=needed)
            if step is not None or needed:
                self._compare(rank, step)

    def _compare(self, rank: int, step: int | None) -> None:
        if step is None:
            raise RecordingError(
                f"every rank needs the Recorder for {self._directory}, but rank {rank} has none, "
                + (
                    "and the norms of sharded parameters are summed over all of them. "
                    if self._sharded
                    else "so it was not put back to the checkpoint and would train other weights. "
                )
                + "Build the Recorder on every rank, with the same directory: only rank 0 writes."
            )
        if step != self._step:
            raise RecordingError(
                f"all ranks must begin at one step, but rank {self._rank} begins {self._directory} "
                f"at step {self._step} and rank {rank} at step {step}. The directory must lie on "
                "one file system that all ranks see, and no process of an earlier start may still "
                "be running. Start all ranks again with resume=True."
            )

    def _note(self, rank: int, *, wait: bool) -> int | None:
        """The step at which another process begins, or None if it left no note."""
        store, key = self._store, self._key(rank)
        if store is None:
            return None
        if not store.check([key]):
            if not wait:
                return None
            try:
                store.wait([key], WAIT)
            except RuntimeError:  # what the stores raise when the time is over
                return None
        return int(store.get(key))

    def _key(self, rank: int) -> str:
        return f"{self._prefix}/{rank}"


def _store() -> Any:
    """The store of the default process group; None where its backend works without one."""
    from torch.distributed import distributed_c10d

    return distributed_c10d._get_default_store()


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, DataParallel and torch.compile.

    Example:
        >>> unwrapped(nn.DataParallel(nn.Linear(1, 1)))
        Linear(in_features=1, out_features=1, bias=True)
    """
    while True:
        if isinstance(model, nn.DataParallel | DistributedDataParallel):
            model = model.module
        elif type(model).__name__ == "OptimizedModule":
            model = model.get_submodule("_orig_mod")
        else:
            return model


@contextmanager
def apart(model: nn.Module) -> Iterator[None]:
    """Let one process evaluate a model in the middle of a training, and leave no trace.

    A forward pass of DistributedDataParallel begins with a broadcast of the buffers, in which the
    other processes would have to take part: it is left out. A forward pass of `fully_shard` needs
    them all, and leaves the gathered weights in memory, where the next step would find them
    outdated: they are dropped.
    """
    wrappers = [m for m in model.modules() if isinstance(m, DistributedDataParallel)]
    before = [wrapper.require_forward_param_sync for wrapper in wrappers]
    for wrapper in wrappers:
        wrapper.require_forward_param_sync = False
    try:
        yield
    finally:
        for wrapper, value in zip(wrappers, before, strict=True):
            wrapper.require_forward_param_sync = value
        fsdp: Any = sys.modules.get("torch.distributed.fsdp")
        for module in model.modules() if fsdp else ():
            if isinstance(module, fsdp.FSDPModule):
                cast("FSDPModule", module).reshard()
