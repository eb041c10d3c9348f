"""Trainings without a phase: power laws and regressions; and spikes that were planted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

import phasescope as ps
from phasescope.datasets import KnownEvent
from phasescope.experiments.phase_detection.modular import N_RECORDS
from phasescope.experiments.phase_detection.system import Params, System, tensor_squares
from phasescope.training import EnsembleOptimizer, EnsembleSGD, ensemble_gradients


def regression_system(
    name: str,
    seeds: Sequence[int],
    *,
    d: int = 200,
    spectrum: float = 1.5,
    noise: float = 0.1,
    batch_size: int | None = None,
    rate_drops: Sequence[int] = (),
    n_steps: int = 4000,
) -> System:
    """Linear regression by gradient descent, whose loss can do nothing but relax.

    The i-th input has variance i to minus `spectrum` and the true coefficients are normal: with
    1.5 the excess loss is a power law in time, with 0 an exponential. Components are five slices of
    the inputs, equally many in each.

    Args:
        name: Of the system.
        seeds: One regression each.
        d: Inputs.
        spectrum: Exponent of the variances.
        noise: Standard deviation of the targets' noise.
        batch_size: Rows of a fresh batch per step; None for the exact gradient.
        rate_drops: Steps at which the learning rate falls to a fifth.
        n_steps: Updates.
    """
    variance = torch.arange(1, d + 1).float() ** -spectrum
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    true = torch.stack([torch.randn(d, 1, generator=g) for g in generators])
    params = {"w": torch.zeros(len(seeds), d, 1)}
    offset = noise**2 / 2

    def exact(params: Params) -> Tensor:
        return ((params["w"] - true).square().squeeze(-1) * variance).sum(1) / 2 + offset

    def gradients(params: Params, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        error = params["w"] - true
        if batch_size is None:
            return exact(params), {"w": error * variance[:, None]}
        x = torch.stack([torch.randn(batch_size, d, generator=g) for g in generators])
        x = x * variance.sqrt()
        e = torch.stack([noise * torch.randn(batch_size, 1, generator=g) for g in generators])
        residual = x @ error - e
        return residual.square().mean((1, 2)) / 2, {"w": x.mT @ residual / batch_size}

    def squares(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        parts = tensors["w"].squeeze(-1).square().split(d // 5, 1)
        return {f"inputs {i + 1}": part.sum(1) for i, part in enumerate(parts)}

    drops = tuple(rate_drops)
    rate = 0.5 if batch_size is None else 0.5 * batch_size / (batch_size + float(variance.sum()))
    return System(
        name,
        params,
        gradients,
        EnsembleSGD(rate, schedule=lambda step: 0.2 ** sum(step >= drop for drop in drops)),
        n_steps,
        ps.log_spaced(N_RECORDS).steps(n_steps),
        squares,
        lambda params: {"test_loss": exact(params)},
        rate_changes=drops,
    )


class Kicked:
    """An optimizer that takes one tensor's update far too long at planted steps.

    Args:
        optimizer: What updates otherwise.
        kicks: Step and name of the tensor of every seed's kicks.
        size: Length of a kick, in norms of the tensor.
    """

    def __init__(
        self,
        optimizer: EnsembleOptimizer,
        kicks: Sequence[Sequence[tuple[int, str]]],
        size: float,
    ) -> None:
        self._optimizer, self._kicks, self._size, self._step = optimizer, kicks, size, 0

    def update(self, params: Params, grads: Mapping[str, Tensor]) -> None:
        """One step."""
        now = [
            (i, tensor)
            for i, own in enumerate(self._kicks)
            for step, tensor in own
            if step == self._step
        ]
        before = {tensor: params[tensor].clone() for _, tensor in now}
        self._optimizer.update(params, grads)
        for i, tensor in now:
            old = before[tensor][i]
            update = params[tensor][i] - old
            params[tensor][i] = old + update * (self._size * old.norm() / update.norm())
        self._step += 1

    def state_dict(self) -> dict[str, Tensor]:
        """That of the optimizer."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """That of the optimizer."""
        self._optimizer.load_state_dict(state)


def spikes_system(
    name: str,
    seeds: Sequence[int],
    *,
    d: int = 10,
    width: int = 32,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    n_kicks: int = 3,
    size: float = 0.3,
    n_steps: int = 1200,
) -> System:
    """A tanh network of three layers learns a random one of its kind; single updates go wrong.

    At `n_kicks` steps of every seed the update of one tensor is `size` times as long as the tensor,
    as a bad batch or an overflow makes it: the loss spikes and comes back. Recorded at even steps.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    shapes = {"W1": (d, width), "W2": (width, width), "W3": (width, 1)}

    def network(g: torch.Generator) -> dict[str, Tensor]:
        return {n: torch.randn(shape, generator=g) / shape[0] ** 0.5 for n, shape in shapes.items()}

    drawn = [(network(g), network(g)) for g in generators]
    teacher, params = (
        {n: torch.stack([pair[j][n] for pair in drawn]) for n in shapes} for j in (0, 1)
    )
    kicks, planted = [], []
    part = (n_steps - n_steps // 10) // n_kicks  # one kick in each, and room to come back
    for seed in seeds:
        rng = np.random.default_rng(seed)
        own = []
        for i in range(n_kicks):
            step = n_steps // 10 + part * i + int(rng.integers(0, part - 60))
            own.append((step - step % 2, str(rng.choice(list(shapes)))))
        kicks.append(own)
        planted.append(
            [KnownEvent("spike", step, step + 1, step + 2, (tensor,)) for step, tensor in own]
        )

    def outputs(params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return ((x @ params["W1"]).tanh() @ params["W2"]).tanh() @ params["W3"]

    def draw(n: int) -> Tensor:
        return torch.stack([torch.randn(n, d, generator=g) for g in generators])

    held_out = draw(512)

    def loss(params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return (outputs(params, x) - outputs(teacher, x)).square().mean((1, 2))

    return System(
        name,
        params,
        ensemble_gradients(lambda params, step: loss(params, draw(batch_size))),
        Kicked(EnsembleSGD(learning_rate), kicks, size),
        n_steps,
        range(0, n_steps, 2),
        tensor_squares,
        lambda params: {"test_loss": loss(params, held_out)},
        planted=planted,
    )
