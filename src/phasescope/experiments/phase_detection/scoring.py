"""What detectors say of the signals of a run: alarms with their steps, and where the change is.

The same detectors at their published defaults for every signal; nothing is tuned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import phasescope as ps
from phasescope.datasets import KnownRun

Alarm = tuple[float, float]
"""Step at which a change begins (or is noticed), and the step to which it is dated."""
Detector = Callable[[KnownRun, Tensor, Tensor], list[Alarm]]

SATURATED = 0.99  # training accuracy from which the training loss says nothing more
SPECIAL = ("train_accuracy", "test_accuracy")  # not cheap signals: they say what was to be found
ANY = "any component"  # the update norms of all components, searched one by one
# What the claims are decided on; the others cost as much again, and components ten times as much.
SIGNALS = (
    "test_loss",
    "train_loss",
    "gradient_norm",
    "update_norm",
    "weight_norm",
    "stable_rank",
)
LINEAR = ("update_cosine", "stable_rank")  # all other signals are positive: their logarithm


def transitions(run: KnownRun, steps: Tensor, values: Tensor) -> list[Alarm]:
    """Onset and midpoint of every transition; the rate's changes are known."""
    found = ps.find_transitions(steps, values, known=run.rate_changes)
    return [(x.onset, x.midpoint) for x in found]


def corners(run: KnownRun, steps: Tensor, values: Tensor) -> list[Alarm]:
    """Every change of a piecewise linear trend: earliest possible step, best step."""
    found = ps.change_points(steps, values, n_blocks=200)
    return [(float(low), float(at)) for low, at in zip(found.low, found.steps, strict=True)]


def online(run: KnownRun, steps: Tensor, values: Tensor) -> list[Alarm]:
    """Every alarm: the step since which the curve is off, and that at which it was raised."""
    detector = ps.OnlineDetector()
    alarms = [detector.update(int(t), float(v)) for t, v in zip(steps, values, strict=True)]
    return [(float(x.since), float(x.step)) for x in alarms if x is not None]


