"""Detection of changes while a curve is being recorded.

Letters: b blocks of logarithmic time.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

_DISCOUNTS = (0.0, 0.3, 0.6, 0.8, 0.9, 0.95)
_MEMORY = 40  # forecast errors that say what is usual
_RECENT = 12  # of these, the last ones
_WARM_UP = 20
_CLIP = 5.0  # standard deviations that a single block counts at most
_ALLOWANCE = 0.75
# Sum of excesses at which noise and walks raise an alarm in a few runs of a hundred: see the guide.
_THRESHOLD = 11.0


@dataclass(frozen=True)
class Alarm:
    """A change that was noticed while it happened."""

    step: int
    """Step at which it was noticed."""
    since: int
    """Step since which the curve has been off its forecast."""
    direction: str
    """``"up"`` or ``"down"``."""


class OnlineDetector:
    """Notices when a curve leaves the course it was on, one evaluation at a time.

    Evaluations are averaged over blocks of ln(1 + step). Each block is forecast from those before
    by exponential smoothing with the discount that has served best so far, plus the usual drift;
    forecast errors are measured in units of their own recent spread, and their excesses over .75
    are added up in both directions (Page's test). Level noise, drifts, power laws and random walks
    are all forecast as well as they can be, so what raises an alarm is a change that the curve did
    not announce. An alarm needs two blocks at least: single spikes raise none.

    False-alarm rates of whole runs are in the guide {doc}`phases`: a few per cent for noise, walks
    and power laws, a fifth where one relaxation follows another. A change that goes on raises
    further alarms until forecasts have caught up. The delay is a few blocks, that is some per cent
    of the steps so far.

    Args:
        width: Width of a block in ln(1 + step); .03 are 77 blocks per decade.
        threshold: Sum of excesses, in standard deviations, that raises an alarm: higher is slower
            and errs less.

    Raises:
        ValueError: A number is not positive.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=3_000)
        >>> detector = OnlineDetector()
        >>> alarms = [detector.update(t, x - 5 * (t >= 1_000)) for t, x in enumerate(noise)]
        >>> first = next(alarm for alarm in alarms if alarm)
        >>> first.direction, 1_000 <= first.step < 1_100
        ('down', True)

    References:
        Page (1954), "Continuous inspection schemes", Biometrika 41(1/2).
    """

    def __init__(self, *, width: float = 0.03, threshold: float = _THRESHOLD) -> None:
        if not width > 0 or not threshold > 0:
            raise ValueError(
                f"width and threshold must be positive, but they are {width} and {threshold}."
            )
        self.width = width
        self.threshold = threshold
        self._place = -1
        self._sum, self._count, self._first, self._last = 0.0, 0, -1, -1
        self._levels: list[float] = []
        self._squares = np.zeros(len(_DISCOUNTS))
        self._errors: deque[np.ndarray] = deque(maxlen=_MEMORY)
        self._n = 0
        self._excess = {"up": 0.0, "down": 0.0}
        self._since = {"up": -1, "down": -1}

    def update(self, step: int, value: float) -> Alarm | None:
        """Take in one evaluation.

        Values that are not finite are left out.

        Args:
            step: Larger than the one before.
            value: Of the curve.

        Returns:
            An alarm when the block that this evaluation closes raises one.

        Raises:
            ValueError: The step does not increase.
        """
        if step <= self._last or step < 0:
            raise ValueError(
                f"steps must increase from 0 up, but {step} arrived after {self._last}. Use one "
                "detector per curve."
            )
        place = int(math.log1p(step) / self.width)
        alarm = None
        if place != self._place and self._count:
            alarm = self._close(step)
            self._sum, self._count, self._first = 0.0, 0, -1
        self._place, self._last = place, step
        if math.isfinite(value):
            self._sum += value
            self._count += 1
            self._first = step if self._first < 0 else self._first
        return alarm

    def _close(self, step: int) -> Alarm | None:
        """Compare the block that has ended with its forecast."""
        mean = self._sum / self._count
        if not self._levels:
            self._levels = [mean] * len(_DISCOUNTS)
            return None
        errors = mean - np.array(self._levels)
        alarm = None
        if self._n >= _WARM_UP:
            best = int(self._squares.argmin())
            past = np.array([e[best] for e in self._errors])
            usual = float(np.median(past))
            distances = np.abs(past - usual)
            # Of a walk the errors grow with the width of the blocks: the last ones say it first.
            spread = 1.4826 * max(np.median(distances), np.median(distances[-_RECENT:]))
            z = (errors[best] - usual) / max(float(spread), 1e-12 * abs(mean), 1e-300)
            alarm = self._accumulate(min(max(z, -_CLIP), _CLIP), step)
        self._n += 1
        self._errors.append(errors)
        # What is far off says little about which forecast is good.
        typical = np.median(np.abs(np.array(self._errors)), axis=0)
        self._squares = 0.98 * self._squares + np.minimum(np.abs(errors), 5 * typical + 1e-300) ** 2
        # Nor is a single block far off the level from now on: it moves there in bounded strides.
        stride = _CLIP * 1.4826 * typical if self._n > _WARM_UP else np.full(len(errors), np.inf)
        moved = np.clip(errors, -stride, stride) * (1 - np.array(_DISCOUNTS))
        self._levels = (np.array(self._levels) + moved).tolist()
        return alarm

    def _accumulate(self, z: float, step: int) -> Alarm | None:
        for direction, sign in (("up", 1.0), ("down", -1.0)):
            before = self._excess[direction]
            self._excess[direction] = max(0.0, before + sign * z - _ALLOWANCE)
            if before == 0.0:
                self._since[direction] = self._first
        for direction in ("up", "down"):
            if self._excess[direction] > self.threshold:
                since = self._since[direction]
                self._excess = {"up": 0.0, "down": 0.0}
                return Alarm(step, since, direction)
        return None
