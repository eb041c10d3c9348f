"""Learning rates that depend on the step and on the training loss."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from phasescope.training.rejecting import Rejecting

Loss = float | Float[Tensor, "*seeds"]


class LearningRate:
    """Sets the learning rates of an optimizer before every update: warm-up, decay at every rise.

    Before update t (from 0) the rate is ``base · min(t / warmup_steps, 1) / decay_on_rise^r`` with
    r the number of steps so far on which the training loss was larger than on the one before. With
    a warm-up **the first update has rate 0**, as in the published code (its LambdaLR).

    The base is what the optimizer's groups have now. An update that a `Rejecting` optimizer took
    back counts as a rise: without a decay, gradient descent would try the same update for ever.
    Under an ensemble, whose losses have an axis of seeds, every seed has its own rate.

    Args:
        optimizer: Whose rates are set.
        warmup_steps: Steps of linear warm-up; 0 for none, 10 in the published code.
        decay_on_rise: What every rise of the loss divides the rate by; 1 for no decay.

    Raises:
        ValueError: A negative warm-up, or a decay below 1.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=1.0)
        >>> rate = LearningRate(optimizer, decay_on_rise=2.0)
        >>> for step, loss in enumerate([3.0, 2.0, 4.0]):
        ...     rate.before_update(step, loss)
        >>> optimizer.param_groups[0]["lr"]
        0.5

    References:
        Nanda et al. (2023), arXiv:2301.05217, code: LambdaLR(min(step / 10, 1)).
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        warmup_steps: int = 0,
        decay_on_rise: float = 1.0,
    ) -> None:
        if warmup_steps < 0 or not decay_on_rise >= 1:
            raise ValueError(
                "warmup_steps must not be negative and decay_on_rise be at least 1, but they are "
                f"{warmup_steps} and {decay_on_rise}."
            )
        self._optimizer = optimizer
        self._warmup_steps = warmup_steps
        self._decay = decay_on_rise
        self._base: list[Any] = [group["lr"] for group in optimizer.param_groups]
        self._last: Tensor | None = None
        self._n_rises = torch.zeros((), dtype=torch.float64)

    @property
    def n_rises(self) -> Float[Tensor, "*seeds"]:
        """Steps so far on which the loss rose."""
        return self._n_rises

    def before_update(self, step: int, loss: Loss) -> None:
        """Set the rates of the coming update.

        Args:
            step: Updates applied so far.
            loss: Training loss at the weights as they are.
        """
        if self._decay > 1:
            loss = torch.as_tensor(loss, dtype=torch.float64).detach()
            if self._last is not None:
                rose = (loss > self._last) | self._rejected().to(loss.device)
                self._n_rises = self._n_rises.to(loss.device) + rose
            self._last = loss.clone()
        warm = min(step / self._warmup_steps, 1.0) if self._warmup_steps else 1.0
        factor: Any = warm
        if self._decay > 1:
            factor = warm * self._decay**-self._n_rises
            if factor.ndim == 0:
                factor = float(factor)
        for base, group in zip(self._base, self._optimizer.param_groups, strict=True):
            group["lr"] = base * factor

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "base": self._base,
            "last": self._last,
            "n_rises": self._n_rises,
            "rejected": self._rejected(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state back.

        Args:
            state_dict: What `state_dict` returned.
        """
        self._base = list(state_dict["base"])
        self._last = state_dict["last"]
        self._n_rises = state_dict["n_rises"]
        if isinstance(self._optimizer, Rejecting):
            self._optimizer.rejected = state_dict["rejected"]

    def _rejected(self) -> Tensor:
        """Whether the last update was taken back."""
        optimizer = self._optimizer
        return optimizer.rejected if isinstance(optimizer, Rejecting) else torch.tensor(False)
