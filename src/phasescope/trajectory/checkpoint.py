"""Restorable state: model, optimizer, random generators and whatever else has a `state_dict`.

Tensors go to safetensors, the structure around them to JSON. No pickle is written or read.

Several processes that train one model have equal weights, so rank 0 saves them; the others save
what only they know into a folder of their own, ``rank-1`` and so on. Sharded tensors are saved by
every process as the part that it holds.
"""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from phasescope.errors import RunError
from phasescope.trajectory.distributed import unwrapped
from phasescope.trajectory.encoding import decode, encode, place, place_optimizer
from phasescope.trajectory.files import write_json
from phasescope.trajectory.sharding import sharded_names

_PREFIX = "step-"
_TREE = "state.json"
_TENSORS = "tensors.safetensors"
_RANK = "rank-"
_GONE = ".old"


@runtime_checkable
class Stateful(Protocol):
    """Anything that a checkpoint can save and restore."""

    def state_dict(self) -> dict[str, Any]:
        """The state, as nested dicts and lists of tensors and plain values."""
        ...

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Take a state back."""
        ...


@dataclass(frozen=True)
class Snapshot:
    """A state that is encoded, and copied, but not yet written."""

    tree: Any
    tensors: Mapping[str, Tensor]


def take_snapshot(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Stateful],
    extra: dict[str, Any],
    *,
    rank: int = 0,
    world_size: int = 1,
) -> Snapshot:
    """A copy of the state of this process.

    Raises:
        TypeError: A state holds something that is neither a tensor nor plain data.
    """
    inner = unwrapped(model)
    values = inner.state_dict()
    whole = rank == 0 or bool(sharded_names(dict(inner.named_parameters())))
    if not whole:
        equal = {name for name, _ in inner.named_parameters(remove_duplicate=False)}
        values = {name: value for name, value in values.items() if name not in equal}
    tree = {
        "model": values,
        **({"optimizer": optimizer.state_dict()} if whole else {}),
        "random": random_state(),
        "state": {name: item.state_dict() for name, item in state.items()},
        "extra": extra,
        "world_size": world_size,
    }
    tensors: dict[str, Tensor] = {}
    return Snapshot(encode(tree, "", tensors), tensors)


def write_snapshot(folder: Path, step: int, snapshot: Snapshot) -> Path:
    """Write a state after `step` updates; the checkpoint appears whole or not at all.

    Raises:
        OSError: It cannot be written; the folder is as it was.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    target = folder / f"{_PREFIX}{step:09d}"
    temporary = folder / f"{target.name}.new"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        save_file(dict(snapshot.tensors), temporary / _TENSORS)
        write_json(temporary / _TREE, snapshot.tree)
    except BaseException as error:
        # On a full disk this is what would keep run.json from being written.
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, SafetensorError):  # it has the system's error as text only
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error
        raise
    shutil.rmtree(target, ignore_errors=True)
    os.replace(temporary, target)
    return target


def rank_folder(folder: Path, rank: int) -> Path:
    """Where a process keeps its checkpoints: rank 0 in the folder itself."""
    return folder / f"{_RANK}{rank}" if rank else folder


def common_checkpoint(folder: Path, world_size: int) -> tuple[int, Path] | None:
    """The newest checkpoint for which every process that has any has its part, or None.

    Every process finds the same, whenever it looks before the first update: until then the only
    checkpoint that can appear is that of step 0, which has the same effect as none. A process
    without any, because there are more of them than before, is left out.
    """
    found = checkpoints_in(folder)
    others = [checkpoints_in(rank_folder(folder, rank)) for rank in range(1, world_size)]
    shared = set(found).intersection(*(parts for parts in others if parts)) - {0}
    step = max(shared, default=0)
    return (step, found[step]) if step in found else None


def ranks_without(folder: Path, step: int, world_size: int) -> list[int]:
    """The processes that have no part of the checkpoint at `step`."""
    ranks = range(1, world_size)
    return [rank for rank in ranks if step not in checkpoints_in(rank_folder(folder, rank))]


