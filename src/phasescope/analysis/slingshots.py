"""Slingshots: bursts of growth of the last layer that come with spikes of the training loss.

Letters: t evaluations, k slingshots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from phasescope.analysis.spikes import Spikes, find_spikes


@dataclass(frozen=True, eq=False)
class Slingshots:
    """Spikes of the loss during which a norm grows as it hardly ever does elsewhere."""

    spikes: Spikes
    """The spikes that are slingshots."""
    growth: Float64[Tensor, " k"]
    """Largest growth of ln‖W‖ over a window that touches the spike."""
    ordinary: float
    """Growth from which a window is a burst."""
    n_spikes: int
    """All spikes of the loss, slingshots or not."""
    p_value: float
    """Share of rotations of the norm's curve against the loss with at least as many coincidences:
    small where the two belong together. 1 without slingshots."""

    def __len__(self) -> int:
        """Number of slingshots."""
        return len(self.growth)

    @property
    def period(self) -> float:
        """Median number of steps from one to the next; NaN with fewer than two."""
        gaps = self.spikes.peak.diff().double()
        return float(gaps.quantile(0.5)) if len(gaps) else float("nan")


def find_slingshots(
    steps: Int[Tensor, " t"],
    loss: Float[Tensor, " t"],
    norm: Float[Tensor, " t"],
    *,
    window: int = 20,
    noise_factor: float = 6.0,
    min_height: float = 1.0,
    n_rotations: int = 199,
    seed: int = 0,
) -> Slingshots:
    r"""Slingshots of a training: loss spikes with a burst of growth of the last layer's norm.

    A spike (`find_spikes`, `min_height` decades over the running median) counts if within one
    window around it $\ln\|W_{t + \text{window}}\| - \ln\|W_t\|$ exceeds its median over the
    training by `noise_factor` robust standard deviations. They are cyclic under adaptive
    optimizers, come with sudden gains of test accuracy and so look like phase transitions; a larger
    ε of Adam suppresses them. A loss that was computed in float32 spikes by itself near 1e-7.

    Args:
        steps: Steps of the evaluations, increasing.
        loss: Training loss, positive.
        norm: Norm of the last layer's weights at the same evaluations, positive.
        window: Evaluations over which growth is taken.
        noise_factor: Least growth of a burst beyond the median, in standard deviations taken from
            the median absolute deviation.
        min_height: Least height of a spike in decades; 1 is ten times the median.
        n_rotations: Rotations of the null.
        seed: Of the rotations.

    Returns:
        The slingshots in order.

    Raises:
        ValueError: A curve is not positive and finite, or the window does not fit.

    Example:
        >>> steps = torch.arange(2_000)
        >>> t = steps % 500 - 250
        >>> loss = 1e-3 * (1 + 99 * (t.abs() < 3))
        >>> norm = torch.exp(0.3 * (steps.div(500, rounding_mode="floor") + (t > 0)))
        >>> found = find_slingshots(steps, loss, norm)
        >>> len(found), found.period
        (4, 500.0)

    References:
        Thilak et al. (2022), "The slingshot mechanism", arXiv:2206.04817, section 3.
    """
    if not 1 <= window < len(loss) / 3 or not noise_factor > 0:
        raise ValueError(
            f"window must be shorter than a third of the {len(loss)} evaluations and noise_factor "
            f"positive, but they are {window} and {noise_factor}."
        )
    if len(norm) != len(loss) or not bool((norm > 0).all() & norm.isfinite().all()):
        raise ValueError(
            "norm must be positive and finite at every evaluation of the loss, but has "
            f"{len(norm)} values for {len(loss)} losses, the smallest {norm.min().item():.3g}."
        )
    spikes = find_spikes(steps, loss, min_height=min_height)
    log = norm.detach().double().cpu().log().numpy()
    growth = log[window:] - log[:-window]
    middle = float(np.median(growth))
    ordinary = middle + noise_factor * 1.4826 * float(np.median(np.abs(growth - middle)))
    # Of a norm that stands still, rounding must not decide.
    burst = growth > max(ordinary, 1e-9)
    t = steps.cpu().numpy()
    first = np.searchsorted(t, spikes.start.numpy())
    last = np.searchsorted(t, spikes.end.numpy())
    touching = [
        np.arange(max(a - window, 0), min(b + window, len(growth)))
        for a, b in zip(first, last, strict=True)
    ]
    kept = np.array([bool(burst[x].any()) for x in touching], dtype=bool)
    generator = np.random.default_rng(seed)
    as_many = 1
    for _ in range(n_rotations):
        turned = np.roll(burst, int(generator.integers(window, len(burst) - window)))
        as_many += sum(bool(turned[x].any()) for x in touching) >= kept.sum()
    rows = torch.from_numpy(kept)
    return Slingshots(
        Spikes(
            spikes.direction,
            spikes.start[rows],
            spikes.peak[rows],
            spikes.end[rows],
            spikes.height[rows],
        ),
        torch.tensor([growth[x].max() for x, k in zip(touching, kept, strict=True) if k]).double(),
        ordinary,
        len(spikes),
        float(as_many / (n_rotations + 1)) if kept.any() else 1.0,
    )
