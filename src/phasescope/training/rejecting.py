"""An optimizer whose updates are taken back where they raise the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Rejecting(torch.optim.Optimizer):
    """Any optimizer, with the weights put back after every update that raised the loss.

    The optimizer's own state, such as Adam's moments, has seen the gradient and is kept, so the
    next update is another one. An update with equal loss is kept, one that leads to NaN is not.

    Losses with an axis of seeds are judged seed by seed; the parameters have it in front then.

    Args:
        inner: The optimizer that makes the updates.
        loss: The loss at the weights as they are, without side effects; called once per update, and
            once before the first.

    Example:
        >>> x = torch.nn.Parameter(torch.tensor(1.0))
        >>> optimizer = Rejecting(torch.optim.SGD([x], lr=1.5), lambda: x.detach() ** 2)
        >>> (x**2).backward()
        >>> optimizer.step()
        >>> x.item(), bool(optimizer.rejected)
        (1.0, True)
    """

    def __init__(self, inner: torch.optim.Optimizer, loss: Callable[[], Float[Tensor, "*seeds"]]):
        super().__init__([p for group in inner.param_groups for p in group["params"]], {})
        self.inner = inner
        self._loss = loss
        self._current: Tensor | None = None
        self.rejected: Bool[Tensor, "*seeds"] = torch.tensor(False)
        """Whether the last update was taken back."""
        self._share()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update, or none.

        Args:
            closure: Not taken.
        """
        if self._current is None:
            self._current = self._loss().detach().clone()
        params = [p for group in self.param_groups for p in group["params"]]
        before = [p.clone() for p in params]
        self.inner.step()
        loss = self._loss().detach()
        self.rejected = ~(loss <= self._current)
        for p, old in zip(params, before, strict=True):
            rejected = self.rejected.reshape(self.rejected.shape + (1,) * (p.ndim - loss.ndim))
            p.copy_(torch.where(rejected, old, p))
        self._current = torch.where(self.rejected, self._current, loss)

    def state_dict(self) -> dict[str, Any]:
        """The state of the optimizer within: the loss is evaluated anew after a resume."""
        return self.inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state back.

        Args:
            state_dict: What `state_dict` returned.
        """
        self.inner.load_state_dict(state_dict)
        self._current = None
        self._share()

    def _share(self) -> None:
        """One set of groups and states, whoever changes it."""
        self.param_groups = self.inner.param_groups
        self.state = self.inner.state
