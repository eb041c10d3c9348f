"""Fine-tuning to a solution that no straight line of low loss joins to where it began."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from phasescope.analysis.connectivity import State
from phasescope.interventions.descent import Descent, loss_value


@dataclass(frozen=True, eq=False)
class FineTuning:
    """What fine-tuning away from a model led to."""

    state: dict[str, Tensor] = field(repr=False)
    """The fine-tuned state."""
    losses: Float64[Tensor, " steps"]
    """Loss of the state at every step."""
    between: Float64[Tensor, " steps"]
    """Loss at the place between the start and the state that was drawn in every step."""
    t: Float64[Tensor, " steps"]
    """The places: 1 is the start."""


def fine_tune_away(
    loss: Callable[[dict[str, Tensor], Any], Tensor],
    start: State,
    batches: Iterable[Any],
    *,
    level: float | None,
    between: Callable[[dict[str, Tensor], Any], Tensor] | None = None,
    trained: Sequence[str] | None = None,
    lr: float = 0.01,
    momentum: float = 0.9,
    schedule: Callable[[int], float] | None = None,
    seed: int = 0,
) -> FineTuning:
    r"""Connectivity-based fine-tuning: keep the loss low here and high on the way from the start.

    In every step, first $|K - L(t\,\theta_0 + (1-t)\,\theta)|$ is descended with respect to
    $\theta$, where $t = \tfrac12 + \tfrac12 c$ and c is normal, clipped to ±½; then
    $L(\theta)$. Each has a velocity of its own. The original adds a term over classes, which
    `between` and `loss` may contain; its `K` is 1 nat.

    Args:
        loss: Scalar loss of a state and a batch, to be low at the end.
        start: $\theta_0$, where it begins; not changed.
        batches: One for each step.
        level: K, the loss that is wanted on the way; None leaves the first descent out. That is the
            control: training on with the same batches, learning rate and momentum.
        between: Loss on the way, where it is another one (of inputs with a cue, in the original).
        trained: Names of the tensors to train; by default all floating-point numbers.
        lr: Learning rate of both steps.
        momentum: Share of the velocities that is kept.
        schedule: Factor of the learning rate at each step, counted from 0. Too small a rate never
            leaves the start, where both gradients nearly vanish: check that a barrier is there.
        seed: Of the places.

    Returns:
        The state and what happened.

    Raises:
        ValueError: There is no batch, a loss is not finite, or `level` is negative.
        TypeError: A loss is no tensor of one number.

    Example:
        >>> double_well = lambda state, batch: (state["w"].square() - 1).square().mean()
        >>> start = {"w": torch.tensor([-1.0])}
        >>> found = fine_tune_away(double_well, start, [None] * 500, level=1.0, lr=0.02, seed=3)
        >>> found.losses.shape
        torch.Size([500])

    References:
        Lubana et al. (2022), "Mechanistic mode connectivity", arXiv:2211.08422, section 5.
    """
    if level is not None and not level >= 0:
        raise ValueError(
            f"level, the loss that is wanted on the way, must not be negative, but it is {level}."
        )
    origin = {n: v.detach() for n, v in start.items()}
    descent = Descent(dict(start), names=trained, lr=lr, momentum=momentum)
    apart = Descent(dict(start), names=trained, lr=lr, momentum=momentum)
    apart.theta = descent.theta  # one state, two velocities
    generator = torch.Generator().manual_seed(seed)
    on_the_way = loss if between is None else between
    losses, middles, places = [], [], []
    for step, batch in enumerate(batches):
        c = torch.randn((), generator=generator).clamp(-0.5, 0.5).item()
        t = 0.5 + 0.5 * c
        descent.lr = apart.lr = lr * (1.0 if schedule is None else schedule(step))
        state = descent.state()
        point = {
            n: torch.lerp(v, origin[n], t) if v.is_floating_point() else v for n, v in state.items()
        }
        value = on_the_way(point, batch)
        middles.append(loss_value(value, f"between the start and step {step}", lr))
        if level is not None:
            apart.step((level - value).abs(), f"between the start and step {step}")
        losses.append(descent.step(loss(descent.state(), batch), f"at step {step}"))
        places.append(t)
    if not losses:
        raise ValueError("at least one batch is required, but there is none.")
    return FineTuning(
        descent.detached(),
        *(torch.tensor(v, dtype=torch.float64) for v in (losses, middles, places)),
    )
