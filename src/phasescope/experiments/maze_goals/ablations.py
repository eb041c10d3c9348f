"""Taking early and late components out of a trained agent, beside everything as far away.

Every control moves the weights by the same distance as the ablation of the same strength does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

import phasescope as ps
from phasescope.interventions import AtWeights, ablate, ablated, flat_weights

ALPHAS = (0.5, 1.0, 2.0)
"""Strengths: 1 takes the components out, 2 reverses what training did along them."""
N_RANDOM = 5
"""Random directions of each kind."""
RANDOM, WITHIN, SHRINK, REWIND, OTHER, FROZEN = (
    "random directions",
    "random directions among the leading ones",
    "the whole displacement shrunk",
    "an earlier checkpoint",
    "another run's directions",
    "a frozen policy's directions",
)
CONTROLS = (RANDOM, WITHIN, SHRINK, REWIND, OTHER, FROZEN)

Measure = Callable[[nn.Module], Float64[Tensor, " measure"]]


@dataclass(frozen=True)
class Trained:
    """An agent and what its controls need."""

    model: nn.Module
    """The trained policy."""
    start: Float[Tensor, " P"]
    """Its weights before the training."""
    checkpoints: Float[Tensor, "n P"]
    """Its recorded weights."""
    measure: Measure
    """What is measured of it."""


def ablation(
    trained: Trained,
    part: ps.Subspace,
    leading: ps.Subspace,
    others: dict[str, ps.Subspace | None],
    *,
    seed: int,
) -> dict[str, Any]:
    """Measures at growing strengths of an ablation and of its controls, as plain JSON.

    Args:
        trained: The agent.
        part: What to take out.
        leading: The subspace that the part belongs to, for random directions within.
        others: Subspaces of other trajectories, by the name of the control; None where that one
            has no such components.
        seed: Of the random directions.
    """
    found = ablate(
        trained.model,
        trained.start,
        part,
        trained.measure,
        alphas=ALPHAS,
        n_controls=N_RANDOM,
        within=leading,
        seed=seed,
    )
    end = flat_weights(trained.model)
    controls = {RANDOM: found.controls.mean(0), WITHIN: found.controls_within.mean(0)}
    directions = {SHRINK: end - trained.start}
    for name, subspace in others.items():
        if subspace is not None:
            directions[name] = end - ablated(trained.start, end, subspace)
    for name, direction in directions.items():
        unit = direction / direction.norm()
        at = [end - alpha * found.removed * unit for alpha in ALPHAS]
        controls[name] = _measured(trained, at)
    distances = (trained.checkpoints - end).norm(dim=1)
    nearest = [int((distances - alpha * found.removed).abs().argmin()) for alpha in ALPHAS]
    controls[REWIND] = _measured(trained, [trained.checkpoints[i] for i in nearest])
    return {
        "n_directions": len(part.basis),
        "removed": found.removed / found.displacement,
        "values": _rounded(found.values),
        "controls": {name: _rounded(controls[name]) for name in CONTROLS if name in controls},
    }


def _measured(trained: Trained, weights: list[Tensor]) -> Float64[Tensor, "m measure"]:
    return torch.stack([trained.measure(AtWeights(trained.model, w)) for w in weights])


def _rounded(values: Tensor) -> list[list[float]]:
    return [[round(x, 5) for x in row] for row in values.tolist()]
