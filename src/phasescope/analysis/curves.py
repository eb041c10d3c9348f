"""Curves as users have them: one value for each of increasing steps.

Letters: t evaluations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Num, Shaped
from torch import Tensor

# Steps of evaluations, increasing whole numbers of updates.
CurveSteps = Sequence[int] | Num[np.ndarray, " t"] | Num[Tensor, " t"]
# One number for each of them.
CurveValues = Sequence[float | int] | Num[np.ndarray, " t"] | Num[Tensor, " t"] | Bool[Tensor, " t"]


def as_curve(
    steps: CurveSteps,
    values: CurveValues,
    name: str = "values",
    *,
    least: int = 1,
    finite: bool = False,
) -> tuple[Int64[Tensor, " t"], Float[Tensor, " t"]]:
    """Steps and values as tensors, after a check that they belong together.

    Args:
        steps: A list, an array or a tensor.
        values: Likewise; floats keep their precision, other numbers become float64.
        name: What the values are called where they are at fault.
        least: How many there must be.
        finite: Whether values that are not finite are an error.

    Raises:
        ValueError: They have different lengths or several axes, there are too few, a step is not a
            whole number, the steps do not increase, or a value is not finite though it must be.

    Example:
        >>> as_curve([0, 10, 20], np.array([3, 2, 1]))
        (tensor([ 0, 10, 20]), tensor([3., 2., 1.], dtype=torch.float64))
    """
    t, y = as_tensor(steps), as_tensor(values)
    if t.ndim != 1 or y.ndim != 1:
        raise ValueError(
            f"steps and {name} must have one axis each, but their shapes are {tuple(t.shape)} and "
            f"{tuple(y.shape)}. Of a recorded metric take the column: run['metrics/loss'][:, 0]."
        )
    if len(t) != len(y) or len(t) < least:
        several = f"at least {least} " if least > 1 else ""
        raise ValueError(
            f"{name} must have one value for each of {several}increasing steps, but there are "
            f"{len(y)} values and {len(t)} steps."
        )
    whole = t.long()
    if bool((whole != t).any()):
        i = int((whole != t).nonzero()[0])
        raise ValueError(
            f"steps must be whole numbers of updates, but step {i} of them is {t[i].item()}."
        )
    later = (whole.diff() <= 0).nonzero().flatten()
    if len(later):
        i = int(later[0])
        raise ValueError(
            f"{name} must have one value for each of increasing steps, but {int(whole[i + 1])} "
            f"comes after {int(whole[i])}, at index {i + 1}. Sort steps and values together, and "
            "keep one value per step."
        )
    bad = (~y.isfinite()).nonzero().flatten() if finite else whole[:0]
    if len(bad):
        i = int(bad[0])
        raise ValueError(
            f"{name} must be finite, but at step {int(whole[i])} it is {y[i].item()}. Leave the "
            "evaluations out at which it is not, or end the curves before the training diverged."
        )
    return whole, y if y.is_floating_point() else y.double()


def as_tensor(
    values: Sequence[Any] | Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."],
) -> Tensor:
    """Numbers as a tensor without graph: lists as float64, arrays and tensors as they are."""
    if isinstance(values, Tensor):
        return values.detach()
    if isinstance(values, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(values))
    return torch.tensor(list(values), dtype=torch.float64)
