"""Everything that a recorder hangs onto a training, and takes off again."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from phasescope.errors import RecordingError
from phasescope.trajectory.backward import BackwardEnd


class Hooks:
    """Reports a training through PyTorch's public hooks.

    A scaler has no hooks: while these are attached its `step` is watched, by an attribute of the
    instance that is deleted again.

    Args:
        optimizer: Whose updates are reported.
        parameters: Whose gradients are reported.
        scalers: Gradient scalers that may skip updates.
        arrived: Called with every parameter whose gradient a backward pass has added to.
        passed: Called once per backward pass, when the gradients of all parameters and processes
            are there; this costs more.
        before: Called before an update, with whether it evaluates the loss itself (a closure), and
            with what its gradients are still multiplied with if it unscales them itself.
        after: Called after an update.
        skipped: Called with the scale when a scaler found gradients that are not finite and left
            the update out.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Iterable[Tensor],
        scalers: Iterable[torch.amp.GradScaler],
        *,
        arrived: Callable[[Tensor], object],
        passed: Callable[[], None] | None,
        before: Callable[[bool, Tensor | None], None],
        after: Callable[[], None],
        skipped: Callable[[float], None],
    ) -> None:
        self._optimizer = optimizer
        self._before_update = before
        self._after_update = after
        self._skipped = skipped
        self._updates = 0
        self._skipping = False
        self._scalers = list(scalers)
        self._arrived = arrived
        self._backward = None if passed is None else BackwardEnd(passed)
        self._frozen = list(parameters)
        self._handles: list[RemovableHandle] = [
            optimizer.register_step_pre_hook(_opaque(self._before)),
            optimizer.register_step_post_hook(_opaque(self._after)),
        ]
        self.watch_unfrozen()
        for scaler in self._scalers:
            self._watch_scaler(scaler)

    def remove(self) -> None:
        """Take everything off."""
        for handle in self._handles:
            handle.remove()
        for scaler in self._scalers:
            scaler.__dict__.pop("step", None)
        self._handles, self._scalers = [], []

    def watch_unfrozen(self) -> None:
        """Put hooks on the parameters that need a gradient and have none yet, if there are any."""
        if not self._frozen:
            return
        found = [p for p in self._frozen if p.requires_grad]
        self._frozen = [p for p in self._frozen if not p.requires_grad]
        self._handles += [p.register_post_accumulate_grad_hook(self._arrived) for p in found]
        if self._backward is not None:
            self._handles += self._backward.watch(found)

    def _before(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._updates += 1
        # A scaler leaves these two to fused optimizers, which unscale, or skip, by themselves.
        found_inf = getattr(optimizer, "found_inf", None)
        scale = getattr(optimizer, "grad_scale", None)
        self._skipping = found_inf is not None and bool(found_inf)
        if self._skipping:
            applied = backward_scale(self._scalers) if scale is None else float(scale)
            self._skipped(float("nan") if applied is None else applied)
            return
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        self._before_update(closure is not None, scale)

    def _after(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._skipping:
            self._after_update()

    def _watch_scaler(self, scaler: torch.amp.GradScaler) -> None:
        original = scaler.step

        @functools.wraps(original)
        def step(optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
            before = self._updates
            result = original(optimizer, *args, **kwargs)
            if optimizer is self._optimizer and self._updates == before:
                self._skipped(float(scaler.get_scale()))
            return result

        scaler.step = step


def _opaque(hook: Callable[..., None]) -> Any:
    """The hook, hidden from torch.compile(optimizer.step), which would trace into it."""
    hidden = cast("Callable[..., None]", torch.compiler.disable(hook))

    def opaque(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # A constant where the compiler traces. Calling what is hidden from it always costs more.
        (hidden if torch.compiler.is_compiling() else hook)(optimizer, args, kwargs)

    return opaque


def check_scaler(scalers: Iterable[torch.amp.GradScaler]) -> None:
    """Within an update: refuse a gradient scaler that makes it without being among `scalers`.

    Raises:
        RecordingError: There is one.
    """
    codes = (torch.amp.GradScaler.step.__code__, torch.amp.GradScaler._maybe_opt_step.__code__)
    frame = sys._getframe()
    while (frame := frame.f_back) is not None:
        scaler = frame.f_locals.get("self") if frame.f_code in codes else None
        if scaler is not None and scaler.is_enabled() and scaler not in scalers:
            raise RecordingError(
                "the gradient before clipping must be divided by the scale of the gradient scaler, "
                "but a GradScaler makes the updates that was not passed. Write Recorder(..., "
                "state={'scaler': scaler})."
            )


def backward_scale(scalers: Iterable[torch.amp.GradScaler]) -> float | None:
    """What the scalers multiply losses with, or None where none is in use."""
    for scaler in scalers:
        if scaler.is_enabled():
            return float(scaler.get_scale())
    return None
