"""`Recorder`: the public optimizer hooks write a training run into a store."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle, unserializable_hook

from phasescope.errors import RecordingError, RecordingWarning, RunError
from phasescope.parameters import ParameterTable, named_parameters
from phasescope.trajectory import schema
from phasescope.trajectory.captures import FlatParameters
from phasescope.trajectory.checkpoint import (
    Stateful,
    load_checkpoint,
    newest_checkpoint,
    restore,
    save_checkpoint,
)
from phasescope.trajectory.lock import RunLock
from phasescope.trajectory.optimizers import DecayFactor, decay_factor
from phasescope.trajectory.plan import Plan, format_bytes, make_plan, parse_save
from phasescope.trajectory.plan import group_specs as make_group_specs
from phasescope.trajectory.runfile import RunFile, as_json
from phasescope.trajectory.schedule import Schedule
from phasescope.trajectory.session import Probe, Session, scalar

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
            gradients, updates, decay, weights, moments, norms, probes; one part of a group by a
            slash: ``"norms/gradients"``, ``"moments/exp_avg"``, ``"probes/logits"``. The weights
            after the last update are always added to the weights.
        n_steps: Number of updates of the whole run; `log_spaced` needs it.
        checkpoint: When to save a restorable state; call `end_step` last in the loop's body then.
        state: What else a checkpoint holds, such as ``{"scheduler": ..., "loader": ...}``: anything
            with ``state_dict`` and ``load_state_dict``.
        probes: Named functions of the model, evaluated in ``eval()`` and ``no_grad`` mode.
        config: The run's configuration, a mapping or dataclass of plain values, kept in run.json.
        loss_reduction: Whether the loss is a mean or a sum over the batch; it cannot be detected.
        dtype: float32, or bfloat16 for half the disk (relative rounding error up to 2^-9).
        decay: The rule ``param group -> lr * weight_decay`` of an optimizer whose decoupled decay
            phasescope does not know.
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
        probes: Mapping[str, Probe] | None = None,
        config: Any = None,
        loss_reduction: Literal["mean", "sum", "unknown"] = "unknown",
        dtype: Literal["float32", "bfloat16"] = "float32",
        decay: DecayFactor | None = None,
        resume: bool = False,
    ) -> None:
        self.directory = Path(directory)
        self.model = model
        self.optimizer = optimizer
        self.n_steps = n_steps
        self.step = 0
        self._save = parse_save(save, probes or ())
        self._probes = dict(probes or {})
        self._checkpoint = checkpoint.resolve(n_steps) if checkpoint else None
        self._state = dict(state or {})
        self._resume = resume
        self._decay = decay or decay_factor(optimizer)
        parameters = named_parameters(model)
        self.table = ParameterTable.from_module(model)
        _check_owned(optimizer, parameters)
        self._specs = make_group_specs(
            self._save, self.table, optimizer, dtype=dtype, decay_known=self._decay is not None
        )
        for schedules in self._save.values():
            for schedule in schedules.values():
                schedule.resolve(n_steps)
        self._flat = FlatParameters(parameters, self.table)
        self._file = RunFile(
            self.directory,
            {
                "parameters": self.table.to_json(),
                "save": {key: str(schedule) for key, schedule in save.items()},
                "n_steps": n_steps,
                "dtype": dtype,
                "loss_reduction": loss_reduction,
                "optimizer": type(optimizer).__name__,
                "decay": "split" if self._decay is not None else "not split",
                "config": as_json(config),
            },
        )
        self._session: Session | None = None
        self._handles: list[RemovableHandle] = []

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
        return make_plan(self._save, self._specs, self.table, self.n_steps, self.directory)

    def attach(self) -> Recorder:
        """Start recording; called by ``with``. A second call changes nothing."""
        if self._session is not None:
            return self
        self._check_disk()
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
        for handle in self._handles:
            handle.remove()
        try:
            if not self._in_step:
                session.final(self.step)
            if status == "complete" and self._checkpoint and self._ended == self.step:
                self._take_checkpoint(session)
            session.flush()
            session.writer.drain()
        except BaseException:
            status = "interrupted"
            raise
        finally:
            session.writer.close()
            self._file.write(
                status=status,
                step=self.step,
                nonfinite=session.nonfinite,
                missing_gradients=self._flat.missing,
            )
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
        if self._session is None:
            raise RuntimeError(
                "log() requires an attached recorder, but it is closed. Log inside "
                "'with Recorder(...) as recorder:', or call recorder.attach() first."
            )
        if step is None:
            coming = self._gradient_pending or self._ended == self.step
            step = self.step if coming else self.step - 1
        self._session.metrics.log(step, {name: scalar(name, v) for name, v in values.items()})

    def end_step(self) -> None:
        """Say that this iteration is over; call it last in the loop's body.

        Checkpoints are taken here, where the weights, the scheduler and the position in the data
        belong together. What is logged from here on belongs to the coming step.
        """
        self._ended = self.step
        if self._session is not None and self._checkpoint and self._checkpoint(self.step):
            self._take_checkpoint(self._session)

    # --- inside -----------------------------------------------------------------------------

    def _check_disk(self) -> None:
        plan = self.plan()
        if plan.total_bytes is not None and plan.total_bytes > plan.free_bytes:
            raise RecordingError(
                f"the recording needs {format_bytes(plan.total_bytes)}, but the disk of "
                f"{self.directory} has {format_bytes(plan.free_bytes)} free. Save fewer steps "
                "(every(10), log_spaced(200)), use dtype='bfloat16', or choose another disk. "
                "recorder.plan() shows what takes how much."
            )

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
        tree = self._restore() if exists else None
        session = Session(
            self.directory,
            self.step,
            self._flat,
            self.model,
            self.optimizer,
            save=self._save,
            specs=self._specs,
            probes=self._probes,
            n_steps=self.n_steps,
            decay=self._decay,
        )
        if tree is not None:
            session.load_state(tree["extra"])
        self._in_step = self._gradient_pending = self._closure = self._warned = False
        self._last_flush = time.monotonic()
        self._file.write(status="recording", step=self.step, nonfinite=session.nonfinite)
        self._ended = self.step
        self._checkpointed = -1 if tree is None else self.step
        if self._checkpoint and self._checkpoint(self.step):
            self._take_checkpoint(session)
        self._session = session
        self._add_hooks(session)

    def _restore(self) -> dict[str, Any] | None:
        """Load the newest checkpoint; the steps behind it are recorded again."""
        newest = newest_checkpoint(self.directory / schema.CHECKPOINTS)
        if newest is None:
            return None
        known = (torch.optim.lr_scheduler.LRScheduler, torch.amp.GradScaler)
        if all(isinstance(item, known) for item in self._state.values()):
            warnings.warn(
                f"{self.directory} is resumed from step {newest[0]} without a data position: the "
                "run need not be bit-identical to an uninterrupted one. Pass the position in the "
                "data to promise that: state={'loader': ...}, anything with state_dict().",
                RecordingWarning,
                stacklevel=4,
            )
        tree = load_checkpoint(newest[1])
        restore(tree, self.model, self.optimizer, self._state)
        self.step = newest[0]
        return tree

    def _add_hooks(self, session: Session) -> None:
        def gradient_arrived(parameter: Tensor) -> None:
            self._gradient_pending = True

        @torch.no_grad()
        def before_step(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._require_checkpoint()
            self._in_step = True
            self._closure = any(a is not None for a in (*args[1:2], kwargs.get("closure")))
            session.before(self.step, gradients_later=self._closure)

        @torch.no_grad()
        def after_step(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            session.after(self.step, gradients_later=self._closure)
            self.step += 1
            self._gradient_pending = self._in_step = False
            now = time.monotonic()
            if now - self._last_flush > FLUSH_SECONDS:
                session.flush(metrics_before=self.step - 1)
                self._last_flush = now
                self._warn_nonfinite(session)

        # Models with hooks on their parameters can still be saved with torch.save.
        arrived = unserializable_hook(gradient_arrived)
        self._handles = [
            self.optimizer.register_step_pre_hook(before_step),
            self.optimizer.register_step_post_hook(after_step),
            *(
                p.register_post_accumulate_grad_hook(arrived)
                for p in self._flat.tensors
                if p.requires_grad
            ),
        ]

    def _require_checkpoint(self) -> None:
        if self._checkpoint and self._checkpoint(self.step) and self._checkpointed < self.step:
            raise RecordingError(
                f"a checkpoint was due at step {self.step}, but end_step() was not called after "
                "the update. Call recorder.end_step() last in the loop's body."
            )

    def _take_checkpoint(self, session: Session) -> None:
        """Commit every row before this step, then write the state: a checkpoint is never ahead."""
        if self._checkpointed == self.step:
            return
        session.flush(metrics_before=self.step)
        session.writer.drain()
        save_checkpoint(
            self.directory / schema.CHECKPOINTS,
            self.step,
            self.model,
            self.optimizer,
            self._state,
            session.state(),
        )
        self._checkpointed = self.step

    def _warn_nonfinite(self, session: Session) -> None:
        if session.nonfinite and not self._warned:
            self._warned = True
            warnings.warn(session.watch.describe(), RecordingWarning, stacklevel=4)


def _check_owned(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> None:
    owned = {id(p) for p in parameters.values()}
    groups = [p for group in optimizer.param_groups for p in group["params"]]
    foreign = [tuple(p.shape) for p in groups if id(p) not in owned]
    if foreign:
        raise ValueError(
            f"the optimizer must update the model's parameters, but {len(foreign)} of its "
            f"{len(groups)} tensors (shapes {foreign[:3]}) are not among them. Build the optimizer "
            "from this model, or pass a ModuleDict that holds every module it updates."
        )
