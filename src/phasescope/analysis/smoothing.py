"""Exponential moving averages as TensorBoard draws them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def ema(values: Float[Tensor, "*batch t"], smoothing: float) -> Float64[Tensor, "*batch t"]:
    r"""Debiased exponential moving average along the last axis, equal to TensorBoard's slider.

    $m_i = s\, m_{i-1} + (1 - s)\, x_i$ from $m_0 = 0$, shown as $m_i / (1 - s^i)$. Values that are
    not finite are passed through and do not count; constant series are returned unchanged; a
    smoothing of 1 leaves the average undebiased, which is zero.

    White noise keeps the share $\sqrt{(1-s)/(1+s)}$ of its standard deviation: .92 at s = .08, .5
    at .6, .20 at .92. The average lags behind by $s/(1-s)$ samples. The average of a logarithm is
    not the logarithm of an average: smooth the logarithm of heavy-tailed norms. Never look for
    change points in a smoothed series, whose neighbours are dependent.

    Args:
        values: Series, a value per evaluation.
        smoothing: Weight of the past, clipped to 0 ... 1; 0 changes nothing.

    Returns:
        The averages.

    Example:
        >>> ema(torch.tensor([0.0, 1.0, 1.0]), 0.5)
        tensor([0.0000, 0.6667, 0.8571], dtype=torch.float64)

    References:
        TensorBoard, ``resmoothDataset`` of its line charts (and its issue 786, constant series).
    """
    from scipy.signal import lfilter

    s = min(max(float(smoothing), 0.0), 1.0)
    rows = values.detach().double().cpu().reshape(-1, values.shape[-1])
    out = rows.clone()
    for row, target in zip(rows, out, strict=True):
        finite = row.isfinite()
        x = row[finite]
        if not len(x) or bool((row == row[0]).all()):
            continue
        last = torch.from_numpy(lfilter([1 - s], [1.0, -s], x.numpy()))
        count = torch.arange(1, len(x) + 1, dtype=torch.float64)
        target[finite] = last if s == 1 else last / (1 - s**count)
    return out.view(values.shape)
