"""A curve of training in blocks of logarithmic time.

Letters: t evaluations, b blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from phasescope.analysis.curves import CurveSteps, CurveValues, as_curve

_MAD = 1.4826  # standard deviation over median absolute deviation, for normal noise
_TRIM = 2.5
_TRIMMED = 0.9546  # standard deviation of a normal variable that lies within 2.5 of its own


@dataclass(frozen=True, eq=False)
class LogBlocks:
    """Means of a curve over blocks that are equally wide in ln(1 + step)."""

    tau: Float64[Tensor, " b"]
    """Mean ln(1 + step) of the evaluations of each block."""
    values: Float64[Tensor, " b"]
    """Mean of the curve."""
    counts: Int64[Tensor, " b"]
    """Evaluations in each block: the first ones of a training hold one, late ones many."""
    first: Int64[Tensor, " b"]
    """Step of the first evaluation of each block."""
    last: Int64[Tensor, " b"]
    """Step of the last one."""

    def __repr__(self) -> str:
        """What they are of."""
        return (
            f"LogBlocks({len(self)} blocks of {int(self.counts.sum())} evaluations from step "
            f"{int(self.first[0])} to {int(self.last[-1])})"
        )

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self.tau)

    @property
    def noise(self) -> float:
        """Standard deviation of a single evaluation around a smooth curve.

        From differences between each block and the line through its neighbours: their root mean
        square without those beyond 2.5 robust standard deviations. Noise that is correlated over
        more than a block is taken for signal. Where more than half of the curve lies on straight
        lines exactly, such as an accuracy of 1, it is the noise of the rest, if that is a tenth of
        it and 10 blocks.
        """
        x, y, w = (a.numpy() for a in (self.tau, self.values, self.counts.double()))
        if len(x) < 3:
            return float("nan")
        a = (x[2:] - x[1:-1]) / (x[2:] - x[:-2])
        gap = y[1:-1] - a * y[:-2] - (1 - a) * y[2:]
        scale = np.sqrt(1 / w[1:-1] + a**2 / w[:-2] + (1 - a) ** 2 / w[2:])
        z = np.abs(gap / scale)
        if np.median(z) == 0:
            rest = z[z > 0]
            z = rest if len(rest) >= max(10, len(z) / 10) else np.zeros(1)
        kept = z[z <= _TRIM * _MAD * np.median(z)]
        return float(np.sqrt(np.mean(kept**2)) / _TRIMMED)


def log_blocks(steps: CurveSteps, values: CurveValues, n_blocks: int = 400) -> LogBlocks:
    """Means of a curve over blocks equally wide in ln(1 + step), empty ones left out.

    Averaging makes the noise of neighbours nearly independent and spreads a training of 10⁵ steps
    over a few hundred numbers. Give unsmoothed values.

    Args:
        steps: Steps of the evaluations, increasing, from 0 up.
        values: The curve.
        n_blocks: How many blocks the whole span is divided into.

    Returns:
        The blocks that hold evaluations.

    Raises:
        ValueError: Steps and values do not belong together, a value is not finite, or there are
            fewer than two blocks.

    Example:
        >>> blocks = log_blocks(torch.arange(10_000), torch.ones(10_000), 100)
        >>> len(blocks), int(blocks.counts.sum()), int(blocks.counts[-1])
        (84, 10000, 880)
    """
    steps, values = as_curve(steps, values, "the curve", least=2)
    if int(steps[0]) < 0 or n_blocks < 2:
        raise ValueError(
            f"steps must not be negative and n_blocks be at least 2, but steps begin with "
            f"{int(steps[0])} and n_blocks is {n_blocks}."
        )
    y = values.detach().double().cpu().numpy()
    t = steps.detach().cpu().numpy().astype(np.int64)
    if not np.isfinite(y).all():
        i = int((~np.isfinite(y)).argmax())
        raise ValueError(
            f"every value must be finite, but at step {t[i]} it is {y[i]}. Leave such evaluations "
            "out: values[values.isfinite()]."
        )
    tau = np.log1p(t)
    place = np.minimum((tau - tau[0]) / (tau[-1] - tau[0]) * n_blocks, n_blocks - 1).astype(int)
    begin = np.flatnonzero(np.diff(place, prepend=-1))
    counts = np.diff(np.append(begin, len(t)))
    end = np.append(begin[1:], len(t)) - 1
    return LogBlocks(
        torch.from_numpy(np.add.reduceat(tau, begin) / counts),
        torch.from_numpy(np.add.reduceat(y, begin) / counts),
        torch.from_numpy(counts),
        torch.from_numpy(t[begin]),
        torch.from_numpy(t[end]),
    )
