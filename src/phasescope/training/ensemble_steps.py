"""The rule of an ensemble as one of PyTorch's optimizers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from phasescope.training.ensemble_optimizers import EnsembleAdam, EnsembleSGD


class EnsembleSteps(torch.optim.Optimizer):
    """Updates a module's parameters, whose first axis is the seed, by the rule of an ensemble.

    So that what works on an optimizer works on an ensemble: `train_full_batch`, `LearningRate`,
    `Rejecting`. The rate of its group is the rule's, one number or one per seed.

    Args:
        module: All its parameters are updated.
        rule: What the updates are; used by nothing else.

    Raises:
        ValueError: The first axes of the parameters differ.

    Example:
        >>> module = nn.Module()
        >>> module.weight = nn.Parameter(torch.ones(2, 3))
        >>> optimizer = EnsembleSteps(module, EnsembleSGD(torch.tensor([0.5, 0.25])))
        >>> module.weight.sum().backward()
        >>> optimizer.step()
        >>> module.weight[:, 0].tolist()
        [0.5, 0.75]
    """

    def __init__(self, module: nn.Module, rule: EnsembleAdam | EnsembleSGD) -> None:
        self._named = dict(module.named_parameters())
        shapes = [tuple(p.shape) for p in self._named.values()]
        if not shapes or len({shape[:1] for shape in shapes}) != 1 or () in shapes:
            raise ValueError(
                "all parameters of an ensemble must have the seeds as their first axis, but the "
                f"shapes are {shapes[:4]}."
            )
        self._rule = rule
        settings: dict[str, Any] = {"lr": rule.lr}
        if decay := float(torch.as_tensor(rule.weight_decay).max()):
            # Said, so that nobody takes it for a rule without decay; changing it changes nothing.
            settings["weight_decay"] = decay
        super().__init__(self._named.values(), settings)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every seed.

        Args:
            closure: Not taken.
        """
        self._rule.lr = self.param_groups[0]["lr"]
        grads = {name: p.grad for name, p in self._named.items() if p.grad is not None}
        params = {name: self._named[name].detach() for name in grads}
        self._rule.update(params, grads)

    def state_dict(self) -> dict[str, Any]:
        """Not available: the rule keeps its moments to itself.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(
            "the state of an ensemble's rule cannot be saved, so an ensemble cannot be resumed. "
            "Train its members one by one, or to the end."
        )
