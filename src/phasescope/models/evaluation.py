"""Looking at a model without leaving a trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, for a `with` block that leaves no trace.

    The mode of every submodule is put back afterwards (a layer kept in evaluation mode stays in
    it), and so are the buffers, and the random state of the CPU and of the model's CUDA devices.

    Args:
        model: The model to evaluate.

    Yields:
        Nothing.

    Example:
        >>> model = nn.Dropout()
        >>> with evaluating(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = {p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"}
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=sorted(devices)):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                # NaN in both counts as a change: writing it again does no harm.
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
