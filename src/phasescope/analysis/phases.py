"""When a network memorises, forms circuits, cleans up and generalises, from its curves.

Letters: t evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from phasescope.analysis.curves import CurveSteps, CurveValues, as_curve

# Evaluations over which curves are compared with themselves when their trend is asked for.
_TREND = 5


@dataclass(frozen=True)
class Moment:
    """A step at which something happened first, and the steps between which it did."""

    step: int
    """The first evaluation at which it has happened, or the best estimate of a turning point."""
    low: int
    """It did not happen before this step: the evaluation before, or the lowest estimate."""
    high: int
    """It had happened by this step, or the highest estimate."""


@dataclass(frozen=True)
class GrokTimes:
    """When a network memorised and when it generalised. None: it did not, while it was watched."""

    memorised: Moment | None
    """Accuracy on the training pairs reached its threshold."""
    grokked: Moment | None
    """Accuracy on the test pairs reached its threshold, and stayed."""

    @property
    def delay(self) -> int | None:
        """Steps between the two."""
        if self.memorised is None or self.grokked is None:
            return None
        return self.grokked.step - self.memorised.step

    @property
    def ratio(self) -> float | None:
        """The second over the first; 5 and more is usually called grokking."""
        if self.memorised is None or self.grokked is None or self.memorised.step == 0:
            return None
        return self.grokked.step / self.memorised.step


@dataclass(frozen=True)
class Phase:
    """A stretch of a training."""

    name: str
    """``"memorisation"``, ``"circuit formation"``, ``"clean-up"`` or ``"after"``."""
    start: Moment
    """Where it begins."""
    end: Moment | None
    """Where it ends; None if it lasts until the end of the curves."""


def first_reached(
    steps: CurveSteps,
    values: CurveValues,
    threshold: float,
    *,
    below: bool = False,
    hold: int = 1,
) -> Moment | None:
    """First evaluation from which a curve stays at or beyond a threshold for some evaluations.

    Args:
        steps: Steps of the evaluations, increasing.
        values: The curve.
        threshold: What to reach.
        below: Whether to fall to the threshold instead of rising to it.
        hold: Evaluations, this one included, over which it must stay; a curve that ends earlier has
            not reached it.

    Returns:
        The step, and the evaluation before as the lower end; None if it is never reached.

    Raises:
        ValueError: The steps do not increase, or hold is below 1.

    Example:
        >>> steps = torch.arange(0, 60, 10)
        >>> first_reached(steps, torch.tensor([0.1, 0.99, 0.3, 0.96, 0.97, 0.98]), 0.95, hold=3)
        Moment(step=30, low=20, high=30)
    """
    steps, values = as_curve(steps, values)
    if hold < 1:
        raise ValueError(f"hold is a number of evaluations from 1 up, but it is {hold}.")
    reached = (values <= threshold) if below else (values >= threshold)
    if len(values) < hold:
        return None
    held = reached.unfold(0, hold, 1).all(1).nonzero().flatten()
    if not len(held):
        return None
    i = int(held[0])
    step = int(steps[i])
    return Moment(step, int(steps[max(i - 1, 0)]), step)


def grok_times(
    steps: CurveSteps,
    train_accuracy: CurveValues,
    test_accuracy: CurveValues,
    *,
    memorised_at: float = 0.99,
    grokked_at: float = 0.95,
    hold: int = 5,
) -> GrokTimes:
    """When accuracies on training and on test pairs reach their thresholds.

    Args:
        steps: Steps of the evaluations, increasing.
        train_accuracy: On the training pairs, between 0 and 1.
        test_accuracy: On the test pairs.
        memorised_at: Training accuracy to reach once.
        grokked_at: Test accuracy to reach and keep.
        hold: For how many evaluations it must be kept: a slingshot touches it and falls back.

    Returns:
        Both times, with the evaluations before as their lower ends.

    Raises:
        ValueError: An accuracy or a threshold is not a share, such as a percentage, or a curve does
            not belong to the steps.

    Example:
        >>> steps = torch.arange(8)
        >>> train = torch.tensor([0.1, 0.5, 1, 1, 1, 1, 1, 1])
        >>> test = torch.tensor([0.1, 0.1, 0.1, 0.96, 0.97, 0.98, 0.99, 1.0])
        >>> times = grok_times(steps, train, test)
        >>> times.memorised.step, times.grokked.step, times.delay, times.ratio
        (2, 3, 1, 1.5)
    """
    for name, threshold in (("memorised_at", memorised_at), ("grokked_at", grokked_at)):
        if not 0 < threshold <= 1:
            raise ValueError(f"{name} must be a share, above 0 and at most 1, not {threshold}.")
    for name, curve in (("train_accuracy", train_accuracy), ("test_accuracy", test_accuracy)):
        at, values = as_curve(steps, curve, name)
        wrong = ((values < 0) | (values > 1)).nonzero().flatten()
        if len(wrong):
            i = int(wrong[0])
            raise ValueError(
                f"{name} must be shares between 0 and 1, but at step {int(at[i])} it is "
                f"{values[i].item():g}. Divide percentages by 100."
            )
    return GrokTimes(
        first_reached(steps, train_accuracy, memorised_at),
        first_reached(steps, test_accuracy, grokked_at, hold=hold),
    )


def grokking_phases(
    steps: CurveSteps,
    test_loss: CurveValues,
    excluded_loss: CurveValues,
    squared_norm: CurveValues,
    *,
    fall: float = 0.1,
    clean: float = 1e-3,
) -> list[Phase]:
    r"""Memorisation, circuit formation and clean-up, with how well each boundary is known.

    The source drew the boundaries by eye. Here

    - circuit formation begins where the logarithm of the excluded loss (on the training pairs) has
      its minimum: memorising still lowers it, circuits raise it. Low and high are the ends of the
      stretch around the minimum within the curve's own noise of it.
    - clean-up begins at the first evaluation from which, for five, the test loss lies below
      (1 − `fall`) times its running maximum and the squared norm of the weights falls faster than
      it did between the beginning of circuit formation and the first such fall of the test loss
      (median slope). Low and high vary `fall` by a factor of two.
    - clean-up ends where the test loss first reaches `clean`. Low and high vary `clean` by a factor
      of ten; without a high end in the curve it is the last step.

    Boundaries that are not found end the list: an unfinished training has fewer phases, and so has
    one whose norm fell faster right after memorisation than ever after, as it does where it had
    overshot. Curves must come from the same evaluations; look at them beside the phases, which any
    curve with a minimum and a fall will get.

    Args:
        steps: Steps of the evaluations, increasing.
        test_loss: In nats.
        excluded_loss: On the training pairs, in nats, with keys of the final network.
        squared_norm: Sum of squared weights.
        fall: Share of its maximum that the test loss must have lost.
        clean: Test loss at which clean-up is over, in nats.

    Returns:
        Phases in order; the last one lasts until the end.

    Raises:
        ValueError: The curves do not belong together, are too short, or not finite.

    Example:
        >>> steps = torch.arange(0, 1000, 10)
        >>> t = steps / 1000
        >>> excluded = torch.exp(-8 * t) + torch.exp(8 * (t - 0.9))
        >>> test = 5 * torch.sigmoid((0.8 - t) * 60) + 1e-5
        >>> norm = 3 - torch.sigmoid((t - 0.8) * 30)
        >>> found = grokking_phases(steps, test, excluded, norm)
        >>> [(phase.name, phase.start.step) for phase in found]
        [('memorisation', 0), ('circuit formation', 440), ('clean-up', 770), ('after', 950)]

    References:
        Nanda et al. (2023), "Progress measures for grokking via mechanistic interpretability",
        section 5.2, arXiv:2301.05217.
    """
    given = steps
    steps, test_loss = as_curve(given, test_loss, "test_loss", finite=True)
    _, excluded_loss = as_curve(given, excluded_loss, "excluded_loss", finite=True)
    _, squared_norm = as_curve(given, squared_norm, "squared_norm", finite=True)
    if len(steps) < 3 * _TREND:
        raise ValueError(
            f"phases need at least {3 * _TREND} evaluations to tell a trend from noise, but there "
            f"are {len(steps)}. Evaluate more often."
        )
    start = Moment(int(steps[0]), int(steps[0]), int(steps[0]))
    forming = _turning_point(steps, excluded_loss)
    phases = [Phase("memorisation", start, forming)]
    if forming is None:
        return phases
    cleaning = _cleanup_start(steps, test_loss, squared_norm, forming.step, fall)
    phases.append(Phase("circuit formation", forming, cleaning))
    if cleaning is None:
        return phases
    over = _cleanup_end(steps, test_loss, cleaning.step, clean)
    phases.append(Phase("clean-up", cleaning, over))
    return phases if over is None else [*phases, Phase("after", over, None)]


def _turning_point(steps: Tensor, excluded_loss: Tensor) -> Moment | None:
    """The minimum of the logarithm, if the curve rises again beyond its noise."""
    curve = _smooth(np.log(excluded_loss.double().clamp(min=1e-300).cpu().numpy()))
    noise = _noise(np.log(excluded_loss.double().clamp(min=1e-300).cpu().numpy()))
    i = int(curve.argmin())
    near = curve <= curve[i] + max(2 * noise, 0.02)
    if near[-1]:  # it has not risen again
        return None
    low = i - int((~near[: i + 1][::-1]).argmax()) + 1 if not near[: i + 1].all() else 0
    high = i + int((~near[i:]).argmax()) - 1
    return Moment(int(steps[i]), int(steps[low]), int(steps[high]))


def _cleanup_start(
    steps: Tensor, test_loss: Tensor, squared_norm: Tensor, forming: int, fall: float
) -> Moment | None:
    t = steps.double().cpu().numpy()
    loss = test_loss.double().cpu().numpy()
    slope = np.gradient(_smooth(squared_norm.double().cpu().numpy()), t)
    running = np.maximum.accumulate(loss)
    later = t >= forming

    def first(share: float) -> int | None:
        fallen = later & (loss < (1 - share) * running)
        if not fallen.any():
            return None
        before = later & (t <= t[fallen.argmax()])
        faster = slope < min(float(np.median(slope[before])), 0.0)
        held = torch.from_numpy(fallen & faster).unfold(0, _TREND, 1).all(1).nonzero().flatten()
        return int(held[0]) if len(held) else None

    found = [first(share) for share in (fall / 2, fall, min(2 * fall, 0.99))]
    if found[1] is None:
        return None
    known = [i for i in found if i is not None]
    return Moment(int(steps[found[1]]), int(steps[min(known)]), int(steps[max(known)]))


def _cleanup_end(steps: Tensor, test_loss: Tensor, cleaning: int, clean: float) -> Moment | None:
    after = steps >= cleaning
    t, loss = steps[after], test_loss[after]
    moments = [first_reached(t, loss, x, below=True) for x in (10 * clean, clean, clean / 10)]
    early, over, late = moments
    if over is None:
        return None
    low = over.low if early is None else early.step
    return Moment(over.step, low, int(steps[-1]) if late is None else late.step)


def _smooth(curve: np.ndarray) -> np.ndarray:
    """Running median: keeps trends and steps, drops single spikes."""
    from scipy.ndimage import median_filter

    return median_filter(curve, size=_TREND, mode="nearest")


def _noise(curve: np.ndarray) -> float:
    """Standard deviation of independent noise on a smooth curve, from second differences."""
    second = np.diff(curve, 2)
    return float(1.4826 * np.median(np.abs(second - np.median(second))) / np.sqrt(6))
