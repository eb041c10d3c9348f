"""Gradient descent on a dictionary of tensors, for interventions that train between models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Descent:
    """Gradient descent with momentum on some tensors of a state.

    Args:
        state: Where it begins; not changed.
        names: What is trained; by default everything that is a floating-point number.
        lr: Learning rate.
        momentum: Share of the velocity that is kept.
    """

    def __init__(
        self,
        state: dict[str, Tensor],
        *,
        names: Sequence[str] | None = None,
        lr: float,
        momentum: float,
    ) -> None:
        if names is None:
            names = [n for n, v in state.items() if v.is_floating_point()]
        self.lr, self.momentum = lr, momentum
        self.rest = {n: v.detach() for n, v in state.items() if n not in set(names)}
        self.theta = {n: state[n].detach().clone().requires_grad_() for n in names}
        self._velocity = {n: torch.zeros_like(v) for n, v in self.theta.items()}

    def state(self) -> dict[str, Tensor]:
        """The state with its trained tensors, into which gradients flow."""
        return {**self.rest, **self.theta}

    def detached(self) -> dict[str, Tensor]:
        """A copy of the state."""
        return {**self.rest, **{n: v.detach().clone() for n, v in self.theta.items()}}

    def step(self, loss: Tensor, what: str) -> float:
        """One update; the loss before it.

        Raises:
            ValueError: The loss is not finite.
            TypeError: It is no tensor of one number.
        """
        value = loss_value(loss, what, self.lr)
        grads = torch.autograd.grad(loss, list(self.theta.values()), allow_unused=True)
        with torch.no_grad():
            for (name, p), g in zip(self.theta.items(), grads, strict=True):
                if g is not None:
                    self._velocity[name].mul_(self.momentum).add_(g)
                    p.sub_(self._velocity[name], alpha=self.lr)
        return value

    def pull(self, target: dict[str, Tensor], strength: float) -> None:
        """A proximal step towards a target, stable at any strength.

        It is taken with the rate that momentum gives to a lasting gradient, lr / (1 − momentum), so
        that what is minimised together is the loss plus strength ‖θ − target‖².
        """
        pull = 2 * self.lr / (1 - self.momentum) * strength
        share = pull / (1 + pull)
        with torch.no_grad():
            for name, p in self.theta.items():
                p.lerp_(target[name], share)


def loss_value(loss: Tensor, what: str, lr: float) -> float:
    """The number that a loss function has returned.

    Args:
        loss: What it returned.
        what: Where, for the messages.
        lr: The learning rate, for the messages.

    Raises:
        ValueError: It is not finite.
        TypeError: It is no tensor of one number.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        arrived = (
            f"a tensor of shape {tuple(loss.shape)}"
            if isinstance(loss, Tensor)
            else type(loss).__name__
        )
        raise TypeError(
            "a loss must be a tensor of one number, through which gradients flow, but "
            f"{what} it is {arrived}. Take the mean over the examples, without .item()."
        )
    value = loss.item()
    if not math.isfinite(value):
        raise ValueError(
            f"a finite loss is required, but {what} it is {value}. Lower the learning rate, {lr}."
        )
    return value
