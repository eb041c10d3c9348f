"""The leading component of a run's weights taken out of the network, beside controls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

import phasescope as ps
from phasescope.experiments.grokking.config import Config
from phasescope.experiments.grokking.training import network_at, task_of
from phasescope.interventions import ablate
from phasescope.training import cross_entropy_float64

ALPHAS = (0.0, 0.5, 1.0, 2.0)
N_CONTROLS = 20
MEASURED = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")


def subtractions(
    config: Config,
    run: ps.Run,
    vectors: Mapping[str, Float[Tensor, "k P"]],
    events: Mapping[str, int | None],
) -> dict[str, Any]:
    """Losses without component 0 of the weights' spectrum, at the end and on the plateau.

    The plateau is the kept step nearest to the geometric mean of memorisation and grokking: there
    test pairs are still wrong, and taking the memory out could help.

    Args:
        config: The run's configuration.
        run: Its recording.
        vectors: Leading directions of the weights, by centring.
        events: Steps of ``"memorised"`` and ``"grokked"``.
    """
    steps = run["weights"].steps
    rows = {"end": len(steps) - 1}
    memorised, grokked = events.get("memorised"), events.get("grokked")
    if memorised and grokked:
        middle = math.sqrt(memorised * grokked)
        rows["plateau"] = int(abs(steps - middle).argmin())
    found: dict[str, Any] = {}
    for name, V in vectors.items():
        for place, row in rows.items():
            found[f"{name}, {place}"] = without_component(config, run, V, row) | {
                "step": int(steps[row])
            }
    return found


def without_component(
    config: Config, run: ps.Run, vectors: Float[Tensor, "k P"], row: int
) -> dict[str, Any]:
    """Losses at one row of the weights with component 0 of their displacement taken out.

    Controls move the weights as far along random directions: of all parameters, and of the span
    of all given components.

    Args:
        config: The run's configuration.
        run: Its recording.
        vectors: Leading directions of the weights; component 0 first.
        row: Row of the weights.
    """
    task, split = task_of(config)
    examples = [task.examples(rows) for rows in (split.train, split.test)]
    start = torch.from_numpy(run["weights"][0:1][0])

    def losses(model: nn.Module) -> Float[Tensor, " c"]:
        with torch.no_grad():
            outputs = [(model(pairs), labels) for pairs, labels in examples]
        loss = [cross_entropy_float64(y, labels).mean() for y, labels in outputs]
        right = [(y.argmax(-1) == labels).double().mean() for y, labels in outputs]
        return torch.stack([*loss, *right])

    # Orthonormal up to the rounding of the products that they come from.
    span = ps.Subspace.spanned_by("all components", vectors)
    found = ablate(
        network_at(config, run, row),
        start,
        ps.Subspace("component 0", span.basis[:1]),
        losses,
        alphas=ALPHAS,
        n_controls=N_CONTROLS,
        within=span,
        seed=config.seed,
    )
    return {
        "alphas": list(ALPHAS),
        "values": found.values.tolist(),
        "controls": found.controls.median(0).values.tolist(),
        "controls_within": found.controls_within.median(0).values.tolist(),
        "removed": found.removed / found.displacement,
    }
