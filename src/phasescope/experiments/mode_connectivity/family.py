"""The models of one toy seed: two levels, four kinds of noise, forks; all on one embedding.

Axes: model first in every parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from phasescope.datasets import SparseFeatures, feature_directions, feature_frequencies
from phasescope.experiments.mode_connectivity.config import Config
from phasescope.models import (
    FeatureLoss,
    feature_outputs,
    initial_feature_model,
    single_feature_activations,
)
from phasescope.training import DecayingBiases, EnsembleLAMB, cosine_cycles, train_ensemble

LEVELS = ("poly", "mono")
KINDS = ("base", "batch", "init", "both")
"""What differs from the base model: nothing, the batches, the initialisation, or both."""
HELD_OUT_ROWS = 2048
THRESHOLD = 0.9

State = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Family:
    """All models of a seed."""

    P: Tensor
    """Embedding: 1, d, feature."""
    inputs: Tensor
    """Held-out rows: 1, row, d."""
    targets: Tensor
    """Their features."""
    records: dict[str, list[State]]
    """``"poly base"`` and so on: the model at every annealed step, each of one model."""
    forks: dict[str, list[State]]
    """Of each level: the base model trained on from its middle with other batches."""

    def loss(self, state: Mapping[str, Tensor]) -> Tensor:
        """Held-out loss."""
        error = feature_outputs(state, self.inputs) - self.targets
        return error.square().sum(-1).mean()

    def measure(self, state: Mapping[str, Tensor]) -> dict[str, float]:
        """The same, for paths."""
        with torch.no_grad():
            return {"loss": self.loss(state).item()}

    def activations(self, state: Mapping[str, Tensor]) -> Tensor:
        """Single-feature activations: neuron, feature."""
        with torch.no_grad():
            return single_feature_activations(state, self.P)[0]


class Streams:
    """Several streams of batches, of which models may share one."""

    def __init__(self, config: Config, n_streams: int, seed: int) -> None:
        frequencies = feature_frequencies(config.n_features, config.density)
        self._features = SparseFeatures(
            frequencies, n_models=n_streams, batch_size=config.batch_size, seed=seed
        )

    def draw(self, which: Tensor) -> Tensor:
        """The next batches, of the stream of each model."""
        return self._features.draw()[which]


def train_family(config: Config, seed: int) -> Family:
    """Train all models of a seed.

    Args:
        config: The set-up.
        seed: Of embedding, initialisations and batches.
    """
    P = feature_directions(config.n_features, config.d, seed=seed)[None]
    frequencies = feature_frequencies(config.n_features, config.density)
    names = [(level, kind) for level in LEVELS for kind in KINDS]
    params = initial_feature_model(
        [2 * seed + (kind in ("init", "both")) for _, kind in names],
        d=config.d,
        n_neurons=config.n_neurons,
        n_outputs=config.n_features,
        bias_offset=torch.tensor([_offset(config, level) for level, _ in names]),
    )
    streams = torch.tensor([int(kind in ("batch", "both")) for _, kind in names])
    optimizer = _optimizer(config, [level for level, _ in names])
    source = Streams(config, 2, 4 * seed)
    loss = FeatureLoss(lambda: source.draw(streams), P.expand(len(names), -1, -1))
    records: dict[str, list[State]] = {f"{level} {kind}": [] for level, kind in names}
    halfway: tuple[State, State] | None = None
    done = 0
    for step in config.annealed:
        with torch.no_grad():
            train_ensemble(params, loss, optimizer, step - done)
        done = step
        for i, (level, kind) in enumerate(names):
            records[f"{level} {kind}"].append({n: p[i : i + 1].clone() for n, p in params.items()})
        if step == config.fork_step:
            halfway = (
                {n: p.clone() for n, p in params.items()},
                {n: v.clone() for n, v in optimizer.state_dict().items()},
            )
    assert halfway is not None
    forks = _forks(
        config, seed, P, names.index(("poly", "base")), names.index(("mono", "base")), halfway
    )
    held_out = SparseFeatures(frequencies, n_models=1, batch_size=HELD_OUT_ROWS, seed=4 * seed + 1)
    targets = held_out.draw().clone()
    return Family(P, targets @ P.mT, targets, records, forks)


def _forks(
    config: Config,
    seed: int,
    P: Tensor,
    poly: int,
    mono: int,
    halfway: tuple[State, State],
) -> dict[str, list[State]]:
    rows = torch.tensor([row for row in (poly, mono) for _ in range(config.n_forks)])
    levels = [level for level in LEVELS for _ in range(config.n_forks)]
    params = {n: p[rows].clone() for n, p in halfway[0].items()}
    optimizer = _optimizer(config, levels)
    optimizer.load_state_dict({n: v[rows].clone() if v.ndim else v for n, v in halfway[1].items()})
    source = Streams(config, config.n_forks, 4 * seed + 2)
    streams = torch.arange(config.n_forks).repeat(2)
    loss = FeatureLoss(lambda: source.draw(streams), P.expand(len(rows), -1, -1))
    with torch.no_grad():
        train_ensemble(params, loss, optimizer, config.n_steps - config.fork_step)
    return {
        level: [
            {n: p[i : i + 1].clone() for n, p in params.items()}
            for i, own in enumerate(levels)
            if own == level
        ]
        for level in LEVELS
    }


def _offset(config: Config, level: str) -> float:
    return config.mono_offset if level == "mono" else 0.0


def _optimizer(config: Config, levels: list[str]) -> DecayingBiases:
    decays = torch.tensor(
        [config.bias_decay if level == "mono" or config.decay_both else 0.0 for level in levels]
    )
    rate = config.learning_rate
    lamb = EnsembleLAMB(rate, schedule=cosine_cycles(config.half_period))
    return DecayingBiases(lamb, decays, lr=rate, until=config.n_steps // 2)
