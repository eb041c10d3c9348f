"""How large Adam's steps are, and whether its ε decides them.

Letters: P parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class AdamScales:
    """Scales of one Adam update."""

    gradient_norm: float
    """Euclidean norm of the gradient."""
    root_second_moment: float
    """Median over parameters of √v̂, the bias-corrected scale that the update is divided by."""
    share_below_epsilon: float
    """Share of parameters with √v̂ < ε: there the update is not normalised but ∝ m̂."""
    normalised: float
    """Root mean square of m̂/(√v̂ + ε): at most about 1; near 0 the gradients cancel or ε rules."""
    step_norm: float
    """Euclidean norm of the update without decoupled decay: learning rate × that, over all."""


def adam_scales(
    gradient: Float[Tensor, "*P"],
    first_moment: Float[Tensor, "*P"],
    second_moment: Float[Tensor, "*P"],
    *,
    step: int,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
) -> AdamScales:
    r"""Scales of an Adam update from the optimizer's state just after it.

    The hypothesis about spikes is that they begin when √v̂ comes down to ε: then the step per unit
    of gradient, $\eta/(\sqrt{\hat v}+\epsilon)$, is as large as it can be. Follow these scales over
    steps and cut them out around spikes with `around_spikes`; vary ε and β₂ to test it.

    Args:
        gradient: What the optimizer consumed.
        first_moment: ``exp_avg`` after the update.
        second_moment: ``exp_avg_sq`` after the update.
        step: Number of updates, this one included, from 1 up.
        learning_rate: η of this update.
        betas: Decay rates of the moments.
        epsilon: ε.

    Returns:
        The scales, in float64.

    Raises:
        ValueError: The step is below 1, or a second moment is negative.

    Example:
        >>> import torch
        >>> g = torch.tensor([1e-3, -1e-9])
        >>> scales = adam_scales(g, 0.1 * g, 1e-3 * g**2, step=1, learning_rate=0.01)
        >>> scales.share_below_epsilon, round(scales.step_norm, 5)
        (0.5, 0.01004)

    References:
        Kingma and Ba (2015), "Adam: a method for stochastic optimization", algorithm 1,
        arXiv:1412.6980.
    """
    if step < 1:
        raise ValueError(f"step counts updates from 1 up, this one included, but it is {step}.")
    v = second_moment.double()
    if bool((v < 0).any()):
        raise ValueError(
            f"a second moment cannot be negative, but its minimum is {v.min().item():.3g}. Pass "
            "exp_avg_sq of the optimizer's state."
        )
    m_hat = first_moment.double() / (1 - betas[0] ** step)
    root = (v / (1 - betas[1] ** step)).sqrt()
    normalised = m_hat / (root + epsilon)
    return AdamScales(
        gradient_norm=gradient.double().norm().item(),
        root_second_moment=root.median().item(),
        share_below_epsilon=(root < epsilon).double().mean().item(),
        normalised=normalised.square().mean().sqrt().item(),
        step_norm=learning_rate * normalised.norm().item(),
    )
