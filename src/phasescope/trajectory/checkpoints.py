"""The restorable states of one run: when they are due, taken and gone back to."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from phasescope.errors import RecordingError, RecordingWarning
from phasescope.trajectory import schema
from phasescope.trajectory.checkpoint import (
    Stateful,
    load_checkpoint,
    newest_checkpoint,
    restore,
    save_checkpoint,
)
from phasescope.trajectory.optimizers import moment_names
from phasescope.trajectory.schedule import Schedule


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
        self.schedule = schedule
        self.scalers = [s for s in state.values() if isinstance(s, torch.amp.GradScaler)]
        self._due = schedule.resolve(n_steps) if schedule else None
        self._directory = directory
        self._folder = directory / schema.CHECKPOINTS
        self._model = model
        self._optimizer = optimizer
        self._state = dict(state)
        self.taken = -1

    def due(self, step: int) -> bool:
        """Whether the state after `step` updates is to be saved and has not been."""
        return self._due is not None and self._due(step) and self.taken < step

    def require(self, step: int) -> None:
        """Refuse to go on where a checkpoint was forgotten.

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
        try:
            save_checkpoint(self._folder, step, self._model, self._optimizer, self._state, extra)
        except OSError as error:
            full = error.errno == errno.ENOSPC
            raise RecordingError(
                f"the checkpoint of step {step} could not be written to {self._folder}: "
                + ("the disk is full. " if full else f"{error}. ")
                + "Everything committed and every earlier checkpoint is intact. "
                + ("Free some space" if full else "Remove the cause")
                + " and resume with Recorder(..., resume=True)."
            ) from error
        self.taken = step

    def restore(self) -> tuple[int, dict[str, Any]] | None:
        """Go back to the newest checkpoint: its step, and what the recording kept in it."""
        newest = newest_checkpoint(self._folder)
        if newest is None:
            return None
        step, path = newest
        known = (torch.optim.lr_scheduler.LRScheduler, torch.amp.GradScaler)
        if all(isinstance(item, known) for item in self._state.values()):
            warnings.warn(
                f"{self._directory} is resumed from step {step} without a data position: the "
                "run need not be bit-identical to an uninterrupted one. Pass the position in the "
                "data to promise that: state={'loader': ...}, anything with state_dict().",
                RecordingWarning,
                stacklevel=5,
            )
        tree = load_checkpoint(path)
        restore(tree, self._model, self._optimizer, self._state)
        self.taken = step
        return step, tree["extra"]

    def n_bytes(self) -> int:
        """About how many bytes one checkpoint takes: parameters, buffers, the optimizer's state."""
        moments = len(moment_names(self._optimizer))
        weights = sum(p.nbytes for p in self._model.parameters())
        return weights * (1 + moments) + sum(b.nbytes for b in self._model.buffers())
