"""The restorable states of one run: when they are due, taken and gone back to."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from phasescope.errors import RecordingError
from phasescope.trajectory import schema
from phasescope.trajectory.checkpoint import (
    Snapshot,
    Stateful,
    common_checkpoint,
    load_part,
    rank_folder,
    ranks_without,
    remove_later,
    restore,
    take_snapshot,
    write_snapshot,
)
from phasescope.trajectory.distributed import Attendance, process_rank
from phasescope.trajectory.optimizers import moment_names
from phasescope.trajectory.schedule import Schedule
from phasescope.trajectory.sharding import sharded_names
from phasescope.trajectory.warn import warn


class Checkpoints:
    """The checkpoints of a run.

    Args:
        directory: The run's directory.
        model: The model.
        optimizer: Its optimizer.
        state: What else is saved and restored.
        schedule: When to save, if at all.
        n_steps: Length of the run, if known.
    """

    def __init__(
        self,
        directory: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: Mapping[str, Stateful],
        schedule: Schedule | None,
        n_steps: int | None,
    ) -> None:
        if schedule is not None and not isinstance(schedule, Schedule):
            raise TypeError(
                f"checkpoint= requires a schedule, but {schedule!r} arrived. Write every(500), "
                "at(0, 100), log_spaced(20), or a union of these with |."
            )
        for name, item in state.items():
            if not isinstance(item, Stateful):
                raise TypeError(
                    "state= takes objects with state_dict and load_state_dict, but "
                    f"{name!r} is {type(item).__name__}. Wrap it in a class that has them."
                )
        self.schedule = schedule
        self.scalers = [s for s in state.values() if isinstance(s, torch.amp.GradScaler)]
        self._due = schedule.resolve(n_steps) if schedule else None
        self._directory = directory
        self._folder = directory / schema.CHECKPOINTS
        self._model = model
        self._optimizer = optimizer
        self._state = dict(state)
        self.taken = -1
        self._rank, self._size = 0, 1
        self._began = 0
        self._met = self._settled = False
        self._first: Snapshot | None = None

    def begin(self, resume: bool | Mapping[str, Any]) -> tuple[int, Mapping[str, Any]] | None:
        """Go back to the newest checkpoint if there is one, and tell the other processes.

        Args:
            resume: Whether to, or the recording's state in a checkpoint of somebody else's, to
                which model and optimizer have been put back already.

        Returns:
            Its step, and what the recording kept in it.
        """
        self._rank, self._size = process_rank()
        self._met = self._settled = False
        self._first, self.taken = None, -1
        self._sharded = bool(sharded_names(dict(self._model.named_parameters())))
        restored: tuple[int, Mapping[str, Any]] | None
        if isinstance(resume, Mapping):
            restored = int(resume["step"]), resume
        else:
            restored = self._restore() if resume else None
        self._began = 0 if restored is None else restored[0]
        self._attendance = Attendance(
            self._directory, self._began, resumed=restored is not None, sharded=self._sharded
        )
        return restored

    def leftovers(self) -> list[str]:
        """What lies where the checkpoints of a new run belong, and would be mistaken for them."""
        if not self._folder.exists():
            return []
        writes = self._due is not None
        return sorted(
            p.name for p in self._folder.iterdir() if writes or p.name.startswith("step-")
        )

    def meet(self) -> None:
        """Before the first update: see that the other processes began at the same step.

        Raises:
            RecordingError: They did not.
        """
        if not self._met:
            self._attendance.check()
            self._met = True

    def settle(self) -> None:
        """All processes have begun: write where, and drop the checkpoints behind that step."""
        if self._settled:
            return
        self._settled = True
        if self._due is None:
            return
        if self._first is not None:
            self._write(self._began, self._first)
            self._first = None
        remove_later(self._folder, self._began, rank=self._rank, world_size=self._size)

    def due(self, step: int) -> bool:
        """Whether the state after `step` updates is to be saved and has not been.

        Ranks behind 0 save their beginning always: one without any state has never recorded.
        """
        first = self._rank > 0 and not self._settled
        return self._due is not None and self.taken < step and (first or self._due(step))

    def require(self, step: int) -> None:
        """Before every update of a run with checkpoints: refuse to go on where one was forgotten.

        Raises:
            RecordingError: One was due at this step and was not taken.
        """
        if self.due(step):
            raise RecordingError(
                f"a checkpoint was due at step {step}, but end_step() was not called after "
                "the update. Call recorder.end_step() last in the loop's body."
            )

    def take(self, step: int, extra: dict[str, Any]) -> None:
        """Save the state after `step` updates; the caller has committed every row before it.

        Raises:
            RecordingError: The disk is full, or cannot be written.
            TypeError: A state cannot be saved.
        """
        snapshot = take_snapshot(
            self._model,
            self._optimizer,
            self._state,
            extra,
            rank=self._rank,
            world_size=self._size,
        )
        if self._rank > 0 and not self._settled:
            # Nothing may change while others are still choosing their checkpoint.
            self._first = snapshot
        else:
            self._write(step, snapshot)
        self.taken = step

    def _write(self, step: int, snapshot: Snapshot) -> None:
        try:
            write_snapshot(rank_folder(self._folder, self._rank), step, snapshot)
        except OSError as error:
            full = error.errno == errno.ENOSPC
            raise RecordingError(
                f"the checkpoint of step {step} could not be written to {self._folder}: "
                + ("the disk is full. " if full else f"{error}. ")
                + "Everything committed and every earlier checkpoint is intact. "
                + ("Free some space" if full else "Remove the cause")
                + " and resume with Recorder(..., resume=True)."
            ) from error

    def _restore(self) -> tuple[int, dict[str, Any]] | None:
        newest = common_checkpoint(self._folder, self._size)
        if newest is None:
            return None
        step = newest[0]
        known = (torch.optim.lr_scheduler.LRScheduler, torch.amp.GradScaler)
        if self._rank == 0 and all(isinstance(item, known) for item in self._state.values()):
            warn(
                f"{self._directory} is resumed from step {step} without a data position: the "
                "run need not be bit-identical to an uninterrupted one. Pass the position in the "
                "data to promise that: state={'loader': ...}, anything with state_dict().",
            )
        tree = load_part(self._folder, step, self._rank, sharded=self._sharded)
        if not tree:
            return None
        if self._rank == 0 and step > 0:
            self._warn_of_others(step, tree.get("world_size", 1))
        restore(tree, self._model, self._optimizer, self._state)
        if "random" in tree:  # else this rank has no part of its own yet
            self.taken = step
        return step, tree["extra"]

    def _warn_of_others(self, step: int, recorded: int) -> None:
        """Say why a resumed run cannot be bit-identical, if it cannot."""
        without = ranks_without(self._folder, step, self._size)
        if recorded != self._size:
            reason = f"it was recorded by {recorded} processes and goes on with {self._size}"
        elif without:
            reason = f"ranks {without} saved no state of their own"
        else:
            return
        warn(
            f"{self._directory} is resumed from step {step}, but not bit-identically: {reason}. "
            "Ranks without a state of their own take rank 0's position in the data and keep their "
            "random numbers.",
        )

    def n_bytes(self) -> int:
        """About how many bytes one checkpoint takes: parameters, buffers, the optimizer's state."""
        moments = len(moment_names(self._optimizer))
        weights = sum(p.nbytes for p in self._model.parameters())
        return weights * (1 + moments) + sum(b.nbytes for b in self._model.buffers())
