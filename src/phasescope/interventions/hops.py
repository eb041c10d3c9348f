"""How hard a model must be pulled to leave its basin for that of another one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from phasescope.analysis.connectivity import State, check_alike, state_distance
from phasescope.interventions.descent import Descent


@dataclass(frozen=True)
class HopTrial:
    """One pull and release."""

    strength: float
    """How hard it was pulled."""
    landed: bool
    """Whether it stayed in the basin of the target."""
    distance: float
    """Euclidean distance from the target after the release."""


@dataclass(frozen=True)
class HopStrength:
    """The smallest pull that moves a model into another basin."""

    value: float
    """0 where no pull is needed, infinity where the strongest one does not suffice; else the
    geometric mean of the weakest pull that succeeds and the strongest below it that does not."""
    fails: float
    """The strongest pull below all successful ones; 0 if not even no pull fails."""
    succeeds: float
    """The weakest pull that succeeds; infinity if none does."""
    trials: tuple[HopTrial, ...]
    """All pulls in the order they were tried."""


def pulled(
    loss: Callable[[dict[str, Tensor], Any], Tensor],
    start: State,
    target: State,
    batches: Iterable[Any],
    *,
    strength: float,
    n_pull: int,
    n_release: int,
    lr: float = 0.01,
    momentum: float = 0.0,
) -> dict[str, Tensor]:
    r"""A model that was trained with a pull towards a target, and then without it.

    For `n_pull` steps $L(\theta) + \lambda\,\|\theta - \theta_B\|^2$ is descended, then for
    `n_release` steps $L$ alone. The pull is a proximal step after that of the gradient, which is
    stable however strong it is.

    Args:
        loss: Scalar loss of a state and a batch.
        start: Where it begins; not changed.
        target: Where it is pulled; permute it first where that is meant.
        batches: One for every step of both phases.
        strength: $\lambda$.
        n_pull: Steps with the pull.
        n_release: Steps without it.
        lr: Learning rate.
        momentum: Share of the velocity that is kept.

    Returns:
        The state after the release.

    Raises:
        ValueError: The states are of different models, there are too few batches, or the loss is
            not finite.

    Example:
        >>> import torch
        >>> bowl = lambda state, batch: state["w"].square().sum()
        >>> ends = {"w": torch.ones(1)}, {"w": torch.full((1,), 3.0)}
        >>> end = pulled(bowl, *ends, [None] * 200, strength=1.0, n_pull=200, n_release=0, lr=0.1)
        >>> round(end["w"].item(), 1)  # between 0 and 3, where the forces balance
        1.5
    """
    check_alike(start, target)
    n_steps = n_pull + n_release
    descent = Descent(dict(start), lr=lr, momentum=momentum)
    goal = {n: v.detach() for n, v in target.items()}
    done = 0
    for step, batch in enumerate(itertools.islice(batches, n_steps)):
        descent.step(loss(descent.state(), batch), f"at step {step} of a pull of {strength:g}")
        if step < n_pull:
            descent.pull(goal, strength)
        done += 1
    if done < n_steps:
        raise ValueError(f"{n_steps} batches are required, but there are {done}.")
    return descent.detached()


def hop_strength(
    loss: Callable[[dict[str, Tensor], Any], Tensor],
    start: State,
    target: State,
    batches: Callable[[], Iterable[Any]],
    landed: Callable[[dict[str, Tensor]], bool],
    *,
    n_pull: int,
    n_release: int,
    low: float = 1e-5,
    high: float = 10.0,
    precision: float = 1.2,
    lr: float = 0.01,
    momentum: float = 0.0,
) -> HopStrength:
    r"""The smallest pull that moves a model from its basin into another one, by bisection.

    First no pull at all is tried: where a model lands without one (it lies in that basin already),
    the strength is 0. Then the strongest, and then the geometric mean of the bracket, until its
    ends differ by less than the factor `precision`. Pulls far apart need not behave monotonously
    with noisy batches: the trials are all kept.

    Compare it with its nulls: a pair of one basin (0), random targets as far away
    (`random_target`), and the way back, whose difference is the hysteresis.

    Args:
        loss: Scalar loss of a state and a batch.
        start: Where every pull begins.
        target: Where it goes.
        batches: Called once for each trial: its batches, ``n_pull + n_release`` or more.
        landed: Whether a released state lies in the target's basin; such as a barrier between them
            below a tolerance, together with a property of the target.
        n_pull: Steps with the pull.
        n_release: Steps without it.
        low: The weakest pull that is tried.
        high: The strongest one.
        precision: Factor between the ends of the final bracket.
        lr: Learning rate.
        momentum: Share of the velocity that is kept.

    Returns:
        The strength and all trials.

    Raises:
        ValueError: The bracket is none, or as in `pulled`.
        TypeError: `landed` returns a number instead of True or False, or `batches` is no function.

    Example:
        >>> import torch
        >>> double_well = lambda state, batch: (state["w"].square() - 1).square().sum()
        >>> ends = {"w": torch.tensor([-1.0])}, {"w": torch.tensor([1.0])}
        >>> found = hop_strength(
        ...     double_well, *ends, lambda: [None] * 400, lambda s: s["w"].item() > 0.5,
        ...     n_pull=300, n_release=100, lr=0.05,
        ... )
        >>> 0.45 < found.value < 0.65  # half of the barrier's height
        True
    """
    if not 0 < low < high or precision <= 1:
        raise ValueError(
            "0 < low < high and a precision above 1 are required, but low, high and precision are "
            f"{low}, {high} and {precision}."
        )
    if not callable(batches):
        raise TypeError(
            "batches must be a function that returns the batches of one trial, but a "
            f"{type(batches).__name__} arrived. Pass lambda: batches, if all trials are to see the "
            "same ones."
        )
    trials: list[HopTrial] = []

    def succeeds(strength: float) -> bool:
        end = pulled(
            loss,
            start,
            target,
            batches(),
            strength=strength,
            n_pull=n_pull,
            n_release=n_release,
            lr=lr,
            momentum=momentum,
        )
        answer = landed(end)
        if isinstance(answer, Tensor | np.ndarray | np.generic):
            answer = answer.item()
        if not isinstance(answer, bool):
            # A barrier of .3 would count as true.
            raise TypeError(
                "landed must say True or False of a state, but it returned "
                f"{answer!r}. Compare the barrier with a tolerance: barrier <= tolerance."
            )
        trials.append(HopTrial(strength, answer, state_distance(end, target)))
        return trials[-1].landed

    if succeeds(0.0):
        return HopStrength(0.0, 0.0, 0.0, tuple(trials))
    if not succeeds(high):
        return HopStrength(math.inf, high, math.inf, tuple(trials))
    fails = low
    if succeeds(low):
        return HopStrength(low, 0.0, low, tuple(trials))
    while high / fails > precision:
        middle = math.sqrt(fails * high)
        if succeeds(middle):
            high = middle
        else:
            fails = middle
    return HopStrength(math.sqrt(fails * high), fails, high, tuple(trials))
