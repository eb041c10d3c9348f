"""The seam for interventions on training: functions of the gradients, or of the updates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from phasescope.parameters import named_parameters

Transform = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
"""Named tensors in, tensors of the same names and shapes out: projection, mask, noise."""


def transform_gradients(model: nn.Module, transform: Transform) -> None:
    """Replace a model's gradients by a function of them; call it between backward and step.

    A `Recorder` records what the function returned, since that is what the optimizer consumes.
    Parameters without gradient appear as zeros, so that the flat vector is always whole, and stay
    without: what is returned for them is ignored. Gradients that are returned as they are stay
    bit-identical. With a gradient scaler unscale first; clip before or after, as is meant.

    Args:
        model: After its backward pass.
        transform: From gradients under their parameters' names, without wrapper prefixes, to as
            many tensors of the same names and shapes. `phasescope.interventions` has some.

    Raises:
        RuntimeError: No parameter has a gradient.
        ValueError: The function returned other names or shapes.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> model(torch.ones(1, 1)).sum().backward()
        >>> transform_gradients(model, lambda grads: {n: 2 * g for n, g in grads.items()})
        >>> model.bias.grad
        tensor([2.])
    """
    named = named_parameters(model)
    grads = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in named.items()}
    if all(p.grad is None for p in named.values()):
        raise RuntimeError(
            "transform_gradients needs gradients, but no parameter has one. Call it after "
            "loss.backward() and before optimizer.step()."
        )
    with torch.no_grad():
        for name, value in _checked(grads, transform(dict(grads))).items():
            if value is not grads[name]:
                grads[name].copy_(value)  # in place: a parallel wrapper may own the memory


@contextmanager
def transformed_updates(
    model: nn.Module, optimizer: torch.optim.Optimizer, transform: Transform
) -> Iterator[None]:
    """Replace every update of the weights by a function of it, within a `with` block.

    For optimizers whose update is not linear in the gradient (Adam, weight decay), where a
    projected gradient gives no projected update. The optimizer's own state is not touched: moments
    are those of the gradients. Frozen parameters and those of another optimizer appear as zeros and
    stay what they are, whatever is returned for them. Enter it before a `Recorder` is attached, so
    that the recorder sees the replaced update.

    Args:
        model: The model that is trained.
        optimizer: Its optimizer.
        transform: From updates under their parameters' names to as many tensors of the same names
            and shapes. Updates that it returns as they are stay bit-identical.

    Yields:
        Nothing.

    Raises:
        ValueError: The function returned other names or shapes.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        >>> before = model.bias.item()
        >>> nothing = lambda updates: {n: torch.zeros_like(u) for n, u in updates.items()}
        >>> with transformed_updates(model, optimizer, nothing):
        ...     model(torch.ones(1, 1)).sum().backward()
        ...     optimizer.step()
        >>> model.bias.item() == before
        True
    """
    named = named_parameters(model)
    before: dict[str, Tensor] = {}

    @torch.no_grad()
    def keep(*_: Any) -> None:
        before.update((name, p.detach().clone()) for name, p in named.items())

    @torch.no_grad()
    def change(*_: Any) -> None:
        updates = {name: named[name] - weights for name, weights in before.items()}
        changed = _checked(updates, transform(dict(updates)))
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, update in changed.items():
            is_trained = named[name].requires_grad and id(named[name]) in own
            if is_trained and update is not updates[name]:
                named[name].copy_(before[name] + update)

    handles = [optimizer.register_step_pre_hook(keep), optimizer.register_step_post_hook(change)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _checked(given: dict[str, Tensor], returned: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    wrong = set(given) ^ set(returned)
    wrong |= {
        name for name in given if name in returned and returned[name].shape != given[name].shape
    }
    if wrong:
        name = sorted(wrong)[0]
        arrived = tuple(returned[name].shape) if name in returned else "nothing"
        required = f"shape {tuple(given[name].shape)}" if name in given else "nothing"
        raise ValueError(
            "a transform must return a tensor of the same shape for every name that it was given "
            f"and no other, but for {name!r} {required} was required and {arrived} arrived."
        )
    return returned
