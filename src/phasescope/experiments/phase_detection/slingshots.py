"""Slingshots of a memorising transformer under Adam in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from phasescope.datasets import modular_task
from phasescope.experiments.phase_detection.modular import Table, Transformers
from phasescope.experiments.phase_detection.system import (
    Params,
    Progress,
    System,
    bursts,
    tensor_squares,
)
from phasescope.training import EnsembleAdam, ensemble_gradients

EVERY = 4  # steps between records
TURN = "turn of the representation since the record before"
# Turn from which it is a burst. In pilots (seeds from 100 up) slingshots passed 5e-3, and between
# them it stayed below 3e-4.
FAST = 1e-3
FEATURES = "blocks.0.hook_resid_post"


class Turning:
    """How far each seed's representation of all pairs has turned since the call before.

    One less the cosine between the residual streams in front of the unembedding, all pairs in one
    vector: neither losses nor norms of weights, gradients or updates enter.
    """

    def __init__(self) -> None:
        self._now: Tensor | None = None
        self._before: Tensor | None = None

    def hook(self, name: str, value: Tensor) -> None:
        """Take in the representation."""
        if name == FEATURES:
            self._before, self._now = self._now, value.flatten(1).double()

    def turn(self) -> Tensor:
        """Between 0 and 2; 0 at the first call."""
        if self._now is None or self._before is None:
            return torch.zeros(0 if self._now is None else len(self._now), dtype=torch.float64)
        return 1 - torch.cosine_similarity(self._now, self._before, dim=1)


def slingshots_system(
    name: str,
    seeds: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    p: int = 13,
    d_model: int = 32,
    d_mlp: int = 128,
    fraction: float = 0.6,
    learning_rate: float = 5e-3,
    n_steps: int = 2000,
) -> System:
    """A one-layer transformer memorises with Adam and without decay, and is slung about.

    The training loss sinks towards 1e-7, the last layer grows, the loss leaps by many orders within
    some ten steps, the representation turns, and it begins again about every 870 steps. With the
    same initial weights, pairs and settings in float64 (the system `slingshots_float64`) the loss
    goes on to sink and there is no burst: the rounding of float32 makes these slingshots. An event
    is a burst of the turning; where it takes place is not said. Components are the weight matrices.

    Args:
        name: Of the system.
        seeds: One network each.
        dtype: Of weights and losses.
        p: Operands of the addition.
        d_model: Width of the residual stream.
        d_mlp: Neurons.
        fraction: Share of the pairs that are trained on.
        learning_rate: Of Adam.
        n_steps: Updates.

    References:
        Thilak et al. (2022), "The slingshot mechanism", arXiv:2206.04817. Prieto et al. (2025),
        "Grokking at the edge of numerical stability", arXiv:2501.04697 (rounding of the softmax).
    """
    table = Table(modular_task("add", p), seeds, fraction)
    networks = Transformers(table, seeds, p, d_model, d_mlp, dtype)
    turning = Turning()

    def evaluate(params: Params) -> dict[str, Tensor]:
        measured = networks.measures(params, turning.hook)
        return {**measured, TURN: turning.turn()}

    def squares(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return tensor_squares({n: v for n, v in tensors.items() if "b_" not in n})

    return System(
        name,
        networks.params,
        ensemble_gradients(networks.train_loss),
        EnsembleAdam(learning_rate, betas=(0.9, 0.98)),
        n_steps,
        range(0, n_steps, EVERY),
        squares,
        evaluate,
        (Progress(TURN, FAST, find=bursts),),
    )
