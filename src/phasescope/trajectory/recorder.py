"""`Recorder`: the public optimizer hooks write a training run into a store."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from phasescope.errors import RecordingWarning, RunError
from phasescope.parameters import ParameterTable, named_parameters
from phasescope.trajectory import schema
from phasescope.trajectory.checkpoint import Stateful
from phasescope.trajectory.checkpoints import Checkpoints
from phasescope.trajectory.contents import make_contents
from phasescope.trajectory.flat import FlatParameters
from phasescope.trajectory.hooks import Hooks, backward_scale
from phasescope.trajectory.lock import RunLock
from phasescope.trajectory.optimizers import DecayFactor, check_owned
from phasescope.trajectory.plan import Plan, check_disk, make_plan
from phasescope.trajectory.probes import Probe
from phasescope.trajectory.runfile import RunFile, as_json
from phasescope.trajectory.schedule import Schedule
from phasescope.trajectory.session import Session, scalar

if TYPE_CHECKING:
    from phasescope.trajectory.sketch import CountSketch
    from phasescope.trajectory.sinks import Sink

FLUSH_SECONDS = 5.0


class Recorder:
    """Records a training run through the optimizer's hooks, without changing it.

    Step t is the number of updates already applied: ``gradients[t]`` is what the optimizer consumed
    at ``weights[t]``, and ``updates[t] = weights[t+1] - weights[t]``. What each group holds is
    written down in `phasescope.trajectory.schema` and in the documentation of the schema.

    Use it as a context manager, or call `attach` and `close`.

    Args:
        directory: The run's directory; it must be new, unless `resume` is set.
        model: The model. Parameters are flattened in ``named_parameters()`` order.
        optimizer: The optimizer whose updates are the steps.
        save: What to save when: ``{"gradients": every(1), "weights": log_spaced(200)}``. Groups:
            gradients, unclipped_gradients, updates, decay, weights, moments, norms,
            component_norms, sketches, probes; one part of a group by a slash:
            ``"norms/gradients"``, ``"moments/exp_avg"``, ``"probes/logits"``. The weights after
            the last update are always added to the weights.
        n_steps: Number of updates of the whole run; `log_spaced` needs it.
        checkpoint: When to save a restorable state; call `end_step` last in the loop's body then.
        state: What else a checkpoint holds, such as ``{"scheduler": ..., "loader": ...}``: anything
            with ``state_dict`` and ``load_state_dict``. A gradient scaler belongs here too: the
            updates that it skips are seen through it.
        components: Named parts of the parameter vector for ``component_norms``, from
            `phasescope.components`.
        sketch: The sketch for ``sketches``.
        sinks: Who else gets every metric and norm, such as TensorBoard.
        probes: Named functions of the model, evaluated in ``eval()`` and ``no_grad`` mode.
        config: The run's configuration, a mapping or dataclass of plain values, kept in run.json.
        loss_reduction: Whether the loss is a mean or a sum over the batch; it cannot be detected.
        dtype: float32, or bfloat16 for half the disk (relative rounding error up to 2^-9).
        decay: The rule ``param group -> lr * weight_decay`` of an optimizer whose decoupled decay
            phasescope does not know.
        on_failure: What becomes of the training when recording cannot go on (a full disk):
            ``"raise"`` stops it with a `RecordingError`, ``"continue"`` warns once and lets it run
            without a recording. What was committed stays either way.
        resume: Go on from the newest checkpoint of `directory` (from step 0 if it has none).

    Raises:
        ValueError: The arguments do not fit together.
        RunError: The directory holds a run already, or is being written by another process.

    Example:
        >>> import phasescope as ps, tempfile
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> directory = tempfile.mkdtemp() + "/run"
        >>> save = {"updates": ps.every(1)}
        >>> with ps.Recorder(directory, model, optimizer, save=save) as recorder:
        ...     for step in range(3):
        ...         loss = model(torch.ones(4, 2)).mean()
        ...         loss.backward()
        ...         optimizer.step()
        ...         optimizer.zero_grad()
        ...         recorder.log(train_loss=loss)
        >>> ps.open_run(directory).updates.shape
        (3, 3)
    """

    def __init__(
        self,
        directory: str | Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        save: Mapping[str, Schedule],
        n_steps: int | None = None,
        checkpoint: Schedule | None = None,
        state: Mapping[str, Stateful] | None = None,
        components: Mapping[str, Any] | None = None,
        sketch: CountSketch | None = None,
        sinks: Sequence[Sink] = (),
        probes: Mapping[str, Probe] | None = None,
        config: Any = None,
        loss_reduction: Literal["mean", "sum", "unknown"] = "unknown",
        dtype: Literal["float32", "bfloat16"] = "float32",
        decay: DecayFactor | None = None,
        on_failure: Literal["raise", "continue"] = "raise",
        resume: bool = False,
    ) -> None:
        self.directory = Path(directory)
        self.model = model
        self.optimizer = optimizer
        self.n_steps = n_steps
        self.step = 0
        if on_failure not in ("raise", "continue"):
            raise ValueError(f"on_failure is 'raise' or 'continue', but {on_failure!r} arrived.")
        self._on_failure = on_failure
        self._failure: Exception | None = None
        self._resume = resume
        self._checkpoints = Checkpoints(
            self.directory, model, optimizer, state or {}, checkpoint, n_steps
        )
        parameters = named_parameters(model)
        self.table = ParameterTable.from_module(model)
        check_owned(optimizer, parameters)
        self._n_groups = len(optimizer.param_groups)
        self._contents = make_contents(
            save,
            self.table,
            optimizer,
            n_steps=n_steps,
            dtype=dtype,
            decay=decay,
            probes=probes or {},
            components=components or {},
            sketch=sketch,
            sinks=sinks,
        )
        self._flat = FlatParameters(parameters, self.table)
        self._file = RunFile(
            self.directory,
            {
                "parameters": self.table.to_json(),
                "components": list(components or ()),
                "sketch": sketch.to_json() if sketch is not None else None,
                "save": {key: str(schedule) for key, schedule in save.items()},
                "n_steps": n_steps,
                "dtype": dtype,
                "loss_reduction": loss_reduction,
                "optimizer": type(optimizer).__name__,
                "decay": "split" if self._contents.decay is not None else "not split",
                "config": as_json(config),
            },
        )
        self._session: Session | None = None
        self._hooks: Hooks | None = None

    # --- before and after -------------------------------------------------------------------

    def plan(self) -> Plan:
        """What will be saved: bytes per step and in total, and the free disk.

        Example:
            >>> import phasescope as ps
            >>> model = nn.Linear(999, 1)
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> recorder = ps.Recorder("runs/x", model, optimizer, save={"gradients": ps.every(1)})
            >>> recorder.plan().rows[0].bytes_per_row
            4000
        """
        return make_plan(
            self._contents.save,
            self._contents.specs,
            self.table,
            self.n_steps,
            self.directory,
            checkpoint=self._checkpoints.schedule,
            checkpoint_bytes=self._checkpoints.n_bytes(),
        )

    def attach(self) -> Recorder:
        """Start recording; called by ``with``. A second call changes nothing."""
        if self._session is not None:
            return self
        check_disk(self.plan(), self.directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = RunLock(self.directory)
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def close(self, status: Literal["complete", "interrupted"] = "complete") -> None:
        """Write what is still in memory, remove every hook, and release the directory."""
        if self._session is None:
            return
        session, self._session = self._session, None
        if self._hooks is not None:
            self._hooks.remove()
        failure = self._failure
        try:
            self._finish(session, status)
        except Exception as error:
            failure = failure or error
            if self._on_failure == "raise":
                raise
        finally:
            session.writer.close()
            self._end(session, status if failure is None else "interrupted", failure)
            self._lock.release()
        self._warn_nonfinite(session)

    def __enter__(self) -> Recorder:
        """Start recording."""
        return self.attach()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish recording; an exception of the loop marks the run as interrupted."""
        self.close("complete" if kind is None else "interrupted")

    # --- in the loop ------------------------------------------------------------------------

    def log(self, *, step: int | None = None, **values: float | int | Float[Tensor, ""]) -> None:
        """File scalars under the step of the weights on which they were evaluated.

        After ``optimizer.step()`` that is the update just done; before it, or after `end_step`,
        the coming one. Values logged twice for one step replace each other.

        Args:
            step: The step, if another: ``step=recorder.step`` for the weights as they are now.
            **values: Numbers, or tensors with one element.

        Raises:
            RuntimeError: The recorder is not attached.
            ValueError: A value has more than one element, or its step has been written already.
        """
        if self._failure is not None:
            return
        if self._session is None:
            raise RuntimeError(
                "log() requires an attached recorder, but it is closed. Log inside "
                "'with Recorder(...) as recorder:', or call recorder.attach() first."
            )
        if step is None:
            step = self.step if self._coming or self._ended == self.step else self.step - 1
        self._session.metrics.log(step, {name: scalar(name, v) for name, v in values.items()})

    def end_step(self) -> None:
        """Say that this iteration is over; call it last in the loop's body.

        Checkpoints are taken here, where the weights, the scheduler and the position in the data
        belong together. What is logged from here on belongs to the coming step.
        """
        self._ended = self.step
        session = self._session
        if session is not None and self._checkpoints.due(self.step):
            self._recording(lambda: self._take_checkpoint(session))

    # --- inside -----------------------------------------------------------------------------

    def _open(self) -> None:
        exists = (self.directory / schema.RUN_FILE).exists()
        if exists and not self._resume:
            raise RunError(
                f"a new run needs a directory of its own, but {self.directory} holds a run already "
                f"(status {self._file.read()['status']!r}). Choose another directory or delete "
                "this one; to go on with it pass resume=True."
            )
        if exists:
            self._file.check_same()
        restored = self._checkpoints.restore() if exists else None
        if restored is not None:
            self.step = restored[0]
        session = Session(
            self.directory, self.step, self._flat, self.model, self.optimizer, self._contents
        )
        if restored is not None:
            session.load_state(restored[1])
        # What is logged now belongs to the coming update.
        self._coming = False
        self._in_step = self._closure = self._warned = False
        self._failure = None
        self._last_flush = time.monotonic()
        self._file.write(status="recording", step=self.step, nonfinite=session.nonfinite)
        self._ended = self.step
        if self._checkpoints.due(self.step):
            self._take_checkpoint(session)
        self._session = session
        self._hooks = Hooks(
            self.optimizer,
            self._flat.tensors,
            self._checkpoints.scalers,
            arrived=self._gradient_arrived,
            before=self._before_update,
            after=self._after_update,
            skipped=self._update_skipped,
        )

    def _gradient_arrived(self, parameter: Tensor) -> None:
        self._coming = True
        session = self._session
        if session is not None and (arrivals := session.captures.arrivals) is not None:
            self._recording(lambda: arrivals.arrive(parameter, self.step))

    def _before_update(self, closure: bool, scale: Tensor | None) -> None:
        self._in_step, self._closure = True, closure
        self._recording(lambda: self._record_before(scale))

    def _record_before(self, scale: Tensor | None) -> None:
        session, hooks = self._session, self._hooks
        if session is None or hooks is None:
            return
        self._checkpoints.require(self.step)
        if len(self.optimizer.param_groups) != self._n_groups:
            check_owned(self.optimizer, named_parameters(self.model))
            self._n_groups = len(self.optimizer.param_groups)
        unfrozen = hooks.watch_unfrozen()
        backward = scale
        if session.captures.arrivals is not None:
            session.captures.arrivals.unseen = unfrozen
            if self._checkpoints.scalers:
                backward = backward_scale(self._checkpoints.scalers)
        session.before(
            self.step, gradients_later=self._closure, scale=scale, backward_scale=backward
        )

    def _after_update(self) -> None:
        session = self._session
        if session is not None:
            self._recording(lambda: session.after(self.step, gradients_later=self._closure))
        self.step += 1
        self._coming = self._in_step = False
        now = time.monotonic()
        if session is not None and now - self._last_flush > FLUSH_SECONDS:
            self._recording(lambda: session.flush(metrics_before=self.step - 1))
            self._last_flush = now
            self._warn_nonfinite(session)

    def _update_skipped(self, scale: float) -> None:
        session = self._session
        self._coming = True
        if session is not None:
            self._recording(lambda: session.skipped(self.step, scale))

    def _recording(self, act: Callable[[], None]) -> None:
        """Do a part of the recording; if it fails, do what `on_failure` says."""
        if self._failure is not None:
            return
        try:
            act()
        except Exception as error:
            if self._on_failure == "raise":
                raise
            self._failure = error
            warnings.warn(
                f"recording ended at step {self.step}, the training goes on without it: {error}",
                RecordingWarning,
                stacklevel=3,
            )

    def _finish(self, session: Session, status: str) -> None:
        if self._failure is None:
            if not self._in_step:
                session.final(self.step)
            if status == "complete" and self._checkpoints.schedule and self._ended == self.step:
                self._take_checkpoint(session)
        session.flush()
        session.writer.drain()

    def _end(self, session: Session, status: str, failure: Exception | None) -> None:
        try:
            self._file.write(
                status=status,
                step=self.step,
                failure=None if failure is None else str(failure),
                nonfinite=session.nonfinite,
                missing_gradients=self._flat.missing,
                densified_gradients=list(self._flat.densified),
            )
        except OSError:
            # On a full disk the file stays as it was, as after a kill: the first error counts.
            if failure is None:
                raise

    def _take_checkpoint(self, session: Session) -> None:
        """Commit every row before this step, then write the state: a checkpoint is never ahead."""
        if self._checkpoints.taken != self.step:
            session.flush(metrics_before=self.step)
            session.writer.drain()
            self._checkpoints.take(self.step, session.state())

    def _warn_nonfinite(self, session: Session) -> None:
        if session.nonfinite and not self._warned:
            self._warned = True
            warnings.warn(session.watch.describe(), RecordingWarning, stacklevel=4)
