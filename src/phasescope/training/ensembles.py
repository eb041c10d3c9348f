"""Ensembles: many small models of one shape trained as one batch.

Every parameter has a leading `seed` axis: random seeds, points of a grid, or both. The models do
not interact, so a model that diverges spoils no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from phasescope.training.ensemble_optimizers import EnsembleOptimizer, Params
from phasescope.trajectory.schedule import Schedule


@runtime_checkable
class EnsembleGradients(Protocol):
    """Loss and gradient of every seed; the tensors may be written over by the next call."""

    def __call__(self, params: Params, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss per seed, and gradients under the names of the parameters."""
        ...


def train_ensemble(
    params: Params,
    gradients: EnsembleGradients,
    optimizer: EnsembleOptimizer,
    n_steps: int,
    *,
    observe: Callable[[int, Params], None] | None = None,
    observe_at: Schedule | None = None,
    progress: Callable[[float], None] | None = None,
) -> Float[Tensor, "seed steps"]:
    """Losses of every seed before each of `n_steps` updates and after the last one.

    No autograd: `gradients` returns them, computed for all seeds at once (`ensemble_gradients` does
    so with autograd for any loss). Column t of the result is the loss at the weights after t
    updates. Nothing is raised when a seed diverges: its losses turn infinite or NaN, the others are
    untouched.

    Args:
        params: Changed in place; every tensor has the same number of seeds along its first axis.
        gradients: Called with the parameters and the number of updates applied.
        optimizer: Such as `EnsembleSGD` or `EnsembleAdam`.
        n_steps: Updates.
        observe: Called with the number of updates applied and the parameters, before the first
            update, between updates, or after the last one; it must not change them.
        observe_at: When `observe` is called; by default at every step from 0 to `n_steps`.
        progress: Called with the share that is done, about a hundred times.

    Returns:
        The losses, where the parameters are.

    Raises:
        ValueError: If there are no parameters, their numbers of seeds differ, `n_steps` is
            negative, or the loss is not one number for every seed.

    Example:
        >>> params = {"w": torch.tensor([[1.0], [2.0]])}
        >>> def gradients(params, step):
        ...     return params["w"][:, 0] ** 2 / 2, params
        >>> from phasescope.training import EnsembleSGD
        >>> train_ensemble(params, gradients, EnsembleSGD(0.5), 2)
        tensor([[0.5000, 0.1250, 0.0312],
                [2.0000, 0.5000, 0.1250]])
    """
    n_seeds = _count_seeds(params)
    if n_steps < 0:
        raise ValueError(f"n_steps must not be negative, but it is {n_steps}.")
    due: set[int] = set()
    if observe is not None:
        due = set(range(n_steps + 1) if observe_at is None else observe_at.steps(n_steps + 1))
    losses = torch.empty(n_steps + 1, n_seeds, device=next(iter(params.values())).device)
    with torch.no_grad():
        for step in range(n_steps + 1):
            loss, grads = gradients(params, step)
            if step == 0:
                if loss.shape != (n_seeds,):
                    raise ValueError(
                        f"the loss of every seed is required, a tensor of shape ({n_seeds},), but "
                        f"its shape is {tuple(loss.shape)}. Take means over all axes but the first."
                    )
                losses = losses.to(loss.dtype)
            losses[step] = loss
            if observe is not None and step in due:
                observe(step, params)
            if step < n_steps:
                optimizer.update(params, grads)
            if progress is not None and (step % max(1, n_steps // 100) == 0 or step == n_steps):
                progress(step / max(1, n_steps))
    return losses.T.contiguous()


def ensemble_gradients(
    loss_fn: Callable[[Params, int], Float[Tensor, " seed"]],
) -> EnsembleGradients:
    """Gradients by autograd, for models without gradients written out; two to three times slower.

    Args:
        loss_fn: Loss of every seed from the parameters and the step; each seed's loss must depend
            on its own parameters only.

    Returns:
        What `train_ensemble` takes.

    Example:
        >>> gradients = ensemble_gradients(lambda params, step: params["w"].square().sum(1))
        >>> loss, grads = gradients({"w": torch.tensor([[1.0, 2.0], [3.0, 0.0]])}, 0)
        >>> loss, grads["w"]
        (tensor([5., 9.]), tensor([[2., 4.],
                [6., 0.]]))
    """

    def gradients(params: Params, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        with torch.enable_grad():
            loss = loss_fn(leaves, step)
            grads = torch.autograd.grad(loss.sum(), list(leaves.values()))
        return loss.detach(), dict(zip(leaves, grads, strict=True))

    return gradients


def _count_seeds(params: Params) -> int:
    counts = {name: value.shape[0] if value.ndim else 0 for name, value in params.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ValueError(
            "every parameter must have the same number of seeds, at least one, along its first "
            f"axis, but they have {counts or 'no parameters'}."
        )
    return next(iter(counts.values()))
