"""The moment at which a backward pass is over and its gradients are final."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle, unserializable_hook


class BackwardEnd:
    """Calls a function once after every backward pass that adds to the gradients.

    Under DistributedDataParallel and `fully_shard` the gradients are those of all processes
    by then. A hook on a parameter comes too early: it sees the gradient of this process alone,
    before the reduction.

    Args:
        ended: The function to call, without gradient tracking.

    Example:
        >>> weight = torch.ones(3, requires_grad=True)
        >>> end = BackwardEnd(lambda: print(weight.grad))
        >>> handles = end.watch([weight])
        >>> (2 * weight).sum().backward()
        tensor([2., 2., 2.])
    """

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._task: int | None = None
        # Models with hooks on their parameters can still be saved with torch.save.
        self._hook = unserializable_hook(lambda parameter: self._arrived())

    def watch(self, parameters: Iterable[Tensor]) -> list[RemovableHandle]:
        """Put hooks on parameters that need a gradient; passes that reach none go unnoticed."""
        return [p.register_post_accumulate_grad_hook(self._hook) for p in parameters]

    def _arrived(self) -> None:
        task = torch._C._current_graph_task_id()
        if task == self._task:
            return
        self._task = task
        # The engine runs the callbacks in the order in which they were queued. Reductions are
        # finished in one, queued when the last gradient is there; a callback that is queued while
        # they run comes behind it.
        _queue(lambda: _queue(self._end))

    @torch.no_grad()
    def _end(self) -> None:
        self._task = None
        self._ended()


def _queue(callback: Callable[[], Any]) -> None:
    # The same call with which PyTorch's own reductions are finished.
    torch.autograd.Variable._execution_engine.queue_callback(callback)
