"""Which parts of a network moved during a phase more than they do at other times.

Letters: n components, T recorded changes, w windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int, Num
from torch import Tensor

from phasescope.analysis.curves import as_tensor


@dataclass(frozen=True, eq=False)
class Movers:
    """Activity of every component during a phase, beside windows of the same shape elsewhere."""

    ratio: Float64[Tensor, " n"]
    """Mean squared change per step in the phase over the median of the other windows; NaN where
    nothing was recorded in it, or nothing moves in either."""
    p_value: Float64[Tensor, " n"]
    """Share of all windows, this one included, with at least the same activity. Windows overlap and
    activity drifts, so this is a rank rather than a probability."""
    n_windows: int
    """Windows it is compared with."""

    def __repr__(self) -> str:
        """How many moved more than at other times."""
        n = int((self.p_value <= 0.05).sum())
        return (
            f"Movers({n} of {len(self.ratio)} parts with p <= .05 among {self.n_windows} windows)"
        )


def movers(
    steps: Sequence[int] | Int[np.ndarray, " T"] | Int[Tensor, " T"],
    squares: Sequence[Sequence[float | int]] | Num[np.ndarray, "n T"] | Num[Tensor, "n T"],
    onset: float | int,
    end: float | int,
    *,
    n_windows: int = 100,
) -> Movers:
    r"""Whether components move more in a phase than in other windows of equal logarithmic width.

    The activity of a component in a window is its mean squared change per step. Windows are as wide
    as the phase in ln(1 + step) and spread over the whole recording, those that overlap the phase
    left out. A learning rate that changes, or a norm that grows, moves all windows: compare the
    components with each other, too.

    Args:
        steps: Step of every recorded change.
        squares: Squared change per step of every component: ``moved.per_step``, or squares of
            recorded norms of updates.
        onset: First step of the phase.
        end: Last step of the phase.
        n_windows: How many windows are tried.

    Returns:
        Ratios and ranks in the order of the rows.

    Raises:
        ValueError: The phase ends before it begins, or no other window holds anything.

    Example:
        >>> steps = torch.arange(1_000)
        >>> squares = torch.ones(2, 1_000)
        >>> squares[1, 400:500] = 9.0
        >>> found = movers(steps, squares, 400, 499)
        >>> found.ratio.tolist(), bool(found.p_value[1] < 0.05)
        ([1.0, 9.0], True)
    """
    if not end > onset:
        raise ValueError(f"a phase must end after it begins, but it goes from {onset} to {end}.")
    t = as_tensor(steps).cpu().double().numpy()
    values = as_tensor(squares).cpu().double().numpy()
    if len(t) != values.shape[-1] or bool((np.diff(t) <= 0).any()) or bool((values < 0).any()):
        raise ValueError(
            "one squared change of 0 or more of each part is required for each of increasing "
            f"steps, but {len(t)} steps and squares of shape {values.shape} arrived, of which the "
            f"least is {np.nanmin(values, initial=np.inf):.3g}. Sort steps and squares together."
        )
    width = math.log1p(end) - math.log1p(onset)
    first, last = math.log1p(t[0]), math.log1p(t[-1])
    activity, inside = [], _mean(t, values, onset, end)
    for start in np.linspace(first, max(last - width, first), n_windows):
        a, b = math.expm1(start), math.expm1(start + width)
        if (b < onset or a > end) and ((t >= a) & (t <= b)).any():
            activity.append(_mean(t, values, a, b))
    if not activity:
        raise ValueError(
            f"no window outside of the phase from {onset:.0f} to {end:.0f} holds recorded changes: "
            f"there are {len(t)}, from {t[0]:.0f} to {t[-1]:.0f}. Record more often."
        )
    others = np.array(activity).T
    usual = np.median(others, axis=1)
    # Nothing against nothing is no ratio.
    ratio = np.where((inside == 0) & (usual == 0), np.nan, inside / np.maximum(usual, 1e-300))
    as_large = 1 + (others >= inside[:, None]).sum(1)
    p = np.where(np.isfinite(inside) & np.isfinite(ratio), as_large / (others.shape[1] + 1), np.nan)
    return Movers(torch.from_numpy(ratio), torch.from_numpy(p), others.shape[1])


def _mean(t: np.ndarray, values: np.ndarray, a: float | int, b: float | int) -> np.ndarray:
    chosen = (t >= a) & (t <= b)
    if not chosen.any():
        return np.full(len(values), np.nan)
    return values[:, chosen].mean(1)
