"""Values of configurations and results as plain JSON, strictly."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch


def plain_value(value: object, where: str = "value") -> Any:
    """The value as None, bool, int, float, str, list and dict only, ready for strict JSON.

    JSON has neither NaN nor infinity: both become None (`null`). A diverged run can so be saved,
    and what diverged is visible as missing; which of the two it was is lost.

    Args:
        value: Numbers, strings, paths, arrays, tensors, dataclasses, or mappings and sequences of
            them.
        where: Name of the value in error messages.

    Returns:
        The plain value.

    Raises:
        TypeError: If something has no JSON form, or a mapping's key is no string.

    Example:
        >>> plain_value({"lr": np.float32(0.5), "loss": float("nan"), "batch": (60, 64)})
        {'lr': 0.5, 'loss': None, 'batch': [60, 64]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().tolist()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(
                    f"the keys of {where} must be strings to be written as JSON, but {key!r} is "
                    f"{type(key).__name__}. Convert the keys with str()."
                )
        return {key: plain_value(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, PurePath):
        return str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(
        f"{where} must be numbers, strings, arrays, dataclasses, mappings or sequences to be "
        f"written as JSON, but it is {type(value).__name__}. Convert it before saving."
    )


def json_text(value: object, where: str = "value") -> str:
    r"""Strict, indented JSON of a value (see `plain_value`), with a line feed at the end.

    Args:
        value: The value.
        where: Name of the value in error messages.

    Returns:
        JSON text.

    Example:
        >>> json_text({"a": 1})
        '{\n  "a": 1\n}\n'
    """
    plain = plain_value(value, where)
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
