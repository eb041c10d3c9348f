"""An observer of trainings that shares nothing with the recorder.

Hooks on every optimizer of the process say what each has really consumed, whoever made it.
"""

import numpy as np
import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)


class Witness:
    """Context manager that keeps gradients, weights and learning rates of every update.

    Read after the step: trainers may make and clip the gradients in a closure during it.
    """

    def __enter__(self):
        self.events = []
        self._handles = [
            register_optimizer_step_pre_hook(self._before),
            register_optimizer_step_post_hook(self._after),
        ]
        return self

    def __exit__(self, *ignored):
        for handle in self._handles:
            handle.remove()

    def _before(self, optimizer, args, kwargs):
        groups = optimizer.param_groups
        self._weights = {id(p): p.detach().clone() for g in groups for p in g["params"]}

    def _after(self, optimizer, args, kwargs):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.events.append(
            {
                "optimizer": optimizer,
                "gradients": {id(p): p.grad.clone() for p in parameters if p.grad is not None},
                "weights": self._weights,
                "after": {id(p): p.detach().clone() for p in parameters},
                "lr": optimizer.param_groups[0]["lr"],
            }
        )

    def rows(self, model, what, optimizer=None):
        """``[updates, parameters]`` of `what` in the order of ``model.named_parameters()``."""
        rows = [
            [event[what].get(id(p), torch.zeros_like(p)).reshape(-1) for p in model.parameters()]
            for event in self.events
            if optimizer is None or event["optimizer"] is optimizer
        ]
        return torch.stack([torch.cat(row) for row in rows]).numpy()

    def updates(self, model, optimizer=None):
        """Weights after every update minus weights before it."""
        after = self.rows(model, "after", optimizer)
        return after - self.rows(model, "weights", optimizer)

    @property
    def learning_rates(self):
        """Of the first group at every update."""
        return np.array([float(event["lr"]) for event in self.events])


def weights_of(model):
    """All parameters as one vector."""
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numpy()
