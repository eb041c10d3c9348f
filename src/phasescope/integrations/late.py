"""A recorder inside somebody else's training loop: model and optimizer are known late."""

from __future__ import annotations

import atexit
import difflib
import inspect
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from phasescope.errors import RecordingError
from phasescope.trajectory.recorder import Recorder
from phasescope.trajectory.schema import RUN_FILE, read_run_file
from phasescope.trajectory.session import RESERVED

_OURS = ("model", "optimizer")
_CHECKPOINTS = ("checkpoint", "state")
# By directory, what records now, or was left behind by a training that raised an error.
_live: dict[Path, LateRecorder] = {}


class LateRecorder:
    """Makes a `Recorder` once a trainer has built model and optimizer, and files what it logs.

    The trainer has its own checkpoints. The recorder's state goes into them, and a training that
    goes on from one goes on with the run from there: later rows are dropped and recorded again.

    Args:
        directory: The run's directory.
        settings: Keyword arguments of `Recorder`, without model and optimizer.

    Raises:
        TypeError: `Recorder` has no such argument, or `save` is missing.
        ValueError: An argument belongs to the trainer here.
    """

    def __init__(self, directory: str | Path, settings: Mapping[str, Any]) -> None:
        _check_settings(settings)
        self.directory = Path(directory)
        self.recorder: Recorder | None = None
        self._settings = dict(settings)
        # The state at the end: a trainer may write a checkpoint after the training.
        self._last_state: dict[str, Any] = {}
        self._begun = 0

    def begin(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        n_steps: int | None,
        state: Mapping[str, Any],
        scaler: Any = None,
    ) -> Recorder:
        """Start recording.

        Args:
            model: The model being trained, not wrapped.
            optimizer: The optimizer whose updates are recorded, not wrapped.
            n_steps: Number of updates of the whole training, if the trainer knows. A run that goes
                on keeps the number it began with, and so its schedules.
            state: The recorder's state in the checkpoint that the trainer has gone back to; at
                least ``{"step": updates done before}``.
            scaler: The trainer's gradient scaler: the updates that it skips are seen through it.

        Raises:
            RunError: The directory holds a run, and the training begins anew.
        """
        # What a training left behind that raised an error: this callback's, and that of another one
        # for the same directory.
        self.end("interrupted")
        place = self.directory.resolve()
        if (left := _live.get(place)) is not None:
            left.end("interrupted")
        settings: dict[str, Any] = {"n_steps": n_steps} | self._settings
        if isinstance(scaler, torch.amp.GradScaler):
            settings["state"] = {"scaler": scaler}
        if state["step"] or settings.get("resume"):
            settings["resume"] = state
            settings["n_steps"] = self._first_length(settings["n_steps"])
        recorder = Recorder(self.directory, model, optimizer, **settings).attach()
        # Not every trainer tells its callbacks of an error. What is in memory is saved all the
        # same when the process ends.
        atexit.register(self.end, "interrupted")
        self.recorder = recorder
        _live[place] = self
        self._begun = recorder.step
        return recorder

    def _first_length(self, n_steps: int | None) -> int | None:
        """The length that was known when the run began, where none was given."""
        exists = (self.directory / RUN_FILE).exists()
        if "n_steps" in self._settings or not exists:
            return n_steps
        return read_run_file(self.directory)["n_steps"]

    def begin_update(self) -> None:
        """What is logged from here on belongs to the coming update, until it is done."""
        if self.recorder is not None:
            self._begun = self.recorder.step

    def log(self, values: Mapping[str, Any], *, now: bool = False) -> None:
        """File numbers under the update just done, or the coming one if it has begun.

        Args:
            values: Numbers by name; anything else is left out.
            now: File them under the weights as they are now, as an evaluation wants.
        """
        recorder = self.recorder
        if recorder is None:
            return
        done = recorder.step > self._begun and not now
        found = {metric_name(name): _number(value) for name, value in values.items()}
        found = {name: value for name, value in found.items() if value is not None}
        recorder.log(step=recorder.step - 1 if done else recorder.step, **found)

    def state(self) -> dict[str, Any]:
        """What the trainer's checkpoint must hold."""
        return self._last_state if self.recorder is None else self.recorder.state_dict()

    def flush(self) -> None:
        """Commit every complete row: before a checkpoint, which must not be ahead of the rows."""
        if self.recorder is not None:
            self.recorder.flush()

    def end(self, status: Literal["complete", "interrupted"]) -> None:
        """Stop recording; a second call changes nothing."""
        if self.recorder is None:
            return
        atexit.unregister(self.end)
        self._last_state = self.recorder.state_dict()
        recorder, self.recorder = self.recorder, None
        _live.pop(self.directory.resolve(), None)
        recorder.close(status)


def metric_name(name: str) -> str:
    """A metric's name as the name of an array: ``train/loss`` becomes ``train.loss``.

    Example:
        >>> metric_name("train/loss"), metric_name("step")
        ('train.loss', 'step_')
    """
    name = name.replace("/", ".")
    return f"{name}_" if name in RESERVED else name


def _number(value: Any) -> float | Tensor | None:
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        # Not read here: on a GPU that would wait for the device.
        return value.detach().reshape(()) if value.is_floating_point() else value.double().sum()
    return float(value) if isinstance(value, numbers.Real) else None


def _check_settings(settings: Mapping[str, Any]) -> None:
    taken = set(inspect.signature(Recorder).parameters) - {"directory", *_OURS}
    for name in settings:
        if name in _CHECKPOINTS:
            raise ValueError(
                f"{name}= belongs to a loop of one's own; here the trainer writes the checkpoints, "
                "and the recording goes on from them. Leave it out."
            )
        if name in _OURS:
            raise TypeError(f"{name}= is taken from the trainer. Leave it out.")
        if name not in taken:
            close = difflib.get_close_matches(name, taken, n=1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            raise TypeError(
                f"the callback takes the keyword arguments of Recorder, {sorted(taken)}, but "
                f"{name!r} arrived.{meant}"
            )
    if "save" not in settings:
        raise TypeError("the callback requires save=, such as save={'gradients': every(1)}.")


def partitioned(library: str, instead: str) -> RecordingError:
    """Why a training is refused whose parameters a library takes out of the model."""
    return RecordingError(
        f"the recorder reads the model's own parameters and their gradients, but {library} keeps "
        f"them in flat partitions without names, one for each process. {instead}; the norms of "
        "such parameters can be recorded."
    )
