"""Dense, masked, regrown and pruned trainings of the seeds of a chunk, on the same data.

Axes: model first, in everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

import phasescope as ps
from phasescope.datasets import SparseFeatures, feature_directions, feature_frequencies
from phasescope.experiments.sparse_training.config import Config
from phasescope.interventions import (
    MaskedEnsemble,
    pruned_masks,
    random_masks,
    shuffled_masks,
)
from phasescope.models import (
    FeatureLoss,
    feature_outputs,
    initial_feature_model,
    single_feature_activations,
)
from phasescope.training import (
    DecayingBiases,
    EnsembleLAMB,
    EnsembleOptimizer,
    cosine_cycles,
    train_ensemble,
)

PRUNED = ("W_in", "W_out")
HELD_OUT_ROWS = 2048
OTHER_START = 1_000_003  # added to a seed for its control of another initialisation
THRESHOLD = 0.9
Params = dict[str, Tensor]
Masks = dict[str, Tensor]


class Chunk:
    """Some seeds of a run, and every training of them."""

    def __init__(self, config: Config, models: list[int]) -> None:
        self.config = config
        first = config.seed * config.n_seeds
        self.seeds = [first + model for model in models]
        self.P = torch.stack(
            [feature_directions(config.n_features, config.d, seed=s) for s in self.seeds]
        )
        self.frequencies = feature_frequencies(config.n_features, config.density)
        self._held_out = self._features(1, HELD_OUT_ROWS).draw().clone()
        self.numbers: dict[str, Tensor] = {}

    def everything(self) -> dict[str, Tensor]:
        """The numbers of all trainings, one row per seed."""
        config, start = self.config, self.start(0)
        dense = self.train(start, None)
        self._note("dense", dense, None)
        for name, grow in (("fixed", None), ("set", "random"), ("rigl", "gradient")):
            masks = self._random(start)
            params = {n: p.clone() for n, p in start.items()}
            optimizer = self._masked(masks, grow)
            self._fit(params, optimizer, 0)
            self._note(name, params, optimizer.masks)
        masks = {n: torch.ones_like(start[n], dtype=torch.bool) for n in PRUNED}
        self._instability("dense", start, None, dense)
        trained = dense
        for level in range(1, config.n_levels + 1):
            masks = self._pruned(trained, masks)
            trained = self.train(start, masks)
            self._note(f"ticket {level}", trained, masks)
            if level in config.checked:
                self._instability(f"ticket {level}", start, masks, trained)
                shuffled = self._each(
                    masks,
                    lambda own, seed: shuffled_masks(own, torch.Generator().manual_seed(seed)),
                )
                self._note(f"shuffled {level}", self.train(start, shuffled), shuffled)
                self._note(f"reinit {level}", self.train(self.start(OTHER_START), masks), masks)
        return self.numbers

    def start(self, offset: int) -> Params:
        """Initial parameters."""
        config = self.config
        return initial_feature_model(
            [seed + offset for seed in self.seeds],
            d=config.d,
            n_neurons=config.n_neurons,
            n_outputs=config.n_features,
            bias_offset=config.bias_offset,
        )

    def train(self, start: Params, masks: Masks | None, stream: int = 0) -> Params:
        """Trained parameters, under masks if there are some."""
        params = {n: p.clone() for n, p in start.items()}
        plain = self._optimizer()
        optimizer = plain if masks is None else self._masked(masks, None)
        self._fit(params, optimizer, stream)
        return params

    def loss(self, params: Mapping[str, Tensor]) -> Tensor:
        """Held-out loss of every seed."""
        error = feature_outputs(params, self._held_out @ self.P.mT) - self._held_out
        return error.square().sum(-1).mean(-1)

    def _fit(self, params: Params, optimizer: EnsembleOptimizer, stream: int) -> None:
        features = self._features(2 * stream, self.config.batch_size)
        loss = FeatureLoss(features.draw, self.P)
        with torch.no_grad():
            train_ensemble(params, loss, optimizer, self.config.n_steps)

    def _features(self, kind: int, n_rows: int) -> SparseFeatures:
        """Streams 0 and 2 for training, 1 held out."""
        return SparseFeatures(
            self.frequencies,
            n_models=len(self.seeds),
            batch_size=n_rows,
            seed=4 * self.seeds[0] + kind,
        )

    def _optimizer(self) -> EnsembleOptimizer:
        config = self.config
        rate = config.learning_rate
        lamb = EnsembleLAMB(rate, schedule=cosine_cycles(config.half_period))
        if not config.bias_decay:
            return lamb
        return DecayingBiases(lamb, config.bias_decay, lr=rate, until=config.n_steps // 2)

    def _masked(self, masks: Masks, grow: str | None) -> MaskedEnsemble:
        config = self.config
        return MaskedEnsemble(
            self._optimizer(),
            {n: m.clone() for n, m in masks.items()},
            grow=grow,  # type: ignore[arg-type]
            every=config.grow_every,
            until=round(config.grow_until * config.n_steps),
            fraction=config.grow_fraction,
            generator=torch.Generator().manual_seed(self.seeds[0]),
        )

    def _random(self, start: Params) -> Masks:
        shapes = {n: tuple(start[n].shape[1:]) for n in PRUNED}
        each = [
            random_masks(shapes, self.config.kept, torch.Generator().manual_seed(seed))
            for seed in self.seeds
        ]
        return {n: torch.stack([own[n] for own in each]) for n in PRUNED}

    def _pruned(self, trained: Params, masks: Masks) -> Masks:
        each = []
        for i in range(len(self.seeds)):
            own = {n: m[i] for n, m in masks.items()}
            weights = {n: trained[n][i] for n in masks}
            each.append(pruned_masks(weights, own, self.config.fraction))
        return {n: torch.stack([own[n] for own in each]) for n in masks}

    def _each(self, masks: Masks, change: Callable[[Masks, int], Masks]) -> Masks:
        each = [
            change({n: m[i] for n, m in masks.items()}, seed) for i, seed in enumerate(self.seeds)
        ]
        return {n: torch.stack([own[n] for own in each]) for n in masks}

    def _instability(self, name: str, start: Params, masks: Masks | None, trained: Params) -> None:
        """Barrier between two trainings from one start on other data."""
        other = self.train(start, masks, stream=1)
        places = torch.linspace(0, 1, 13).tolist()
        with torch.no_grad():
            y = torch.stack(
                [
                    self.loss({n: torch.lerp(p, other[n], t) for n, p in trained.items()})
                    for t in places
                ]
            )
        t = torch.tensor(places)[:, None]
        self.numbers[f"{name} instability"] = (y - torch.lerp(y[0], y[-1], t)).amax(0)

    def _note(self, name: str, params: Params, masks: Masks | None) -> None:
        """Loss, monosemanticity and what is left, of every seed."""
        with torch.no_grad():
            S = single_feature_activations(params, self.P).clamp(min=0)
            self.numbers[f"{name} loss"] = self.loss(params)
        self.numbers[f"{name} mono"] = ps.mono_fraction(S, threshold=THRESHOLD)
        self.numbers[f"{name} mono strict"] = ps.mono_fraction(S)
        self.numbers[f"{name} silent"] = (S.amax(-1) == 0).float().mean(-1)
        if masks is not None:
            for n in PRUNED:
                self.numbers[f"{name} density {n}"] = masks[n].float().mean((1, 2))
            inputs = masks["W_in"].float().sum(-1)
            self.numbers[f"{name} inputs"] = inputs.mean(-1)
