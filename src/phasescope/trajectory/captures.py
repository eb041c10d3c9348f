"""What is read from model and optimizer around one update, and into which rows it goes.

Axis letters: p parameters of the flat vector, n tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from phasescope.errors import RecordingError
from phasescope.parameters import ParameterTable
from phasescope.trajectory.channels import Channel, WriterThread
from phasescope.trajectory.optimizers import DecayFactor
from phasescope.trajectory.store import ArraySpec

PROBE_BLOCK_BYTES = 16_000_000

Rows = Mapping[str, Tensor]


class FlatParameters:
    """Copies between a model's tensors and rows of the flat vector."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], table: ParameterTable) -> None:
        self.tensors = list(parameters.values())
        self.names = list(parameters)
        self.table = table
        self._sizes = list(table.sizes)
        wide = any(p.dtype == torch.float64 for p in self.tensors)
        self._before_dtype = torch.float64 if wide else torch.float32
        self._before: list[Tensor] | None = None
        # The parameters without gradient at their last update: name -> [first step, last, count].
        self.missing: dict[str, list[int]] = {}

    def fill(self, row: Tensor, tensors: list[Tensor]) -> None:
        """Copy one tensor per parameter into a row (padded, any float type)."""
        parts = row[: self.table.size].split(self._sizes)
        flat = [tensor.detach().reshape(-1) for tensor in tensors]
        for part, source in zip(parts, flat, strict=True):
            part.copy_(source, non_blocking=True)

    def gradients(self, step: int) -> list[Tensor]:
        """The gradients of all parameters; a missing one is zero and marked as missing."""
        found = []
        for name, parameter in zip(self.names, self.tensors, strict=True):
            gradient = parameter.grad
            if gradient is None:
                span = self.missing.setdefault(name, [step, step, 0])
                span[1] = step
                span[2] += 1
                gradient = torch.zeros_like(parameter)
            elif gradient.layout != torch.strided:
                raise RecordingError(
                    f"gradients are recorded as dense tensors, but that of {name!r} has layout "
                    f"{gradient.layout}. Build the embedding with sparse=False."
                )
            found.append(gradient)
        return found

    def keep(self) -> None:
        """Remember the weights before an update."""
        if self._before is None:
            self._before = [
                torch.empty(p.numel(), dtype=self._before_dtype, device=p.device)
                for p in self.tensors
            ]
        for kept, parameter in zip(self._before, self.tensors, strict=True):
            kept.copy_(parameter.detach().reshape(-1))

    def change(self) -> list[Tensor]:
        """Weights now minus weights at `keep`."""
        if self._before is None:
            raise RuntimeError("keep() comes before change()")
        pairs = zip(self.tensors, self._before, strict=True)
        return [p.detach().reshape(-1).to(before.dtype) - before for p, before in pairs]

    def decay(
        self, optimizer: torch.optim.Optimizer, factor: DecayFactor, *, gradients_later: bool
    ) -> list[Tensor]:
        """The change that decoupled weight decay is about to make: ``-lr * weight_decay * w``."""
        factors: dict[int, float] = {}
        for group in optimizer.param_groups:
            # A parameter without gradient is skipped by the optimizer, and so is its decay.
            decayed = [p for p in group["params"] if gradients_later or p.grad is not None]
            factors |= {id(p): factor(group) for p in decayed}
        return [p.detach() * -factors.get(id(p), 0.0) for p in self.tensors]

    def moment(self, optimizer: torch.optim.Optimizer, name: str) -> list[Tensor]:
        """One state tensor per parameter; zero where the optimizer has none yet.

        Raises:
            RecordingError: The optimizer keeps a state, but nothing of this name for any parameter.
        """
        states = [optimizer.state.get(p, {}) for p in self.tensors]
        if any(states) and not any(name in state for state in states):
            kept = sorted({key for state in states for key in state})
            raise RecordingError(
                f"save= asks for 'moments/{name}', but after the update {type(optimizer).__name__} "
                f"keeps {kept}. Name one of these that has its parameter's shape."
            )
        pairs = zip(states, self.tensors, strict=True)
        return [s[name] if name in s else torch.zeros_like(p) for s, p in pairs]


def fill_norms(row: Tensor, tensors: list[Tensor]) -> None:
    """Copy the L2 norm of every tensor into a row."""
    # One call for all tensors; PyTorch's own gradient clipping uses it too.
    norms = torch._foreach_norm(tensors)  # pyright: ignore[reportPrivateImportUsage]
    row.copy_(torch.stack([norm.float() for norm in norms]), non_blocking=True)