def spikes(run: KnownRun, steps: Tensor, values: Tensor) -> list[Alarm]:
    """Start and peak of every spike upward; values are natural logarithms."""
    window = min(101, len(values) // 4 * 2 + 1)
    found = ps.find_spikes(steps, values.exp(), window=window)
    return [(float(a), float(b)) for a, b in zip(found.start, found.peak, strict=True)]


DETECTORS: dict[str, Detector] = {
    "find_transitions": transitions,
    "change_points": corners,
    "OnlineDetector": online,
    "find_spikes": spikes,
}


def prepared(run: KnownRun, name: str) -> tuple[Tensor, Tensor]:
    """Steps and values that detectors get: natural logarithms of signals that are positive."""
    x = run.signals[name].double()
    x = x if name in LINEAR else x.clamp(min=1e-30).log()
    usable = x.isfinite()  # relative updates are infinite where weights start at zero
    return run.steps[usable], x[usable]


def scored(run: KnownRun, *, every_signal: bool = False) -> dict[str, Any]:
    """All alarms of a run, whether its loss was saturated, and where the change was located.

    Args:
        run: The run.
        every_signal: Whether all its signals are searched, those of components too.
    """
    alarms = {
        name: {
            detector: _plain(search(run, *prepared(run, name)))
            for detector, search in DETECTORS.items()
            if detector != "find_spikes" or name not in LINEAR
        }
        for name in run.signals
        if name in SIGNALS or (every_signal and "/" not in name and name not in SPECIAL)
    }
    if every_signal:
        alarms[ANY] = {"find_transitions": _plain(of_components(run))}
    return {
        "seed": run.seed,
        "span": [int(run.steps[0]), int(run.steps[-1])],
        "events": [[e.start, e.middle, e.end] for e in run.events],
        "saturated": [saturated(run, e.start) for e in run.events],
        "alarms": alarms,
        "located": located(run, alarms),
    }


def of_components(run: KnownRun) -> list[Alarm]:
    """Transitions of the update norm of any component.

    The criterion is twice a log likelihood, so that the best of n curves needs 2 ln n more.
    """
    alarms: list[Alarm] = []
    for component in run.components:
        steps, values = prepared(run, f"update_norm/{component}")
        least = 10 + 2 * math.log(len(run.components))
        found = ps.find_transitions(steps, values, min_evidence=least, known=run.rate_changes)
        alarms += [(x.onset, x.midpoint) for x in found]
    return sorted(alarms)


def saturated(run: KnownRun, step: int) -> bool:
    """Whether the training accuracy had reached its end when an event began."""
    accuracy = run.signals.get("train_accuracy")
    if accuracy is None:
        return False
    reached = ps.first_reached(run.steps, accuracy, SATURATED)
    return reached is not None and reached.step <= step


def located(run: KnownRun, alarms: Mapping[str, Any]) -> list[dict[str, Any] | None]:
    """How well the place of every event is found, from update and gradient norms of components.

    Components are ranked by how much they moved in the window of the event compared with other
    windows of the same logarithmic width (`movers`), and for comparison by their norm in the window
    alone. The window is the event's (from 10 to 90 % of the progress measure), or the one that the
    detectors found in the training loss: its transition or spike nearest to the event.

    Args:
        run: The run.
        alarms: From `scored`.
    """
    return [_located(run, i, alarms) if e.components else None for i, e in enumerate(run.events)]


def _located(run: KnownRun, index: int, alarms: Mapping[str, Any]) -> dict[str, Any]:
    event = run.events[index]
    names = run.components
    true = np.array([name in event.components for name in names])
    windows = {"known window": (float(event.start), float(event.end))}
    # A logistic is symmetric in logarithmic time. A spike lasts from its start to its peak, and
    # the update before it is its cause.
    seen = [
        (at, onset, (1 + at) ** 2 / (1 + onset) - 1)
        for onset, at in alarms["train_loss"]["find_transitions"]
    ]
    for start, at in alarms["train_loss"]["find_spikes"]:
        earlier = run.steps[run.steps < start]
        seen.append((at, float(earlier[-1]) if len(earlier) else start, at))
    if seen:
        _, onset, end = min(seen, key=lambda x: abs(math.log1p(x[0]) - math.log1p(event.middle)))
        windows["detected window"] = (onset, end)
    found: dict[str, Any] = {"chance": float(true.mean())}
    for kind in ("update_norm", "gradient_norm"):
        squares = torch.stack([run.signals[f"{kind}/{n}"] for n in names]).double().square()
        for window, (onset, end) in windows.items():
            ratio = _ratio(run.steps, squares, onset, end)
            if ratio is None:
                continue
            inside = (run.steps >= onset) & (run.steps <= max(end, onset + 1))
            key = f"{kind}, {window}"
            found[key] = _agreement(ratio, true)
            if bool(inside.any()):
                level = squares[:, inside].mean(1).numpy()
                found[f"{key}, level alone"] = _agreement(level, true)
    return found


def _ratio(
    steps: Tensor, squares: Tensor, onset: float | int, end: float | int
) -> np.ndarray | None:
    """The movers' ratios; None where the window holds no record, or is all there is."""
    try:
        ratio = ps.movers(steps, squares, onset, max(end, onset + 1)).ratio.numpy()
    except ValueError:
        return None
    return ratio if np.isfinite(ratio).all() else None


def _agreement(values: np.ndarray, true: np.ndarray) -> list[float]:
    """Whether the first in rank is true, and the probability that a true one ranks above others."""
    first = float(true[int(values.argmax())])
    a, b = values[true][:, None], values[~true][None]
    if not a.size or not b.size:
        return [first, 1.0]
    return [first, float(((a > b) + 0.5 * (a == b)).mean())]


def _plain(alarms: Sequence[Alarm]) -> list[list[float]]:
    return [[round(a, 1), round(b, 1)] for a, b in alarms]
