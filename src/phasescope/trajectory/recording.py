"""A recorder at work, from `attach` to `close`: it hears of every update and has it recorded."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from phasescope.parameters import named_parameters
from phasescope.trajectory.checkpoints import Checkpoints
from phasescope.trajectory.contents import Contents
from phasescope.trajectory.flat import FlatParameters
from phasescope.trajectory.hooks import Hooks, backward_scale, check_scaler
from phasescope.trajectory.optimizers import check_owned
from phasescope.trajectory.runfile import RunFile
from phasescope.trajectory.session import Session
from phasescope.trajectory.warn import warn

FLUSH_SECONDS = 5.0

OnFailure = Literal["raise", "continue"]


class Recording:
    """What happens between a training loop and a session, and what becomes of failures.

    Args:
        directory: The run's directory, locked by the caller; None where another process writes.
        model: The model.
        optimizer: The optimizer whose updates are the steps.
        contents: What is recorded.
        flat: The model's parameters.
        file: The run's run.json.
        checkpoints: The run's checkpoints.
        on_failure: Whether a failure of the recording stops the training.
        restored: The step that the training was put back to, and what the recording kept there.
    """

    def __init__(
        self,
        directory: Path | None,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        contents: Contents,
        flat: FlatParameters,
        file: RunFile,
        checkpoints: Checkpoints,
        *,
        on_failure: OnFailure,
        restored: tuple[int, Mapping[str, Any]] | None,
    ) -> None:
        self.step = 0 if restored is None else restored[0]
        self._model = model
        self._optimizer = optimizer
        self._flat = flat
        self._file = file
        self._checkpoints = checkpoints
        self._on_failure = on_failure
        self._failure: Exception | None = None
        # What was raised, and stopped the training if the loop did not catch it.
        self._raised: Exception | None = None
        self._session = session = Session(directory, self.step, flat, model, optimizer, contents)
        if restored is not None and restored[1]:
            session.load_state(restored[1])
            session.warn_of_gaps(self.step)
        self._n_groups = len(optimizer.param_groups)
        self._n_steps = contents.n_steps
        # The groups whose rows are chosen by the length of the run; rank 0 tells of them.
        self._spaced = [] if directory is None else contents.spaced_groups
        # Not empty if what is logged now belongs to the coming update, because a gradient is there.
        # Its `append` is the cheapest hook that there is.
        self._coming: deque[object] = deque(maxlen=1)
        self._begun = self._in_step = self._closure = self._warned = False
        self._ended = self.step
        self._last_flush = time.monotonic()
        self._write_file("recording", None)
        if checkpoints.due(self.step):
            self._take_checkpoint()
        self._hooks = Hooks(
            optimizer,
            flat.tensors,
            checkpoints.scalers,
            arrived=self._coming.append,
            passed=self._pass_ended if session.captures.watches_backward else None,
            before=self._before_update,
            after=self._after_update,
            skipped=self._update_skipped,
        )

    def log(self, step: int | None, values: Mapping[str, float | Tensor]) -> None:
        """File values under a step, or under that of the weights on which they were evaluated."""
        if self._failure is not None:
            return
        if step is None:
            step = self.step if self._coming or self._ended == self.step else self.step - 1
        elif not 0 <= step <= self.step:
            raise ValueError(
                f"log(step=) takes a step whose weights there have been, 0 to {self.step}, but "
                f"{step} arrived. A step is the number of optimizer updates already applied; "
                "recorder.step is that of the weights as they are now."
            )
        self._session.metrics.log(step, values)

    def end_step(self) -> None:
        """The iteration is over: take the checkpoint that is due."""
        self._ended = self.step
        if self._checkpoints.due(self.step):
            self._record(self._take_checkpoint)

    def flush(self) -> None:
        """Commit every complete row; what may still be logged to stays open."""
        self._record(lambda: self._session.commit(metrics_before=self.step - 1))

    def state_dict(self) -> dict[str, Any]:
        """The step, and what the recording keeps beyond the committed rows."""
        return {"step": self.step, **self._session.state()}

    def close(self, status: Literal["complete", "interrupted"]) -> None:
        """Write what is still in memory and remove every hook."""
        self._hooks.remove()
        failure = self._failure or (self._raised if status == "interrupted" else None)
        try:
            self._finish(status)
        except Exception as error:
            failure = failure or error
            self._fail(error)
        finally:
            self._session.writer.close()
            self._write_end(status if failure is None else "interrupted", failure)
        if failure is None:
            self._session.writer.check()  # warns of a sink that has failed at last
            if status == "complete":
                self._warn_of_length()
        self._warn_nonfinite()

    def lost(self, release: Callable[[], None]) -> Callable[[], None]:
        """What finishes the run if this recording is dropped without `close`; see `unclosed`.

        Args:
            release: Called last, to let others write.
        """
        file = self._file

        def end(step: int) -> None:
            try:
                file.write(status="interrupted", step=step)
            finally:
                release()

        return self._session.lost(end)

    # --- what the hooks report --------------------------------------------------------------

    def _pass_ended(self) -> None:
        self._record(lambda: self._session.captures.arrive(self.step))

    def _before_update(self, closure: bool, scale: Tensor | None) -> None:
        self._in_step, self._closure = True, closure
        if not self._begun:
            # Not a failure of the recording: what is about to be trained would be wrong.
            self._checkpoints.meet()
        # Like `_record`, without the calls: every microsecond here is one of the training.
        if self._failure is None:
            try:
                self._record_before(scale)
            except Exception as error:
                self._fail(error)

    def _record_before(self, scale: Tensor | None) -> None:
        if not self._begun:
            self._begin()
        if self._checkpoints.schedule is not None:
            self._checkpoints.require(self.step)
        if len(self._optimizer.param_groups) != self._n_groups:
            check_owned(self._optimizer, named_parameters(self._model))
            self._n_groups = len(self._optimizer.param_groups)
        self._hooks.watch_unfrozen()
        backward = scale
        # On a GPU reading it waits for the device.
        if self._session.captures.watches_backward and self._checkpoints.scalers:
            backward = backward_scale(self._checkpoints.scalers)
        self._session.before(
            self.step,
            gradients_later=self._closure,
            scale=scale,
            backward_scale=backward,
        )

    def _begin(self) -> None:
        self._begun = True
        self._checkpoints.settle()
        if self._session.captures.watches_backward:
            check_scaler(self._checkpoints.scalers)

    def _after_update(self) -> None:
        if self._failure is None:
            try:
                self._session.after(self.step, gradients_later=self._closure)
            except Exception as error:
                self._fail(error)
        self.step += 1
        self._in_step = False
        self._coming.clear()
        now = time.monotonic()
        if now - self._last_flush > FLUSH_SECONDS:
            self._record(lambda: self._session.flush(metrics_before=self.step - 1))
            self._last_flush = now
            self._warn_nonfinite()

    def _update_skipped(self, scale: float) -> None:
        self._coming.append(scale)
        self._record(lambda: self._session.skipped(self.step, scale))

    def _record(self, act: Callable[[], None]) -> None:
        """Do a part of the recording; if it fails, do what `on_failure` says."""
        if self._failure is not None:
            return
        try:
            act()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """The recording cannot go on: stop the training too, or warn once."""
        if self._on_failure == "raise":
            self._raised = error
            raise error
        if self._failure is None:
            self._failure = error
            warn(
                f"recording ended at step {self.step}, the training goes on without it: {error}",
            )

    # --- checkpoints and the end ------------------------------------------------------------

    def _take_checkpoint(self) -> None:
        """Commit every row before this step, then write the state: a checkpoint is never ahead."""
        if self._checkpoints.taken != self.step:
            self._session.commit(metrics_before=self.step)
            self._checkpoints.take(self.step, self._session.state())

    def _finish(self, status: str) -> None:
        if self._failure is None:
            if not self._in_step:
                self._session.final(self.step)
            if status == "complete" and self._checkpoints.schedule and self._ended == self.step:
                self._take_checkpoint()
        self._session.commit()

    def _write_end(self, status: str, failure: Exception | None) -> None:
        try:
            self._write_file(status, failure)
        except OSError:
            # On a full disk the file stays as it was, as after a kill: the first error counts.
            if failure is None:
                raise

    def _write_file(self, status: str, failure: Exception | None) -> None:
        self._file.write(
            status=status,
            step=self.step,
            failure=None if failure is None else str(failure),
            nonfinite=self._session.nonfinite,
            missing_gradients=self._flat.missing,
            densified_gradients=list(self._flat.densified),
        )

    def _warn_of_length(self) -> None:
        if self._spaced and self.step != self._n_steps:
            warn(
                f"n_steps={self._n_steps} was announced, but the training ended after {self.step} "
                f"updates: the rows of {self._spaced} are log-spaced over the announced length, "
                "and none lies beyond it. Pass the number of updates as n_steps, or use every() "
                "where it is not known.",
            )

    def _warn_nonfinite(self) -> None:
        if self._session.nonfinite and not self._warned:
            self._warned = True
            warn(self._session.watch.describe())