def evaluate_probe(model: nn.Module, probe: Callable[[nn.Module], Any], name: str) -> Tensor:
    """The value of a probe in evaluation mode, leaving modes, buffers and random state as before.

    Raises:
        TypeError: The probe returned something that is no tensor of real numbers.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    try:
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            value = probe(model)
    finally:
        for module, mode in modes:
            module.training = mode
        for buffer, old in buffers:
            if not torch.equal(buffer, old):
                buffer.copy_(old)
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


class Captures:
    """Everything that is saved around one update.

    Args:
        flat: The model's parameters.
        optimizer: The optimizer whose updates are recorded.
        channels: Per group, where its rows go and the test ``step -> bool`` for when.
        factor: The rule of decoupled decay, if it is known.
    """

    def __init__(
        self,
        flat: FlatParameters,
        optimizer: torch.optim.Optimizer,
        channels: Mapping[str, tuple[Channel, Callable[[int], bool]]],
        factor: DecayFactor | None,
    ) -> None:
        self._flat = flat
        self._optimizer = optimizer
        self._channels = channels
        self._factor = factor
        self._rows: dict[str, Rows] = {}
        self._norms: Rows = {}

    def before(self, step: int, *, gradients_later: bool) -> None:
        """Read what exists before update `step`; with a closure the gradients come later."""
        self._rows = {
            name: channel.row() for name, (channel, due) in self._channels.items() if due(step)
        }
        self._norms = self._rows.get("norms", {})
        if not gradients_later:
            self._save("gradients", lambda: self._flat.gradients(step))
        self._save("weights", lambda: [p.detach() for p in self._flat.tensors])
        if "updates" in self._rows or "updates" in self._norms:
            self._flat.keep()
        if self._factor is not None:
            factor = self._factor
            self._save(
                "decay",
                lambda: self._flat.decay(self._optimizer, factor, gradients_later=gradients_later),
            )

    def after(self, step: int, *, gradients_later: bool) -> None:
        """Read what exists after update `step`; its rows are complete then."""
        if gradients_later:
            self._save("gradients", lambda: self._flat.gradients(step))
        self._save("updates", self._flat.change)
        for name, row in self._rows.get("moments", {}).items():
            self._flat.fill(row, self._flat.moment(self._optimizer, name))
        for name in self._rows:
            self._channels[name][0].advance(step)

    def final(self, step: int) -> None:
        """Read the weights after the last update, which no further update would."""
        if "weights" in self._channels and self._channels["weights"][0].last_step < step:
            channel = self._channels["weights"][0]
            self._flat.fill(channel.row()["values"], [p.detach() for p in self._flat.tensors])
            channel.advance(step)

    def _save(self, name: str, read: Callable[[], list[Tensor]]) -> None:
        """Read once, into the group of this name and into the norms of this name, where due."""
        if name not in self._rows and name not in self._norms:
            return
        tensors = read()
        if name in self._rows:
            self._flat.fill(self._rows[name]["values"], tensors)
        if name in self._norms:
            fill_norms(self._norms[name], tensors)


class ProbeCapture:
    """A named function of the model, evaluated at the weights before an update."""

    def __init__(
        self, name: str, probe: Callable[[nn.Module], Any], due: Callable[[int], bool]
    ) -> None:
        self.name = name
        self.due = due
        self._probe = probe
        self._shape: tuple[int, ...] | None = None
        self.channel: Channel | None = None

    def evaluate(self, model: nn.Module, step: int, writer: WriterThread) -> None:
        """Evaluate at weights[step] and save; the first value fixes the shape.

        Raises:
            RecordingError: The value's shape has changed.
        """
        if self.channel is not None and self.channel.last_step >= step:
            return
        value = evaluate_probe(model, self._probe, self.name)
        if self.channel is None:
            self.channel = self._open(value, writer)
            if self.channel.last_step >= step:
                return
        if tuple(value.shape) != self._shape:
            raise RecordingError(
                f"probe {self.name!r} must return one shape throughout; it returned {self._shape} "
                f"before and {tuple(value.shape)} at step {step}. Use a fixed batch in the probe."
            )
        row = self.channel.row()["values"]
        row[: value.numel()].copy_(value.reshape(-1))
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
