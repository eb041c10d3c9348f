"""Which recorded steps an analysis uses, selected by their values.

Letters: T recorded steps, n selected ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

Steps = slice | Sequence[int] | np.ndarray | Tensor


def select_steps(recorded: Int64[Tensor, " T"], steps: Steps | None) -> Int64[Tensor, " n"]:
    """Row numbers of the steps that are asked for by value, in the order in which they are asked.

    Args:
        recorded: Step of every row, strictly increasing.
        steps: Step values: a slice ``start:stop:step`` of values (`start` is the first recorded
            step by default, `stop` is excluded, and `step` keeps values congruent to `start`), or a
            list, array or tensor; None for all.

    Returns:
        Row numbers.

    Raises:
        TypeError: The values are not integers.
        ValueError: A step was not recorded (the nearest are named), nothing is selected, a step
            repeats, or a slice has negative parts.

    Example:
        >>> select_steps(torch.tensor([0, 10, 20, 30]), slice(10, None, 20))
        tensor([1, 3])
    """
    if steps is None:
        return torch.arange(len(recorded))
    if isinstance(steps, slice):
        return _select_slice(recorded, steps)
    values = torch.as_tensor(np.asarray(steps) if not isinstance(steps, Tensor) else steps).cpu()
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(
            f"steps must be a slice or a non-empty list of step values, but "
            f"{_brief(steps)} arrived."
        )
    if values.dtype == torch.bool or values.is_floating_point() or values.is_complex():
        raise TypeError(
            f"steps are whole numbers, but values of {values.dtype} arrived. Pass the step values "
            "themselves, not a mask over rows."
        )
    values = values.to(torch.int64)
    if len(values.unique()) < len(values):
        raise ValueError(f"every step may be selected once, but {_brief(steps)} repeats some.")
    rows = torch.searchsorted(recorded, values).clamp(max=len(recorded) - 1)
    missing = values[recorded[rows] != values]
    if len(missing):
        wanted = int(missing[0])
        order = (recorded - wanted).abs().argsort(stable=True)
        nearest = recorded[order[:2]].sort().values.tolist()
        raise ValueError(
            f"steps must have been recorded, but {len(missing)} of {len(values)} were not; the "
            f"first is {wanted}, its nearest recorded steps are {nearest}. Steps are values, not "
            "row numbers."
        )
    return rows


def _select_slice(recorded: Int64[Tensor, " T"], steps: slice) -> Int64[Tensor, " n"]:
    start = int(recorded[0]) if steps.start is None else steps.start
    stop = int(recorded[-1]) + 1 if steps.stop is None else steps.stop
    stride = 1 if steps.step is None else steps.step
    if not all(isinstance(part, Integral) for part in (start, stop, stride)):
        raise TypeError(f"a slice of steps must hold whole numbers, but {steps} arrived.")
    if start < 0 or stop < 0 or stride < 1:
        raise ValueError(
            f"a slice of steps holds step values, not positions, so that no part may be negative, "
            f"but {steps} arrived. The last recorded step is {int(recorded[-1])}."
        )
    inside = (recorded >= start) & (recorded < stop) & ((recorded - start) % stride == 0)
    if not bool(inside.any()):
        raise ValueError(
            f"at least one recorded step is required, but {steps} selects none of the "
            f"{len(recorded)} steps from {int(recorded[0])} to {int(recorded[-1])}."
        )
    return inside.nonzero().flatten()


def _brief(steps: object) -> str:
    text = repr(steps)
    return text if len(text) <= 80 else text[:77] + "..."
