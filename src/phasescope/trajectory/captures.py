"""What is read from model and optimizer around one update, and into which rows it goes.

Axis letters: p parameters of the flat vector, n tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from phasescope.trajectory.channels import Channel
from phasescope.trajectory.flat import FlatParameters, tensor_norms
from phasescope.trajectory.optimizers import DecayFactor
from phasescope.trajectory.schema import UNCLIPPED

Rows = Mapping[str, Tensor]
Channels = Mapping[str, tuple[Channel, Callable[[int], bool]]]
# A few numbers about one tensor per parameter: norms, norms of components, a sketch.
Summary = Callable[[list[Tensor]], Tensor]


class Captures:
    """Everything that is saved around one update.

    Args:
        flat: The model's parameters.
        optimizer: The optimizer whose updates are recorded.
        channels: Per group, where its rows go and the test ``step -> bool`` for when.
        factor: The rule of decoupled decay, if it is known.
        summaries: Groups that hold a summary of what their arrays are named for.
    """

    def __init__(
        self,
        flat: FlatParameters,
        optimizer: torch.optim.Optimizer,
        channels: Channels,
        factor: DecayFactor | None,
        summaries: Mapping[str, Summary],
    ) -> None:
        self._flat = flat
        self._optimizer = optimizer
        self._channels = channels
        self._factor = factor
        self._summaries = summaries
        self._rows: dict[str, Rows] = {}
        norms = channels.get("norms")
        summarised = norms is not None and UNCLIPPED in norms[0].specs
        self.arrivals = Arrivals(flat, channels) if UNCLIPPED in channels or summarised else None

    def before(
        self,
        step: int,
        *,
        gradients_later: bool,
        scale: Tensor | None,
        backward_scale: Tensor | float | None,
    ) -> None:
        """Read what exists before update `step`; with a closure the gradients come later.

        Args:
            step: Updates applied so far.
            gradients_later: Whether a closure makes them during the update.
            scale: What the gradients are still multiplied with, if a fused optimizer unscales them.
            backward_scale: What the backward passes multiplied the loss with.
        """
        self._rows = {
            name: channel.row() for name, (channel, due) in self._channels.items() if due(step)
        }
        if self.arrivals is not None and not gradients_later:
            self.arrivals.finish(step, backward_scale)
        if not gradients_later:
            self._save("gradients", lambda: self._flat.gradients(step, scale))
        self._save("weights", lambda: [p.detach() for p in self._flat.tensors])
        if self._wanted("updates"):
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
            if self.arrivals is not None:
                self.arrivals.finish(step, None)
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

    def _wanted(self, name: str) -> bool:
        return name in self._rows or any(
            name in self._rows.get(group, ()) for group in self._summaries
        )

    def _save(self, name: str, read: Callable[[], list[Tensor]]) -> None:
        """Read once, into the group of this name and into the summaries of this name, if due."""
        if not self._wanted(name):
            return
        tensors = read()
        if name in self._rows:
            self._flat.fill(self._rows[name]["values"], tensors)
        for group, summary in self._summaries.items():
            if name in self._rows.get(group, ()):
                values = summary(tensors)
                self._rows[group][name][: len(values)].copy_(values, non_blocking=True)


class Arrivals:
    """Gradients as the backward passes leave them, before the loop unscales or clips them.

    Every backward pass hands over the sum so far, so the last one before the update counts.
    """

    def __init__(self, flat: FlatParameters, channels: Channels) -> None:
        self._flat = flat
        self._channels = channels
        self._index = {id(p): i for i, p in enumerate(flat.tensors)}
        self._step = -1
        self._arrived: set[int] = set()
        self._parts: tuple[Tensor, ...] | None = None
        self._norms: Tensor | None = None
        # Parameters that were frozen until this step: their gradient was not seen arriving.
        self.unseen: list[Tensor] = []

    def arrive(self, parameter: Tensor, step: int) -> None:
        """Take the gradient that a backward pass has just added to."""
        if step != self._step:
            self._begin(step)
        if self._parts is not None or self._norms is not None:
            index = self._index[id(parameter)]
            self._arrived.add(index)
            self._take(index, parameter.grad)

    def forget(self) -> None:
        """The gradients were thrown away: the update was skipped."""
        self._step = -1

    def finish(self, step: int, scale: Tensor | float | None) -> None:
        """No more can arrive for this step: unscale, and look after those that never came."""
        if step != self._step:
            self._begin(step)
        targets = [t for t in (self._norms, *(self._parts or ())) if t is not None]
        if scale is not None and targets:
            if any(t.is_pinned() for t in targets):
                torch.cuda.current_stream().synchronize()
            for target in targets:
                target.div_(scale)
        unseen = {id(p) for p in self.unseen}
        for index, parameter in enumerate(self._flat.tensors if targets else ()):
            if parameter.grad is None:
                self._take(index, None)
            elif index not in self._arrived:
                lost = id(parameter) in unseen
                filler = torch.full_like(parameter, torch.nan) if lost else parameter.grad
                self._take(index, filler)
        self.unseen = []
        self.forget()

    def _begin(self, step: int) -> None:
        self._step = step
        self._arrived.clear()
        row, norms = self._row(UNCLIPPED, "values", step), self._row("norms", UNCLIPPED, step)
        self._parts = None if row is None else self._flat.parts(row)
        self._norms = norms

    def _row(self, group: str, array: str, step: int) -> Tensor | None:
        if group not in self._channels:
            return None
        channel, due = self._channels[group]
        return channel.row()[array] if array in channel.specs and due(step) else None

    def _take(self, index: int, gradient: Tensor | None) -> None:
        if gradient is None:
            gradient = torch.zeros(self._flat.table.sizes[index])
        elif gradient.layout != torch.strided:
            gradient = gradient.to_dense()
        if self._parts is not None:
            self._parts[index].copy_(gradient.reshape(-1), non_blocking=True)
        if self._norms is not None:
            self._norms[index : index + 1].copy_(tensor_norms([gradient]), non_blocking=True)
