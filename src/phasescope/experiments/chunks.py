"""Models trained a few at a time, in bounded memory; what is finished is kept and not repeated.

Axes: model, first in every tensor.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Train = Callable[[list[int], Path], dict[str, Tensor]]


def in_chunks(
    n_models: int,
    at_once: int,
    directory: Path,
    train: Train,
    *,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Tensor]:
    """What is measured of every model, trained `at_once` at a time.

    Every finished chunk is a file; another call with the same directory reads it and goes on with
    the next, so an interruption costs no more than what `train` loses of the chunk it was in.

    Args:
        n_models: Models, numbered from 0.
        at_once: Models that are trained together; bounds the memory.
        directory: Where the chunks are kept.
        train: Called with the numbers of the models, and with a folder for what it needs to be
            taken up again (emptied when the chunk is finished). Every tensor that it returns has
            one row per model.
        progress: Called with the share of the models that is done, after every chunk.

    Returns:
        The tensors of all models, in order.

    Raises:
        ValueError: Fewer than one model, or none at once.

    Example:
        >>> import tempfile
        >>> square = lambda models, folder: {"square": torch.tensor(models) ** 2}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     in_chunks(5, 2, Path(folder), square)
        {'square': tensor([ 0,  1,  4,  9, 16])}
    """
    if n_models < 1 or at_once < 1:
        raise ValueError(
            f"at least one model, and at least one at a time, is needed, but there are {n_models} "
            f"models and at_once is {at_once}."
        )
    directory.mkdir(parents=True, exist_ok=True)
    parts = []
    for first in range(0, n_models, at_once):
        models = list(range(first, min(first + at_once, n_models)))
        file = directory / f"models-{first:06d}.safetensors"
        if not file.exists():
            scratch = directory / f"models-{first:06d}"
            scratch.mkdir(exist_ok=True)
            found = {name: value.cpu() for name, value in train(models, scratch).items()}
            save_whole(found, file)
            for left in scratch.iterdir():
                left.unlink()
            scratch.rmdir()
        parts.append(load_file(file))
        if progress is not None:
            progress((models[-1] + 1) / n_models)
    return {name: torch.cat([part[name] for part in parts]) for name in sorted(parts[0])}


def save_whole(tensors: dict[str, Tensor], file: Path) -> None:
    """Write tensors so that the file is there with all of them or not at all.

    Args:
        tensors: By name.
        file: Where; an older one is replaced.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_whole({"a": torch.ones(2)}, Path(folder) / "a.safetensors")
        ...     load_file(Path(folder) / "a.safetensors")
        {'a': tensor([1., 1.])}
    """
    partial = file.with_name(file.name + ".partial")
    save_file({name: value.contiguous() for name, value in tensors.items()}, partial)
    os.replace(partial, file)
