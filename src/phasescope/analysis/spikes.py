"""Spikes of a loss, upward and downward: where, how high, how wide, and what comes after.

Letters: t evaluations, k spikes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from phasescope.analysis.curves import CurveSteps, CurveValues, as_curve

_MAD = 1.4826  # standard deviation over median absolute deviation, for normal noise


@dataclass(frozen=True, eq=False)
class Spikes:
    """Excursions of a loss from its own trend that come back."""

    direction: str
    """``"up"`` or ``"down"``."""
    start: Int64[Tensor, " k"]
    """First step at which half of the height is exceeded."""
    peak: Int64[Tensor, " k"]
    """Step of the extreme."""
    end: Int64[Tensor, " k"]
    """Last step at which half of the height is exceeded."""
    height: Float64[Tensor, " k"]
    """Distance of the extreme from the trend, in decades of the loss; positive both ways."""

    def __len__(self) -> int:
        """Number of spikes."""
        return len(self.start)

    @property
    def width(self) -> Int64[Tensor, " k"]:
        """Steps between start and end; 0 if one evaluation alone stands out."""
        return self.end - self.start


@dataclass(frozen=True, eq=False)
class Drift:
    """Trend of a loss behind spikes, beside its trend elsewhere."""

    slopes: Float64[Tensor, " k"]
    """Decades per 1,000 steps behind each spike, until the next one; NaN if that is too soon."""
    control: Float64[Tensor, " m"]
    """The same over stretches of the same lengths that no spike touches or has just left."""


@dataclass(frozen=True, eq=False)
class Recovery:
    """What spikes do to another curve, and whether it comes back."""

    before: Float64[Tensor, " k"]
    """Its last value before each spike."""
    change: Float64[Tensor, " k"]
    """Largest deviation from that value during the spike, signed."""
    lasting: Float64[Tensor, " k"]
    """Deviation that is left at the end of the horizon; NaN if the curve ends before."""
    steps: Float64[Tensor, " k"]
    """Steps from the spike's end until a tenth of the change is left; infinite if more is left
    throughout the horizon, NaN if the curve ends before it."""


def find_spikes(
    steps: CurveSteps,
    loss: CurveValues,
    direction: Literal["up", "down"] = "up",
    *,
    window: int = 201,
    min_height: float = 0.3,
    noise_factor: float = 6.0,
) -> Spikes:
    r"""Excursions of the logarithm of a loss from its running median.

    A spike exceeds both `min_height` decades and `noise_factor` times the local noise (median
    absolute deviation over the same window). The median is centred, so a trend, a step such as the
    fall at the grok, and a slow drift are no spikes: what does not come back within half a window
    becomes the trend, and so does what has not come back when the curve ends. Spikes that overlap
    at half height are one.

    Two cautions. A loss in float32 spikes by itself when it comes near 1e-7: compute it in float64
    first. And heights, widths and counts depend on how often the loss was evaluated: compare runs
    with the same steps only.

    Args:
        steps: Steps of the evaluations, increasing; the window counts evaluations.
        loss: Positive.
        direction: ``"up"``, or ``"down"`` for tails of very low loss.
        window: Evaluations of the running median, odd; spikes wider than half of it are trend.
        min_height: Least height in decades; .3 doubles the loss.
        noise_factor: Least height in standard deviations of the local noise.

    Returns:
        The spikes in order.

    Raises:
        ValueError: The loss is not positive and finite, the direction is another word, or the
            window is not odd.

    Example:
        >>> loss = torch.full((1000,), 0.01)
        >>> loss[500:510] *= 100
        >>> spikes = find_spikes(torch.arange(1000), loss)
        >>> spikes.start.tolist(), spikes.width.tolist(), round(spikes.height.item(), 2)
        ([500], [9], 2.0)
    """
    steps, loss = _loss_curve(steps, loss)
    if direction not in ("up", "down"):
        raise ValueError(f"direction is 'up' or 'down', but {direction!r} arrived.")
    if window < 3 or window % 2 == 0:
        raise ValueError(f"window must be an odd number of evaluations from 3 up, not {window}.")
    from scipy.ndimage import median_filter

    log = loss.double().cpu().log10().numpy()
    excess = log - median_filter(log, size=window, mode="nearest")
    noise = _MAD * median_filter(np.abs(excess), size=window, mode="nearest")
    excess = excess if direction == "up" else -excess
    high = excess > np.maximum(min_height, noise_factor * noise)
    found: list[tuple[int, int, int]] = []
    for first, last in _stretches(high):
        peak = first + int(excess[first : last + 1].argmax())
        around = excess > excess[peak] / 2
        start = peak - int((~around[: peak + 1][::-1]).argmax()) + 1
        start = 0 if around[: peak + 1].all() else start
        end = peak + int((~around[peak:]).argmax()) - 1
        end = len(excess) - 1 if around[peak:].all() else end
        while found and start <= found[-1][2]:  # one spike: the higher extreme counts
            before = found.pop()
            peak = max(peak, before[1], key=lambda i: excess[i])
            start, end = min(start, before[0]), max(end, before[2])
        found.append((start, peak, end))
    index = torch.tensor(found, dtype=torch.int64).reshape(-1, 3)
    at = steps.cpu().long()[index]
    heights = torch.from_numpy(excess)[index[:, 1]]
    return Spikes(direction, at[:, 0], at[:, 1], at[:, 2], heights)


def falling_share(loss: CurveValues) -> float:
    """Share of the evaluations at which a loss is lower than at the one before.

    Args:
        loss: At every step.

    Returns:
        Between 0 and 1; 1 for a loss that only falls.

    Raises:
        ValueError: There are fewer than two evaluations, or one is not finite.

    Example:
        >>> falling_share(torch.tensor([3.0, 2.0, 2.5, 1.0, 1.0]))
        0.5
    """
    _, values = as_curve(range(len(loss)), loss, "the loss", least=2, finite=True)
    return (values.diff() < 0).double().mean().item()


def drift_after(
    steps: CurveSteps,
    loss: CurveValues,
    spikes: Spikes,
    *,
    horizon: int = 500,
    n_control: int = 200,
    seed: int = 0,
) -> Drift:
    """Whether a loss rises or falls behind its spikes, beside what it does elsewhere.

    Least squares slopes of the logarithm from one width behind the end of a spike to the next one,
    at most over the horizon and at least over ten evaluations.

    Args:
        steps: Steps of the evaluations, increasing.
        loss: Positive.
        spikes: Of this loss.
        horizon: Steps behind a spike that are looked at.
        n_control: Stretches elsewhere to draw; fewer are returned where there is no room.
        seed: Of their drawing.

    Returns:
        Slopes behind spikes and elsewhere.

    Raises:
        ValueError: The loss is not positive and finite.

    Example:
        >>> steps = torch.arange(2000)
        >>> loss = 10 ** (-steps.double() / 1000)
        >>> loss[1000:1005] *= 100
        >>> drift = drift_after(steps, loss, find_spikes(steps, loss))
        >>> round(drift.slopes.item(), 6), round(drift.control.median().item(), 6)
        (-1.0, -1.0)
    """
    steps, loss = _loss_curve(steps, loss)
    t, log = steps.cpu().numpy(), loss.double().cpu().log10().numpy()
    begins = (spikes.end + spikes.width.clamp(min=1)).numpy()
    nexts = np.append(spikes.start.numpy()[1:], t[-1] + 1)
    ends = np.minimum(begins + horizon, nexts - 1)
    stretches = zip(begins.tolist(), ends.tolist(), strict=True)
    slopes = [_slope(t, log, a, b) for a, b in stretches]
    lengths = (ends - begins)[np.isfinite(slopes)]
    touched = np.zeros(len(t), dtype=bool)
    for start, end in zip(spikes.start.numpy(), ends, strict=True):
        touched |= (t >= start) & (t <= end)
    generator = np.random.default_rng(seed)
    control = []
    for _ in range(n_control if len(lengths) else 0):
        length = int(generator.choice(lengths))
        a = int(generator.integers(t[0], max(t[-1] - length, t[0] + 1)))
        inside = (t >= a) & (t <= a + length)
        if not touched[inside].any():
            control.append(_slope(t, log, a, a + length))
    kept = np.array(control, dtype=np.float64)
    return Drift(
        torch.tensor(slopes, dtype=torch.float64), torch.from_numpy(kept[np.isfinite(kept)])
    )


def recovery(
    steps: CurveSteps,
    values: CurveValues,
    spikes: Spikes,
    *,
    horizon: int = 500,
) -> Recovery:
    """What spikes do to another curve, such as a progress measure, and whether it comes back.

    The curve may be evaluated more rarely than the loss: during a spike its evaluations from the
    start to one width behind the end count, at least one.

    Args:
        steps: Steps at which the curve was evaluated, increasing.
        values: The curve; of a loss its logarithm.
        spikes: Of any loss of the same training.
        horizon: Steps behind a spike within which the curve may come back.

    Returns:
        Change, what is left of it, and how long it takes.

    Raises:
        ValueError: Steps and values do not belong together.

    Example:
        >>> steps = torch.arange(100)
        >>> spikes = Spikes("up", torch.tensor([50]), torch.tensor([51]), torch.tensor([52]),
        ...     torch.ones(1, dtype=torch.float64))
        >>> values = torch.where((steps >= 50) & (steps < 56), 3.0, 1.0)
        >>> found = recovery(steps, values, spikes, horizon=20)
        >>> found.change.tolist(), found.lasting.tolist(), found.steps.tolist()
        ([2.0], [0.0], [4.0])
    """
    steps, values = as_curve(steps, values, least=2)
    t, y = steps.cpu().numpy(), values.double().cpu().numpy()
    rows = []
    for start, end in zip(spikes.start.tolist(), spikes.end.tolist(), strict=True):
        earlier = np.flatnonzero(t < start)
        base = y[earlier[-1]] if len(earlier) else np.nan
        during = np.flatnonzero((t >= start) & (t <= end + max(end - start, 1)))
        if not len(during):
            during = np.flatnonzero(t >= start)[:1]
        if not len(during) or not np.isfinite(base):
            rows.append((base, np.nan, np.nan, np.nan))
            continue
        deviations = y[during] - base
        extreme = np.abs(deviations).argmax()
        change = deviations[extreme]
        later = (t > end) & (t <= end + horizon)
        complete = t[-1] >= end + horizon
        left = y[later] - base
        # Before its extreme the curve has not come back: it has not left yet.
        is_back = (np.abs(left) <= 0.1 * np.abs(change)) & (t[later] >= t[during[extreme]])
        back = np.flatnonzero(is_back)
        time = t[later][back[0]] - end if len(back) else (np.inf if complete else np.nan)
        lasting = left[-1] if complete and len(left) else np.nan
        rows.append((base, change, lasting, time))
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)
    return Recovery(*table.unbind(1))


def around_spikes(
    steps: CurveSteps,
    values: CurveValues,
    spikes: Spikes,
    *,
    before: int = 50,
    after: int = 50,
) -> Float64[Tensor, "k offsets"]:
    """A curve cut out around the start of every spike: gradient norms, √v, effective steps.

    Args:
        steps: Steps at which the curve was evaluated, increasing.
        values: The curve.
        spikes: Of any loss of the same training.
        before: Steps before the start.
        after: Steps from the start on.

    Returns:
        Row by row the values at start − before, ..., start + after; NaN where there is none.

    Raises:
        ValueError: Steps and values do not belong together.

    Example:
        >>> one = torch.tensor([3])
        >>> spikes = Spikes("up", one, one, one, torch.ones(1, dtype=torch.float64))
        >>> around_spikes(torch.arange(5), torch.arange(5.0), spikes, before=1, after=2).tolist()
        [[2.0, 3.0, 4.0, nan]]
    """
    steps, values = as_curve(steps, values, least=2)
    offsets = torch.arange(-before, after + 1)
    wanted = spikes.start[:, None] + offsets
    known = steps.cpu().long()
    place = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
    found = values.double().cpu()[place]
    return torch.where(known[place] == wanted, found, torch.nan)


def _slope(t: np.ndarray, log: np.ndarray, a: int, b: int) -> float:
    """Decades per 1,000 steps between two steps; NaN over fewer than ten evaluations."""
    inside = (t >= a) & (t <= b)
    if inside.sum() < 10:
        return float("nan")
    x = t[inside] - t[inside].mean()
    return float(1000 * (x @ log[inside]) / (x @ x))


def _stretches(flags: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of every run of true flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b) - 1) for a, b in edges.reshape(-1, 2)]


def _loss_curve(steps: CurveSteps, loss: CurveValues) -> tuple[Tensor, Tensor]:
    """A curve that has a logarithm."""
    t, values = as_curve(steps, loss, "the loss", least=2)
    bad = (~((values > 0) & values.isfinite())).nonzero()
    if len(bad):
        i = int(bad[0])
        raise ValueError(
            f"a loss must be positive and finite for its logarithm, but at step {int(t[i])} it is "
            f"{values[i].item()}. A cross-entropy of exactly 0 was computed in float32: use "
            "float64."
        )
    return t, values
