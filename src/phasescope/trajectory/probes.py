"""Named functions of the model, evaluated as it is before an update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from phasescope.errors import RecordingError
from phasescope.models.evaluation import evaluating
from phasescope.trajectory.channels import Channel, WriterThread
from phasescope.trajectory.distributed import apart
from phasescope.trajectory.store import ArraySpec

PROBE_BLOCK_BYTES = 16_000_000

Probe = Callable[[nn.Module], Any]


def evaluate_probe(model: nn.Module, probe: Probe, name: str) -> Tensor:
    """The value of a probe in evaluation mode, leaving modes, buffers and random state as before.

    Raises:
        TypeError: The probe returned something that is no tensor of real numbers.
    """
    with evaluating(model), apart(model):
        value = probe(model)
    if not isinstance(value, Tensor):
        try:
            value = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                f"a probe returns a tensor or a number, but {name!r} returned "
                f"{type(value).__name__}. Stack what it returns into one tensor."
            ) from None
    if value.is_complex():
        raise TypeError(
            f"a probe returns real numbers, but {name!r} returned {value.dtype}. Return "
            "torch.view_as_real(...)."
        )
    return value.detach()


class ProbeCapture:
    """A named function of the model, evaluated at the weights before an update."""

    def __init__(
        self, name: str, probe: Probe, due: Callable[[int], bool], opened: list[Channel]
    ) -> None:
        self.name = name
        self.due = due
        self._probe = probe
        self._shape: tuple[int, ...] | None = None
        self.channel: Channel | None = None
        self._opened = opened

    def evaluate(self, model: nn.Module, step: int, writer: WriterThread) -> None:
        """Evaluate at weights[step] and save; the first value fixes the shape.

        Raises:
            RecordingError: The probe raised, or the value's shape has changed.
        """
        if self.channel is not None and self.channel.last_step >= step:
            return
        try:
            value = evaluate_probe(model, self._probe, self.name)
        except Exception as error:
            raise RecordingError(
                f"probe {self.name!r} failed at step {step}: {type(error).__name__}: {error}. "
                "Everything recorded before is kept; correct the probe and record again, or pass "
                "on_failure='continue' to train on without a recording."
            ) from error
        if self.channel is None:
            self.channel = self._open(value, writer)
            self._opened.append(self.channel)
            if self.channel.last_step >= step:
                return
        if tuple(value.shape) != self._shape:
            raise RecordingError(
                f"probe {self.name!r} must return one shape throughout; it returned {self._shape} "
                f"before and {tuple(value.shape)} at step {step}. Use a fixed batch in the probe."
            )
        self.channel.row().write("values", value.reshape(-1))
        self.channel.advance(step)

    def _open(self, value: Tensor, writer: WriterThread) -> Channel:
        self._shape = tuple(value.shape)
        dimensions = tuple(f"{self.name}_{i}" for i in range(value.dim()))
        rows = max(1, min(64, PROBE_BLOCK_BYTES // max(1, 4 * value.numel())))
        group = f"probes/{self.name}"
        existing = writer.store.groups.get(group)
        if existing is not None and existing.specs["values"].tail != self._shape:
            raise RecordingError(
                f"probe {self.name!r} recorded values of shape {existing.specs['values'].tail} "
                f"before the resume, and returns {self._shape} now. Resume with the same probe."
            )
        spec = ArraySpec("float32", self._shape, dimensions, rows)
        return Channel(group, {"values": spec}, writer)
