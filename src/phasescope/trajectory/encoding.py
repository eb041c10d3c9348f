"""A tree of states as JSON and named tensors, and back.

Of a sharded tensor this process's part is encoded, with how it is laid out over the processes.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phasescope.errors import RunError
from phasescope.trajectory.sharding import is_dtensor, laid_out_as, local_tensor

# Where sharded tensors can be put back: their parameters say how they are laid out.
_LAID_OUT = ("/model/", "/optimizer/")


@dataclass(frozen=True)
class Shard:
    """This process's part of a sharded tensor, as it comes out of a checkpoint."""

    values: Tensor
    layout: Any


def encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """JSON for a tree; tensors are moved to `tensors` under the path at which they stood."""
    if isinstance(value, Tensor) and is_dtensor(value) and path.startswith(_LAID_OUT):
        part = encode(local_tensor(value), path, tensors)
        return {"~": "shard", "value": part, "layout": _layout(value)}
    if isinstance(value, Tensor) and _is_plain(value):
        while path in tensors:  # {"a/b": t} and {"a": {"b": t}}, or the keys 0 and "0"
            path += "~"
        # A tensor may be a view or tied to another: the file gets a copy of its own.
        tensors[path] = value.detach().to("cpu", copy=True).contiguous()
        return {"~": "tensor", "key": path}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        tensor = torch.from_numpy(_signed(value))
        return {
            "~": "array",
            "value": encode(tensor, path, tensors),
            "dtype": value.dtype.str,
        }
    if isinstance(value, Mapping):
        items = [[encode(k, "", {}), encode(v, f"{path}/{k}", tensors)] for k, v in value.items()]
        return {"~": "dict", "items": items}
    if isinstance(value, list | tuple):
        items = [encode(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]
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


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_complex() and not is_dtensor(tensor)


def _signed(array: np.ndarray) -> np.ndarray:
    """A copy whose bytes are the same under a type that torch has."""
    copy = np.array(array, order="C")
    signed = {"u2": "i2", "u4": "i4", "u8": "i8"}.get(array.dtype.str[1:])
    return copy.view(signed) if signed else copy


def decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The tree that `encode` was given, with a `Shard` in place of every sharded tensor."""
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value["~"]
    if kind == "tensor":
        return tensors[value["key"]]
    if kind == "shard":
        return Shard(decode(value["value"], tensors), value["layout"])
    if kind == "array":
        return decode(value["value"], tensors).numpy().view(value["dtype"])
    if kind == "dict":
        return {decode(k, tensors): decode(v, tensors) for k, v in value["items"]}
    if kind == "tuple":
        return tuple(decode(item, tensors) for item in value["items"])
    if kind == "bytes":
        return base64.b64decode(value["value"])
    return float(value["value"])


def place_optimizer(saved: Any, optimizer: torch.optim.Optimizer) -> Any:
    """A saved optimizer's state, with sharded tensors laid out as their parameters are."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    placed = {
        index: {name: place(value, parameters[index], name) for name, value in values.items()}
        for index, values in saved["state"].items()
        if index < len(parameters)
    }
    return saved | {"state": saved["state"] | placed}


def place(saved: Any, like: Any, name: str) -> Any:
    """A saved value; a shard becomes a sharded tensor, laid out as the one that it belongs to."""
    if not isinstance(saved, Shard):
        return saved
    layout = _layout(like) if isinstance(like, Tensor) and is_dtensor(like) else None
    if layout != saved.layout:
        raise RunError(
            f"the checkpoint holds one process's part of {name!r}, laid out as {saved.layout}, but "
            f"here it is {layout or 'not sharded'}. Resume with as many processes as before and "
            "the same call of fully_shard."
        )
    return laid_out_as(saved.values.to(like.device), like)


def _layout(tensor: Any) -> list[Any]:
    """What must be equal for this process's part to fit: shape, placements, mesh, place in it."""
    mesh = tensor.device_mesh
    placements = [str(placement) for placement in tensor.placements]
    return [list(tensor.shape), placements, list(mesh.shape), list(mesh.get_coordinate() or ())]
