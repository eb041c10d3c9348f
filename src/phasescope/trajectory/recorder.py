"""`Recorder`: the public optimizer hooks write a training run into a store."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle, unserializable_hook

from phasescope.errors import RecordingError, RecordingWarning, RunError
from phasescope.parameters import ParameterTable, named_parameters
from phasescope.trajectory import schema
from phasescope.trajectory.captures import Captures, FlatParameters, ProbeCapture
from phasescope.trajectory.channels import Channel, MetricsLog, WriterThread
from phasescope.trajectory.checkpoint import (
    Stateful,
    load_checkpoint,
    newest_checkpoint,
    restore,
    save_checkpoint,
)
from phasescope.trajectory.lock import RunLock
from phasescope.trajectory.nonfinite import NonFiniteWatch
from phasescope.trajectory.optimizers import DecayFactor, decay_factor
from phasescope.trajectory.plan import Plan, format_bytes, make_plan, parse_save
from phasescope.trajectory.plan import group_specs as make_group_specs
from phasescope.trajectory.runfile import RunFile, as_json
from phasescope.trajectory.schedule import Schedule
from phasescope.trajectory.store import ArraySpec, TrajectoryStore

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
        >>> with ps.Recorder(directory, model, optimizer, save={"updates": ps.every(1)}) as recorder:
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
        probes: Mapping[str, Callable[[nn.Module], Any]] | None = None,
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
        self._attached = False
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

    def attach(self) -> Self:
        """Start recording; called by ``with``. A second call changes nothing."""
        if self._attached:
            return self
        self._check_disk()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = RunLock(self.directory)
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        self._attached = True
        return self

    def close(self, status: Literal["complete", "interrupted"] = "complete") -> None:
        """Write what is still in memory, remove every hook, and release the directory."""
        if not self._attached:
            return
        self._attached = False
        for handle in self._handles:
            handle.remove()
        try:
            if not self._in_step:
                self._captures.final(self.step)
            if status == "complete" and self._checkpoint and self._ended == self.step:
                self._take_checkpoint()
            self._flush_all()
            self._writer.drain()
        except BaseException:
            status = "interrupted"
            raise
        finally:
            self._writer.close()
            self._file.write(
                status=status,
                step=self.step,
                nonfinite=self._watch.events,
                missing_gradients=self._flat.missing,
            )
            self._lock.release()
            self._warn_nonfinite()

    def __enter__(self) -> Self:
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

    def log(self, *, step: int | None = None, **values: float | Float[Tensor, ""]) -> None:
        """File scalars under the step of the weights on which they were evaluated.

        After ``optimizer.step()`` that is the update just done; before it, or after `end_step`,
        the coming one. Values logged twice for one step replace each other.

        Args:
            step: The step, if it is another: ``step=recorder.step`` for the weights as they are now.
            **values: Numbers, or tensors with one element.

        Raises:
            RuntimeError: The recorder is not attached.
            ValueError: A value has more than one element, or its step has been written already.
        """
        if not self._attached:
            raise RuntimeError(
                "log() requires an attached recorder, but it is closed. Log inside "
                "'with Recorder(...) as recorder:', or call recorder.attach() first."
            )
        if step is None:
            coming = self._gradient_pending or self._ended == self.step
            step = self.step if coming else self.step - 1
        self._metrics.log(max(0, step), {name: _scalar(name, v) for name, v in values.items()})

    def end_step(self) -> None:
        """Say that this iteration is over; call it last in the loop's body.

        Checkpoints are taken here, where the weights, the scheduler and the position in the data
        belong together. Without ``checkpoint=`` the call does nothing.
        """
        if not self._attached or self._checkpoint is None:
            return
        self._ended = self.step
        if self._checkpoint(self.step):
            self._take_checkpoint()

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
                f"(status {self._file.read()['status']!r}). Pass resume=True to go on with it, or "
                "choose another directory."
            )
        if exists:
            self._file.check_same()
        tree = self._restore() if exists else None
        store = TrajectoryStore(
            self.directory / schema.STORE, {"schema_version": schema.SCHEMA_VERSION}
        )
        for group in store.groups.values():
            group.truncate(self.step)
        store.commit()
        self._watch = NonFiniteWatch(self.table, [])
        self._warned = False
        self._writer = WriterThread(store)
        self._metrics = MetricsLog(self._writer)
        if tree is not None:
            for step, values in tree["extra"]["metrics"].items():
                self._metrics.log(step, values)
            self._watch.events += tree["extra"]["nonfinite"]
            self._flat.missing |= tree["extra"]["missing_gradients"]
        self._open_channels()
        self._in_step = self._gradient_pending = False
        self._last_flush = time.monotonic()
        self._file.write(status="recording", step=self.step, nonfinite=self._watch.events)
        self._ended = self.step
        self._checkpointed = self.step if tree is not None else -1
        if self._checkpoint and self._checkpoint(self.step) and tree is None:
            self._take_checkpoint()
        self._add_hooks()

    def _restore(self) -> dict[str, Any] | None:
        """Load the newest checkpoint; the steps behind it are recorded again."""
        newest = newest_checkpoint(self.directory / schema.CHECKPOINTS)
        if newest is None:
            return None
        if "loader" not in self._state:
            warnings.warn(
                f"{self.directory} is resumed from step {newest[0]} without a data position: the run "
                "need not be bit-identical to an uninterrupted one. Pass state={'loader': ...} with "
                "the position in the data to promise that.",
                RecordingWarning,
                stacklevel=4,
            )
        tree = load_checkpoint(newest[1])
        restore(tree, self.model, self.optimizer, self._state)
        self.step = newest[0]
        return tree

    def _open_channels(self) -> None:
        self._channels: dict[str, tuple[Channel, Callable[[int], bool]]] = {}
        pinned = any(p.is_cuda for p in self._flat.tensors)
        # One watch is enough: the norms are looked at only where no gradients are saved.
        watched = "gradients" if "gradients" in self._specs else "norms"
        for group, specs in self._specs.items():
            inspect = self._watch if group == watched and "gradients" in {group, *specs} else None
            labels = {schema.TENSOR: self.table.names} if group == "norms" else {}
            attributes = {"meaning": schema.GROUPS[group].meaning}
            channel = Channel(group, specs, self._writer, pinned, inspect, attributes, labels)
            schedule = next(iter(self._save[group].values()))
            self._channels[group] = (channel, schedule.resolve(self.n_steps))
        self._captures = Captures(self._flat, self.optimizer, self._channels, self._decay)
        schedules = self._save.get("probes", {})
        self._probe_captures = [
            ProbeCapture(name, probe, schedule.resolve(self.n_steps))
            for name, probe in self._probes.items()
            if (schedule := schedules.get(name, schedules.get(""))) is not None
        ]

    def _add_hooks(self) -> None:
        def gradient_arrived(parameter: Tensor) -> None:
            self._gradient_pending = True

        # Models with hooks on their parameters can still be saved with torch.save.
        hook = unserializable_hook(gradient_arrived)
        self._handles = [
            self.optimizer.register_step_pre_hook(self._before_step),
            self.optimizer.register_step_post_hook(self._after_step),
            *(
                p.register_post_accumulate_grad_hook(hook)
                for p in self._flat.tensors
                if p.requires_grad
            ),
        ]

    @torch.no_grad()
    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._writer.check()
        self._in_step = True
        if self._checkpoint and self._checkpoint(self.step) and self._checkpointed < self.step:
            raise RecordingError(
                f"a checkpoint was due at step {self.step}, but end_step() was not called after the "
                "update. Call recorder.end_step() last in the loop's body."
            )
        self._closure = any(a is not None for a in args[1:2]) or kwargs.get("closure") is not None
        for probe in self._probe_captures:
            if probe.due(self.step):
                probe.evaluate(self.model, self.step, self._writer)
        self._captures.before(self.step, gradients_later=self._closure)

    @torch.no_grad()
    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._captures.after(self.step, gradients_later=self._closure)
        self.step += 1
        self._gradient_pending = self._in_step = False
        now = time.monotonic()
        if now - self._last_flush > FLUSH_SECONDS:
            self._flush_all(before=self.step - 1)
            self._last_flush = now
            self._warn_nonfinite()

    def _flush_all(self, before: int | None = None) -> None:
        for channel, _ in self._channels.values():
            channel.flush()
        for probe in self._probe_captures:
            if probe.channel is not None:
                probe.channel.flush()
        self._metrics.flush(before)

    def _take_checkpoint(self) -> None:
        """Commit every row before this step, then write the state: a checkpoint is never ahead."""
        if self._checkpointed == self.step:
            return
        self._metrics.flush(self.step)
        pending = {
            step: {name: float(value) for name, value in values.items()}
            for step, values in self._metrics.pending.items()
        }
        self._flush_all(before=self.step)
        self._writer.drain()
        extra = {
            "metrics": pending,
            "nonfinite": self._watch.events,
            "missing_gradients": self._flat.missing,
        }
        folder = self.directory / schema.CHECKPOINTS
        save_checkpoint(folder, self.step, self.model, self.optimizer, self._state, extra)
        self._checkpointed = self.step

    def _warn_nonfinite(self) -> None:
        if self._watch.events and not self._warned:
            self._warned = True
            warnings.warn(self._watch.describe(), RecordingWarning, stacklevel=4)


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


def _scalar(name: str, value: float | Tensor) -> float | Tensor:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(
                f"log() takes scalars, but {name!r} has shape {tuple(value.shape)}. Reduce it, or "
                "record it as a probe."
            )
        # On a GPU reading the number would wait for the device: keep a copy and read it later.
        return value.detach().clone().reshape(()) if value.is_cuda else value.item()
    return float(value)
