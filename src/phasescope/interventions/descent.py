"""Gradient descent on a dictionary of tensors, for interventions that train between models."""

from __future__ import annotations

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
        """
        value = loss.item()
        if not bool(loss.isfinite()):
            raise ValueError(
                f"a finite loss is required, but {what} it is {value}. Lower the learning rate, "
                f"{self.lr}."
            )
        grads = torch.autograd.grad(loss, list(self.theta.values()), allow_unused=True)
        with torch.no_grad():
            for (name, p), g in zip(self.theta.items(), grads, strict=True):
                if g is not None:
                    self._velocity[name].mul_(self.momentum).add_(g)
                    p.sub_(self._velocity[name], alpha=self.lr)
        return value

    def pull(self, target: dict[str, Tensor], strength: float) -> None:
        """A proximal step towards a target, stable at any strength."""
        share = 2 * self.lr * strength / (1 + 2 * self.lr * strength)
        with torch.no_grad():
            for name, p in self.theta.items():
                p.lerp_(target[name], share)
