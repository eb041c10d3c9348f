"""Restorable state: model, optimizer, random generators and whatever else has a `state_dict`.

Tensors go to safetensors, the structure around them to JSON. No pickle is written or read.
"""

from __future__ import annotations

import base64
import json
import math
import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from phasescope.errors import RunError
from phasescope.trajectory.files import write_json

_PREFIX = "step-"
_TREE = "state.json"
_TENSORS = "tensors.safetensors"


@runtime_checkable
class Stateful(Protocol):
    """Anything that a checkpoint can save and restore."""

    def state_dict(self) -> dict[str, Any]:
        """The state, as nested dicts and lists of tensors and plain values."""
        ...

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Take a state back."""
        ...


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Stateful],
    extra: dict[str, Any],
) -> Path:
    """Write the state after `step` updates; the checkpoint appears whole or not at all.

    Raises:
        TypeError: A state holds something that is neither a tensor nor plain data.
    """
    from safetensors.torch import save_file

    tree = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": random_state(),
        "state": {name: item.state_dict() for name, item in state.items()},
        "extra": extra,
    }
    tensors: dict[str, Tensor] = {}
    encoded = _encode(tree, "", tensors)
    target = folder / f"{_PREFIX}{step:09d}"
    temporary = folder / f"{target.name}.new"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(tensors, temporary / _TENSORS)
    write_json(temporary / _TREE, encoded)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(temporary, target)
    return target


def newest_checkpoint(folder: Path) -> tuple[int, Path] | None:
    """The complete checkpoint with the largest step, or None."""
    found = []
    for path in folder.glob(f"{_PREFIX}*") if folder.is_dir() else ():
        digits = path.name.removeprefix(_PREFIX)
        if digits.isdigit() and (path / _TREE).exists():
            found.append((int(digits), path))
    return max(found, default=None)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state tree that `save_checkpoint` wrote.

    Raises:
        RunError: The checkpoint is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        encoded = json.loads((path / _TREE).read_text(encoding="utf-8"))
        return _decode(encoded, load_file(path / _TENSORS))
    except (ValueError, KeyError, OSError, SafetensorError) as error:
        raise RunError(
            f"checkpoint {path} cannot be read ({error}). Delete this folder: the run then resumes "
            "from the checkpoint before it."
        ) from error


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
    if set(tree["state"]) != set(state):
        raise RunError(
            f"the checkpoint holds state of {sorted(tree['state'])}, but the Recorder was given "
            f"state={sorted(state)}. Pass the same objects when resuming."
        )
    model.load_state_dict(tree["model"])
    optimizer.load_state_dict(tree["optimizer"])
    for name, item in state.items():
        item.load_state_dict(tree["state"][name])
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


def _encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """JSON for a tree; tensors are moved to `tensors` under the path at which they stood."""
    if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_complex():
        while path in tensors:  # {"a/b": t} and {"a": {"b": t}}, or the keys 0 and "0"
            path += "~"
        # A tensor may be a view or tied to another: the file gets a copy of its own.
        tensors[path] = value.detach().to("cpu", copy=True).contiguous()
        return {"~": "tensor", "key": path}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        tensor = torch.from_numpy(_signed(value))
        return {
            "~": "array",
            "value": _encode(tensor, path, tensors),
            "dtype": value.dtype.str,
        }
    if isinstance(value, Mapping):
        items = [[_encode(k, "", {}), _encode(v, f"{path}/{k}", tensors)] for k, v in value.items()]
        return {"~": "dict", "items": items}
    if isinstance(value, list | tuple):
        items = [_encode(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]
        return {"~": "tuple", "items": items} if isinstance(value, tuple) else items
    if isinstance(value, bytes):
        return {"~": "bytes", "value": base64.b64encode(value).decode()}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"~": "float", "value": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        "a checkpoint holds dense real tensors and arrays and plain values, but the state at "
        f"{path or 'a key'} is a {type(value).__name__}. Leave it out of state_dict(), or turn it "
        "into plain data there."
    )


def _signed(array: np.ndarray) -> np.ndarray:
    """A copy whose bytes are the same under a type that torch has."""
    copy = np.array(array, order="C")
    signed = {"u2": "i2", "u4": "i4", "u8": "i8"}.get(array.dtype.str[1:])
    return copy.view(signed) if signed else copy


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value["~"]
    if kind == "tensor":
        return tensors[value["key"]]
    if kind == "array":
        return _decode(value["value"], tensors).numpy().view(value["dtype"])
    if kind == "dict":
        return {_decode(k, tensors): _decode(v, tensors) for k, v in value["items"]}
    if kind == "tuple":
        return tuple(_decode(item, tensors) for item in value["items"])
    if kind == "bytes":
        return base64.b64decode(value["value"])
    return float(value["value"])