def remove_later(folder: Path, step: int, *, rank: int = 0, world_size: int = 1) -> None:
    """Remove the checkpoints behind `step`, and on rank 0 those of processes that are gone."""
    own = rank_folder(folder, rank)
    stale = [path for s, path in checkpoints_in(own).items() if s > step]
    for path in folder.glob(f"{_RANK}*") if rank == 0 else ():
        digits = path.name.removeprefix(_RANK)
        if digits.isdigit() and int(digits) >= world_size:
            stale.append(path)
    for path in stale:
        # In one step, so that no half of a checkpoint is ever taken for a whole one.
        shutil.rmtree(path.with_name(path.name + _GONE), ignore_errors=True)
        os.replace(path, path.with_name(path.name + _GONE))
    for path in own.glob(f"*{_GONE}"):
        shutil.rmtree(path, ignore_errors=True)


def checkpoints_in(folder: Path) -> dict[int, Path]:
    """The whole checkpoints of a folder, by step."""
    found = {}
    for path in folder.glob(f"{_PREFIX}*") if folder.is_dir() else ():
        digits = path.name.removeprefix(_PREFIX)
        if digits.isdigit() and (path / _TREE).exists():
            found[int(digits)] = path
    return found


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state tree that `write_snapshot` wrote.

    Raises:
        RunError: The checkpoint is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        encoded = json.loads((path / _TREE).read_text(encoding="utf-8"))
        return decode(encoded, load_file(path / _TENSORS))
    except (ValueError, KeyError, OSError, SafetensorError) as error:
        raise RunError(
            f"checkpoint {path} cannot be read ({error}). Delete this folder: the run then resumes "
            "from the checkpoint before it."
        ) from error


def load_part(folder: Path, step: int, rank: int, *, sharded: bool = False) -> dict[str, Any]:
    """The state tree of one process: what all have in common from rank 0, the rest its own.

    A process that saved nothing at this step gets rank 0's, without what holds for rank 0 alone:
    the random state, what its recording kept, and before the first update the position in the data
    too, since this process is at the start of its own. Of a sharded model that leaves nothing.

    Raises:
        RunError: A checkpoint is damaged, or this process's part of a sharded model is missing.
    """
    name = f"{_PREFIX}{step:09d}"
    if rank == 0:
        return load_checkpoint(folder / name)
    path = rank_folder(folder, rank) / name
    own = load_checkpoint(path) if (path / _TREE).exists() else None
    if own is not None and "optimizer" in own:
        return own
    if own is None and sharded:
        if step == 0:
            return {}
        raise RunError(
            f"every process of a sharded model needs its own part of a checkpoint, but {path} is "
            f"missing. Restore it, or delete {folder / name}: the run then resumes from the "
            "checkpoint before it."
        )
    common = load_checkpoint(folder / name)
    if own is None:
        # Equal random numbers on two processes would make their dropout masks equal.
        del common["random"]
        if step == 0:
            del common["state"]
        return common | {"extra": {}}
    return common | own | {"model": common["model"] | own["model"]}


def restore(
    tree: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Stateful],
) -> None:
    """Put a loaded state back into the model, the optimizer, the generators and `state`.

    Raises:
        RunError: The checkpoint holds other `state` entries than were passed.
    """
    if "state" in tree and set(tree["state"]) != set(state):
        raise RunError(
            f"the checkpoint holds state of {sorted(tree['state'])}, but the Recorder was given "
            f"state={sorted(state)}. Pass the same objects when resuming."
        )
    inner = unwrapped(model)
    likes = inner.state_dict()
    inner.load_state_dict({k: place(v, likes.get(k), k) for k, v in tree["model"].items()})
    optimizer.load_state_dict(place_optimizer(tree["optimizer"], optimizer))
    for name, saved in tree.get("state", {}).items():
        state[name].load_state_dict(saved)
    if "random" in tree:
        set_random_state(tree["random"])


def random_state() -> dict[str, Any]:
    """States of the global generators: torch on every device, NumPy, Python."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, np.asarray(keys), position, has_gauss, gauss],
        "python": [version, list(internal), gauss_next],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what `random_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(tuple(state["numpy"]))  # noqa: NPY002
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
