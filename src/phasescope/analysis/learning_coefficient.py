"""The local learning coefficient: how degenerate the loss is around the weights of a model.

Letters: P parameters, n examples, D draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.func import grad_and_value, vmap

from phasescope.analysis.flat_loss import FlatLoss, Loss
from phasescope.analysis.intervals import Interval, interval
from phasescope.parameters import Component


@dataclass(frozen=True, eq=False)
class LearningCoefficient:
    """An estimate of the local learning coefficient, and what it was made of."""

    value: float
    """nβ times the mean excess of the loss: the mean over the chains."""
    interval: Interval | None
    """Of the mean over chains; None for a single one."""
    per_chain: Float64[Tensor, " chains"]
    """The estimate of each chain."""
    losses: Float64[Tensor, "chains D"]
    """Loss of every draw, those before `n_burn_in` included: a drift says that more are needed."""
    initial_loss: float
    """Loss at the weights themselves."""
    acceptance: Float64[Tensor, " chains"]
    """Mean probability with which a Metropolis test would have let a step pass: 1 in the limit of
    small steps. Far below, the step is too large; it is exact only if the loss is the same at every
    call."""


def local_learning_coefficient(
    loss: Loss,
    parameters: Mapping[str, Tensor],
    *,
    n_examples: int,
    step_size: float = 1e-4,
    localization: float = 100.0,
    inverse_temperature: float | None = None,
    component: Component | None = None,
    n_chains: int = 4,
    n_draws: int = 500,
    n_burn_in: int = 100,
    seed: int = 0,
) -> LearningCoefficient:
    r"""The local learning coefficient λ̂ of a model's weights, by Langevin dynamics around them.

    With the mean loss $L$ over n examples and the inverse temperature $n\beta$,

    .. math:: \hat\lambda = n\beta\,\big(\mathbb E_w[L(w)] - L(w^*)\big),\quad
        w \leftarrow w - \tfrac\epsilon2\big(n\beta\nabla L(w) + \gamma (w - w^*)\big)
        + \mathcal N(0, \epsilon).

    A regular minimum of P parameters has λ = P/2; flat and singular directions count less, so that
    λ is half an effective number of parameters. All chains run as one batch.

    Misleads where the weights are no minimum (the estimate may be negative), where γ holds back
    what the loss leaves free (a direction of curvature h counts $\tfrac12\,n\beta h/(n\beta h +
    \gamma)$), and where steps are too large or too few: look at `acceptance` and `losses`, and vary
    `step_size` and `localization` before comparing numbers. Compare only estimates that were made
    with the same of all three.

    Args:
        loss: Scalar mean loss of parameters by name, all or a batch of the examples; it runs under
            `torch.func.vmap`. To draw batches, index with `torch.randint` inside it.
        parameters: The weights w*, such as ``dict(model.named_parameters())``; not changed. What is
            no parameter (buffers, data) is bound in the loss.
        n_examples: n of the loss.
        step_size: ε.
        localization: γ, which keeps the chains near w*.
        inverse_temperature: nβ; by default n / ln n.
        component: Moves these entries of the flat parameters only, such as one head: the
            weight-refined coefficient.
        n_chains: Independent chains.
        n_draws: Steps of each chain.
        n_burn_in: First steps that are not averaged over.
        seed: Of the noise.

    Returns:
        The estimate.

    Raises:
        ValueError: An argument is out of range, a parameter is no floating-point tensor, the
            component is not one of these parameters, or a chain diverged.

    Example:
        >>> def loss(w):
        ...     return (w["x"] ** 2).sum() / 2
        >>> found = local_learning_coefficient(
        ...     loss, {"x": torch.zeros(10)}, n_examples=1000, localization=1.0, step_size=1e-3)
        >>> round(found.value)  # 10 parameters, each half
        5

    References:
        Lau et al. (2023), "The local learning coefficient: a singularity-aware complexity measure",
        arXiv:2308.12108, section 4; Wang et al. (2024), arXiv:2410.02984 (refined by component).
    """
    temperature = _checked(n_examples, inverse_temperature, n_chains, n_draws, n_burn_in)
    for name, value in (("step_size", step_size), ("localization", localization)):
        if not (value > 0 or (name == "localization" and value == 0)) or math.isinf(value):
            raise ValueError(f"{name} must be positive and finite, but it is {value}.")
    flat = FlatLoss(loss, parameters)
    start = flat.start
    moves = flat.mask(component)
    generator = torch.Generator(start.device).manual_seed(seed)
    gradient = vmap(grad_and_value(flat), randomness="different")

    def at(w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Force, energy and loss: the energy is that of the loss and of the pull."""
        g, values = gradient(w)
        values, away = values.double(), w - start
        energy = temperature * values + localization / 2 * away.double().square().sum(1)
        return (temperature * g + localization * away) * moves, energy, values

    initial_loss = flat(start).item()
    w = start.expand(n_chains, -1).clone()
    force, energy, _ = at(w)
    losses = torch.empty(n_chains, n_draws, dtype=torch.float64)
    accepted = torch.zeros(n_chains, dtype=torch.float64)
    for draw in range(n_draws):
        noise = torch.randn(w.shape, generator=generator, dtype=w.dtype, device=w.device) * moves
        new = w - step_size / 2 * force + math.sqrt(step_size) * noise
        new_force, new_energy, values = at(new)
        if not torch.isfinite(values).all():
            raise ValueError(
                f"every draw needs a finite loss, but a chain diverged at draw {draw} with "
                f"step_size={step_size}. Use a smaller step_size, or a larger localization."
            )
        there = _log_density(new, w, force, step_size)
        back = _log_density(w, new, new_force, step_size)
        accepted += (energy - new_energy + back - there).clamp(max=0).exp().cpu()
        losses[:, draw] = values.cpu()
        w, force, energy = new, new_force, new_energy
    per_chain = temperature * (losses[:, n_burn_in:].mean(1) - initial_loss)
    return LearningCoefficient(
        value=per_chain.mean().item(),
        interval=interval(per_chain) if n_chains > 1 else None,
        per_chain=per_chain,
        losses=losses,
        initial_loss=initial_loss,
        acceptance=accepted / n_draws,
    )


def _log_density(
    end: Tensor, start: Tensor, force: Tensor, step_size: float
) -> Float64[Tensor, " chains"]:
    """Log density of a step's end, given its start and the force there, up to a constant."""
    return -(end - start + step_size / 2 * force).double().square().sum(1) / (2 * step_size)


def _checked(
    n_examples: int,
    inverse_temperature: float | None,
    n_chains: int,
    n_draws: int,
    n_burn_in: int,
) -> float:
    """The inverse temperature nβ, once the numbers are in range."""
    if n_examples < 2 or n_chains < 1 or not 0 <= n_burn_in < n_draws:
        raise ValueError(
            "at least 2 examples, 1 chain, and more draws than burn-in are required, but "
            f"n_examples={n_examples}, n_chains={n_chains}, n_draws={n_draws} and "
            f"n_burn_in={n_burn_in} arrived."
        )
    if inverse_temperature is None:
        return n_examples / math.log(n_examples)
    if not 0 < inverse_temperature < math.inf:
        raise ValueError(
            f"inverse_temperature must be positive and finite, but it is {inverse_temperature}."
        )
    return inverse_temperature
