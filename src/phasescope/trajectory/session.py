"""What lives while a recorder is attached: the writer, the channels, the captures, the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from phasescope.errors import RunError
from phasescope.trajectory import schema
from phasescope.trajectory.captures import Captures
from phasescope.trajectory.channels import Channel, Job, MetricsLog, WriterThread
from phasescope.trajectory.contents import Contents
from phasescope.trajectory.flat import FlatParameters
from phasescope.trajectory.nonfinite import NonFiniteWatch
from phasescope.trajectory.probes import ProbeCapture
from phasescope.trajectory.quiet import QuietWriter
from phasescope.trajectory.store import ArraySpec, TrajectoryStore
from phasescope.trajectory.warn import warn

_SKIPPED = {"scale": ArraySpec("float64", (), (), 4096, fill=float("nan"))}


class Session:
    """Everything between a training loop and its store.

    Args:
        directory: The run's directory, locked by the caller; None on a process that writes nothing.
        step: Updates already applied; rows from here on are dropped from an existing store.
        flat: The model's parameters.
        model: The model, for the probes.
        optimizer: The optimizer that is recorded.
        contents: What is recorded.
    """

    def __init__(
        self,
        directory: Path | None,
        step: int,
        flat: FlatParameters,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        contents: Contents,
    ) -> None:
        self._model = model
        self._flat = flat
        self._contents = contents
        self.nonfinite: list[dict[str, Any]] = []
        self.watch = NonFiniteWatch(flat.table, self.nonfinite)
        if directory is None:
            self.writer = QuietWriter()
        else:
            store = TrajectoryStore(directory / schema.STORE, {"schema": schema.SCHEMA_VERSION})
            _check_groups(store, contents, step)
            store.truncate(step)
            self.writer = WriterThread(store, contents.sinks)
        self.metrics = MetricsLog(self.writer)
        self._channels: dict[str, tuple[Channel, Callable[[int], bool]]] = {}
        for group, arrays in contents.specs.items():
            due = next(iter(contents.save[group].values())).resolve(contents.n_steps)
            self._channels[group] = (self._channel(group, arrays), due)
        self.captures = Captures(
            flat, optimizer, self._channels, contents.decay, contents.summaries
        )
        self._open = [channel for channel, _ in self._channels.values()]
        schedules = contents.save.get("probes", {})
        self._probes = [
            ProbeCapture(name, probe, schedule.resolve(contents.n_steps), self._open)
            for name, probe in contents.probes.items()
            if (schedule := schedules.get(name, schedules.get(""))) is not None
        ]
        self.writer.store.commit()

    def _channel(self, group: str, arrays: Mapping[str, ArraySpec]) -> Channel:
        # One watch is enough: the norms are looked at only where no gradients are saved.
        watched = "gradients" if "gradients" in self._contents.specs else "norms"
        inspect = self.watch if group == watched and "gradients" in {group, *arrays} else None
        over_parameters = all(spec.dimensions == (schema.PARAMETER,) for spec in arrays.values())
        return Channel(
            group,
            arrays,
            self.writer,
            pinned=any(p.is_cuda for p in self._flat.tensors),
            inspect=inspect,
            attributes={"meaning": schema.GROUPS[group].meaning},
            labels=self._contents.labels.get(group, {}),
            shapes=self._flat.table.shapes if over_parameters else (),
        )

    def before(
        self,
        step: int,
        *,
        gradients_later: bool,
        scale: Tensor | None = None,
        backward_scale: Tensor | float | None = None,
    ) -> None:
        """Record what exists before update `step`; see `Captures.before`."""
        self.writer.check()
        for probe in self._probes:
            if probe.due(step):
                probe.evaluate(self._model, step, self.writer)
        self.captures.before(
            step,
            gradients_later=gradients_later,
            scale=scale,
            backward_scale=backward_scale,
        )

    def after(self, step: int, *, gradients_later: bool) -> None:
        """Record what exists after update `step`."""
        self.captures.after(step, gradients_later=gradients_later)

    def skipped(self, step: int, scale: float) -> None:
        """Record that an update at the weights of `step` was skipped, and the scale it had."""
        self.captures.forget()
        values = {"scale": np.array([[scale]])}
        self.writer.submit(Job("skipped", _SKIPPED, np.array([step], np.int64), values))

    def final(self, step: int) -> None:
        """Record the weights after the last update."""
        self.captures.final(step)

    def flush(self, metrics_before: int | None = None) -> None:
        """Hand every complete row to the writer, and the metrics of steps below a bound."""
        _flush(self._open, self.metrics, metrics_before)

    def commit(self, metrics_before: int | None = None) -> None:
        """`flush`, and wait until everything is committed."""
        self.flush(metrics_before)
        self.writer.drain()

    def lost(self, end: Callable[[int], None]) -> Callable[[], None]:
        """What writes the rows that wait in memory once this session and the model are gone.

        Args:
            end: Called at last with the number of updates whose rows there are.
        """
        channels, metrics, writer = self._open, self.metrics, self.writer

        def finish() -> None:
            try:
                _flush(channels, metrics)
                writer.drain()
            finally:
                writer.close()
                end(max((channel.last_step + 1 for channel in channels), default=0))

        return finish

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the recording itself, beyond the committed rows."""
        pending = {
            step: {name: float(value) for name, value in values.items()}
            for step, values in self.metrics.pending.items()
        }
        return {
            "metrics": pending,
            "nonfinite": list(self.nonfinite),
            "missing_gradients": dict(self._flat.missing),
            "densified_gradients": list(self._flat.densified),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        # Somebody else's checkpoint may be JSON, and may know the step only. What was pending when
        # it was written may have been committed since.
        for step, values in state.get("metrics", {}).items():
            if int(step) > self.metrics.written:
                self.metrics.log(int(step), values)
        self.nonfinite.extend(state.get("nonfinite", ()))
        self._flat.missing |= state.get("missing_gradients", {})
        self._flat.densified |= dict.fromkeys(state.get("densified_gradients", ()))

    def warn_of_gaps(self, step: int) -> None:
        """Warn where a group ends before rows that were due before `step`."""
        gaps = []
        for group, (channel, due) in self._channels.items():
            missing = [s for s in range(channel.last_step + 1, step) if due(s)]
            if missing and channel.last_step >= 0:  # a run may begin late
                gaps.append(f"{group} from {missing[0]} to {missing[-1]}")
        if gaps:
            warn(
                f"the recording is resumed at step {step}, but rows before it are missing: "
                f"{'; '.join(gaps)}. The checkpoint was written before they were committed: call "
                "recorder.flush() first.",
            )


def _flush(channels: Iterable[Channel], metrics: MetricsLog, before: int | None = None) -> None:
    for channel in channels:
        channel.flush()
    metrics.flush(before)


def _check_groups(store: TrajectoryStore, contents: Contents, step: int) -> None:
    deleted = [group for group in contents.specs if group not in store.groups]
    if step > 0 and store.groups and deleted:
        raise RunError(
            f"{store.path.parent} is resumed at step {step}, but its groups {deleted} have been "
            "deleted, so the steps before it would be missing. Delete its checkpoints to record it "
            "again from step 0, or record into another directory."
        )


# Names that an array of the metrics cannot have.
RESERVED = ("", ".", "..", schema.STEP, "values", "zarr.json")


def scalar(name: str, value: float | int | Tensor) -> float | Tensor:
    """A logged value as a number, or as a tensor to be read later.

    Raises:
        ValueError: It has more than one element, or a name that cannot be an array's.
    """
    if "/" in name or name in RESERVED:
        raise ValueError(
            f"a metric requires a name without slashes that is none of {RESERVED}, since it "
            f"becomes an array of this name, but {name!r} arrived. Write train_loss=..."
        )
    if not isinstance(value, Tensor):
        return float(value)
    if value.numel() != 1:
        raise ValueError(
            f"log() takes scalars, but {name!r} has shape {tuple(value.shape)}. Reduce it, or "
            "record it as a probe."
        )
    # On a GPU reading the number would wait for the device: keep a copy and read it later.
    return value.detach().clone().reshape(()) if value.is_cuda else value.item()
