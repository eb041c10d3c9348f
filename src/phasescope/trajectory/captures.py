"""What is read from model and optimizer around one update, and into which rows it goes.

Axis letters: p parameters of the flat vector, n tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from phasescope.errors import RecordingError
from phasescope.trajectory.blocks import Row
from phasescope.trajectory.channels import Channel
from phasescope.trajectory.flat import FlatParameters
from phasescope.trajectory.optimizers import DecayFactor
from phasescope.trajectory.schema import UNCLIPPED
from phasescope.trajectory.warn import warn

Channels = Mapping[str, tuple[Channel, Callable[[int], bool]]]
# A few numbers about one tensor per parameter: norms, norms of components, a sketch.
Summary = Callable[[list[Tensor]], Tensor | list[float]]


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
        summaries = {"norms": flat.norms, **summaries}
        # What is ever read, and where it goes: into a group of its name whole, or summarised into
        # the array of its name in another group.
        self._targets: dict[str, list[tuple[str, Summary | None]]] = {}
        for group, (channel, _) in channels.items():
            whole = group not in summaries
            for name in (group,) if whole else channel.specs:
                self._targets.setdefault(name, []).append((group, summaries.get(group)))
        # Whether anything is read but gradients: looking for it takes time at every step.
        self._reads_more = not self._targets.keys() <= {"gradients", UNCLIPPED}
        self._due = [(group, channel, due) for group, (channel, due) in channels.items()]
        self._rows: dict[str, Row] = {}
        # Whether anything is read when a backward pass is over.
        self.watches_backward = UNCLIPPED in self._targets
        # The step whose gradients a backward pass has left, -1 if it was skipped or is done.
        self._arrived = -1
        # Whether it was said that the gradient before clipping is not known at some step.
        self._told = False

    def arrive(self, step: int) -> None:
        """A backward pass is over: take what it leaves, before the loop unscales or clips it.

        Every pass leaves the sum so far, so the last one before the update counts.
        """
        self._arrived = step
        self._rows = self._due_rows(step)
        self._save(UNCLIPPED, lambda: self._flat.gradients(self._optimizer))

    def forget(self) -> None:
        """The gradients were thrown away: the update was skipped."""
        self._arrived = -1

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

        Raises:
            RecordingError: The update is made within a backward pass, and what the passes leave is
                to be saved.
        """
        self._rows = self._due_rows(step)
        flat, optimizer, factor = self._flat, self._optimizer, self._factor
        if not gradients_later:
            self._end_arrivals(step, backward_scale)
            self._save("gradients", lambda: flat.gradients(optimizer, step=step, scale=scale))
        if self._reads_more:
            self._save("weights", flat.weights)
            if self._wanted("updates"):
                flat.keep()
            if factor is not None:
                self._save(
                    "decay", lambda: flat.decay(optimizer, factor, gradients_later=gradients_later)
                )

    def after(self, step: int, *, gradients_later: bool) -> None:
        """Read what exists after update `step`; its rows are complete then."""
        if gradients_later:
            self._end_arrivals(step, None)
            self._save("gradients", lambda: self._flat.gradients(self._optimizer, step=step))
        if self._reads_more:
            self._save("updates", self._flat.change)
            if "moments" in self._rows:
                row = self._rows["moments"]
                for name in row.names:
                    self._flat.fill(row.pieces(name), self._flat.moment(self._optimizer, name))
        for name in self._rows:
            self._channels[name][0].advance(step)

    def final(self, step: int) -> None:
        """Read the weights after the last update, which no further update would."""
        if "weights" in self._channels and self._channels["weights"][0].last_step < step:
            channel = self._channels["weights"][0]
            self._flat.fill(channel.row().pieces("values"), self._flat.weights())
            channel.advance(step)

    def _due_rows(self, step: int) -> dict[str, Row]:
        return {group: channel.row() for group, channel, due in self._due if due(step)}

    def _end_arrivals(self, step: int, scale: Tensor | float | None) -> None:
        """No more can arrive for this step: unscale."""
        if not self.watches_backward:
            return
        if torch._C._current_graph_task_id() != -1:
            raise RecordingError(
                f"{UNCLIPPED!r} is the gradient when the backward pass is over, but at step {step} "
                "optimizer.step() was called within one (by a hook on a parameter). Record "
                "'gradients', or step after loss.backward()."
            )
        unknown = False
        if step != self._arrived:
            # No backward pass since the update before. Without any gradient it is zero; one that
            # was set by hand, or is used twice, may have been clipped since.
            unknown = self._flat.has_gradients(self._optimizer)
            self.arrive(step)
        for group, summary in self._targets[UNCLIPPED]:
            if group not in self._rows:
                continue
            target = self._rows[group].pieces("values" if summary is None else UNCLIPPED)
            if unknown:
                for piece in target:
                    piece.fill_(torch.nan)
                self._tell_unknown(step)
            elif scale is not None:
                if target[0].is_pinned():
                    torch.cuda.current_stream().synchronize()
                for piece in target:
                    piece.div_(scale)
        self.forget()

    def _tell_unknown(self, step: int) -> None:
        if not self._told:
            self._told = True
            warn(
                f"{UNCLIPPED!r} is not known at step {step} (the first such step) and is recorded "
                "as NaN: no backward pass since the update before has left the gradient that the "
                "optimizer consumes. It was set by hand (torch.autograd.grad), used before, or its "
                "parameters were frozen until now. 'gradients' holds what was consumed."
            )

    def _wanted(self, name: str) -> bool:
        return any(group in self._rows for group, _ in self._targets.get(name, ()))

    def _save(self, name: str, read: Callable[[], list[Tensor]]) -> None:
        """Read once, into the group of this name and into the summaries of this name, if due."""
        tensors = None
        for group, summary in self._targets.get(name, ()):
            row = self._rows.get(group)
            if row is None:
                continue
            if tensors is None:
                tensors = read()
            if summary is None:
                self._flat.fill(row.pieces("values"), tensors)
            else:
                row.write(name, summary(tensors))
