"""The bias-only phase of the monosemanticity paper's feature model, and its end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import phasescope as ps
from phasescope.datasets import SparseFeatures, feature_directions, feature_frequencies
from phasescope.experiments.phase_detection.modular import N_RECORDS
from phasescope.experiments.phase_detection.system import (
    Params,
    Progress,
    System,
    tensor_squares,
)
from phasescope.models import FeatureLoss, feature_outputs, initial_feature_model
from phasescope.training import DecayingBiases, EnsembleLAMB

AWAKE = "share of neurons with a gradient"
HELD_OUT_ROWS = 1024


def bias_phase_system(
    name: str,
    seeds: Sequence[int],
    *,
    n_features: int = 32,
    d: int = 16,
    n_neurons: int = 64,
    bias_offset: float = -1.0,
    bias_decay: float = 0.3,
    learning_rate: float = 0.01,
    batch_size: int = 256,
    n_steps: int = 2500,
) -> System:
    """Decoder of sparse features whose neurons start silent: biases decay until weights learn.

    As long as no neuron fires there is no gradient and nothing but the decay of the biases moves,
    which is a part of the update here. The event is the end of this phase: the share of neurons
    that fire on some row of a held-out batch as large as the training batches, and so have a
    gradient, rises. It takes place in both weight matrices; the biases moved before. Components are
    the three tensors.

    Args:
        name: Of the system.
        seeds: One model each.
        n_features: N, each active with probability 1/N.
        d: Dimensions of the embedding.
        n_neurons: k.
        bias_offset: Mean of the biases at the start.
        bias_decay: Times the learning rate: what biases lose at every step.
        learning_rate: Of LAMB.
        batch_size: Rows of a fresh batch.
        n_steps: Updates.

    References:
        Jermyn, Schiefer & Hubinger (2022), arXiv:2211.09169, section 2.
    """
    params = initial_feature_model(
        seeds, d=d, n_neurons=n_neurons, n_outputs=n_features, bias_offset=bias_offset
    )
    P = torch.stack([feature_directions(n_features, d, seed=seed) for seed in seeds])
    frequencies = feature_frequencies(n_features, 1 / n_features)

    def draws(n_rows: int, stream: int) -> SparseFeatures:
        return SparseFeatures(
            frequencies, n_models=len(seeds), batch_size=n_rows, seed=2 * seeds[0] + stream
        )

    held_out = draws(HELD_OUT_ROWS, 1).draw().clone()
    seen = held_out @ P.mT

    def evaluate(params: Params) -> dict[str, Tensor]:
        error = feature_outputs(params, seen) - held_out
        z = seen[:, :batch_size] @ params["W_in"].mT + params["b_in"][:, None]
        return {
            "test_loss": error.square().sum(2).mean(1),
            AWAKE: (z > 0).any(1).float().mean(1),
        }

    place = Progress(AWAKE, 0.5, lambda params: [("W_in", "W_out")] * len(seeds))
    return System(
        name,
        params,
        FeatureLoss(draws(batch_size, 0).draw, P),
        DecayingBiases(EnsembleLAMB(learning_rate), bias_decay, lr=learning_rate, until=n_steps),
        n_steps,
        ps.log_spaced(N_RECORDS).steps(n_steps),
        tensor_squares,
        evaluate,
        (place,),
    )
