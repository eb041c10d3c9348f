"""Gradients of many batches at weights that do not move, sampled into a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from phasescope.parameters import ParameterTable, named_parameters


def frozen_gradients(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    n: int,
    path: str | os.PathLike[str],
    *,
    loss_fn: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy,
) -> np.memmap:
    """Gradients of n batches at the model's present weights, as an array of n rows on disk.

    Rows go to the file one by one, so the memory holds one gradient however many there are. The
    result is what `gram` reads, and `compare_with_frozen` compares its Gram matrix with that of a
    training: columns are in the order of a recorded run, float32, zeros for parameters without
    gradient.

    The model is left as it was: weights, `.grad`, modes, buffers and random state. Its modes are
    not changed: put it into training mode if dropout and batch normalisation shall act as they do
    in training. Buffers (running statistics) are put back after each batch, so that every gradient
    is taken at the same state; dropout draws anew for each. The gradient is that of the loss alone,
    before clipping, weight decay and whatever else an optimizer adds.

    Args:
        model: At the weights in question.
        batches: Pairs of inputs and targets on the model's device, at least n: as the training
            drew them, but not those it drew, so that draws are independent.
        n: Number of gradients; at least twice the number of steps they are compared with, twenty
            times for p-values.
        path: The .npy file to write, which must not exist.
        loss_fn: Scalar loss of (outputs, targets).

    Returns:
        Gradients × parameters, mapped from the file and read-only. It ends with the file.

    Raises:
        FileExistsError: The path exists.
        ValueError: There are fewer batches, n is not positive, no parameter requires a gradient, or
            a gradient is not finite.

    Example:
        >>> import tempfile
        >>> model = nn.Linear(3, 2)
        >>> batch = (torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
        >>> path = Path(tempfile.mkdtemp(), "frozen.npy")
        >>> frozen_gradients(model, [batch] * 5, 5, path).shape
        (5, 8)
    """
    path = Path(path)
    named = {name: p for name, p in named_parameters(model).items() if p.requires_grad}
    if n < 1 or not named:
        raise ValueError(
            "at least one gradient of at least one parameter is needed, but "
            f"n={n} and {len(named)} parameters that require a gradient arrived."
        )
    if path.exists():
        raise FileExistsError(f"{path} exists. Delete it, or write the gradients elsewhere.")
    partial = path.with_name(path.name + ".partial")
    try:
        _write(model, named, batches, n, partial, loss_fn)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


def _write(
    model: nn.Module,
    named: dict[str, nn.Parameter],
    batches: Iterable[tuple[Tensor, Tensor]],
    n: int,
    path: Path,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
) -> None:
    table = ParameterTable.from_module(model)
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    cuda = sorted({p.device.index or 0 for p in named.values() if p.device.type == "cuda"})
    row = torch.zeros(table.size)
    written = 0
    header = {"descr": "<f4", "fortran_order": False, "shape": (n, table.size)}
    with path.open("wb") as file, torch.random.fork_rng(devices=cuda), torch.enable_grad():
        np.lib.format.write_array_header_1_0(file, header)
        for x, y in batches:
            try:
                loss = loss_fn(model(x), y)
                # Not backward(): it would add to .grad and run the hooks of a recorder.
                grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            finally:
                _restore(buffers)
            for name, gradient in zip(named, grads, strict=True):
                start, stop = table.interval(name)
                part = torch.zeros(stop - start) if gradient is None else gradient.reshape(-1)
                row[start:stop] = part
            if not bool(row.isfinite().all()):
                column = int((~row.isfinite()).nonzero()[0])
                raise ValueError(
                    f"every gradient must be finite, but that of batch {written} (from 0) holds "
                    f"{float(row[column])} in parameter {table.locate(column)!r}; the loss is "
                    f"{float(loss.detach())}. Check the weights and this batch."
                )
            file.write(row.numpy().astype("<f4", copy=False).data)
            written += 1
            if written == n:
                return
    raise ValueError(
        f"{n} gradients need as many batches, but there were {written}. Pass more batches, or ask "
        "for fewer gradients."
    )


def _restore(buffers: list[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
