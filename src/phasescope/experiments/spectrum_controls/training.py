"""Networks of one level trained as one batch, their gradients kept in memory at some steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from phasescope.datasets import ShuffledBatches
from phasescope.experiments.runner import seeds_of
from phasescope.experiments.spectrum_controls.config import Config
from phasescope.experiments.spectrum_controls.data import Data, generator
from phasescope.models import MLP, seeded
from phasescope.training import (
    EnsembleAdam,
    EnsembleGradients,
    EnsembleOptimizer,
    EnsembleSGD,
    ensemble_gradients,
    train_ensemble,
)

Tell = Callable[[float], None]
LOUDEST = 1e12  # gradients with a larger norm have left the numbers that float32 can square


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training left."""

    gradients: Float[Tensor, "members steps parameters"]
    """At the recorded steps."""
    steps: Int64[Tensor, " steps"]
    """The recorded steps."""
    first_loss: Float[Tensor, " members"]
    """Mean over the first twentieth of the training, nats."""
    last_loss: Float[Tensor, " members"]
    """Mean over the last twentieth of the training, nats."""
    diverged: list[bool]
    """Whether a loss or a gradient stopped being a finite, usable number."""


def recorded_steps(config: Config) -> Int64[Tensor, " steps"]:
    """One random step of each of equally many strata: no step is far, and none aliases."""
    edges = np.linspace(0, config.n_steps, config.n_recorded + 1).round().astype(int)
    draws = np.random.default_rng([config.seed, 5]).integers(edges[:-1], edges[1:])
    return torch.from_numpy(draws)


@dataclass(frozen=True, eq=False)
class Networks:
    """Networks of one architecture, their parameters stacked along a leading axis."""

    network: nn.Module
    """One of them, for its architecture."""
    params: dict[str, Tensor]
    """The parameters of all, members first, in the order of `named_parameters()`."""

    def outputs(
        self, params: Mapping[str, Tensor], x: Float[Tensor, "members batch features"]
    ) -> Float[Tensor, "members batch classes"]:
        """Logits of every network for its own batch."""
        network = self.network
        return vmap(lambda params, x: functional_call(network, params, (x,)))(dict(params), x)

    def gradients(self, batches: _Batches) -> EnsembleGradients:
        """Mean cross-entropy of every network on its next batch, and its gradient."""

        def losses(params: Mapping[str, Tensor], step: int) -> Float[Tensor, " members"]:
            x, y = batches.draw()
            logits = self.outputs(params, x).mT
            return functional.cross_entropy(logits, y, reduction="none").mean(1)

        return ensemble_gradients(losses)

    def split(self, vectors: Float[Tensor, "members parameters"]) -> dict[str, Tensor]:
        """Parameters out of a vector for each network."""
        sizes = [p[0].numel() for p in self.params.values()]
        parts = zip(self.params.items(), vectors.split(sizes, dim=1), strict=True)
        return {name: part.reshape(p.shape) for (name, p), part in parts}


def flat(tensors: Mapping[str, Tensor]) -> Float[Tensor, "members parameters"]:
    """A vector for each network."""
    return torch.cat([t.flatten(1) for t in tensors.values()], dim=1)


def build(config: Config, n_features: int) -> Networks:
    """The networks of a level at their initial values."""

    def network(seed: int) -> MLP:
        model = seeded(lambda: MLP((n_features, config.hidden, 10)), seed)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(config.init_gain)
        return model

    members = [network(seed) for seed in seeds_of(config)]
    by_name = [dict(m.named_parameters()) for m in members]
    stacked = {name: torch.stack([p[name].detach() for p in by_name]) for name in by_name[0]}
    return Networks(members[0], stacked)


class _Batches:
    """The batches of all networks, each from its own data in its own order."""

    def __init__(self, config: Config, data: Sequence[Data], offset: int, n_steps: int) -> None:
        per_epoch = -(-config.n_examples // config.batch_size)
        self._loaders = [
            iter(
                ShuffledBatches(
                    d.x, d.y, config.batch_size,
                    seed=2 * seed + offset, n_epochs=-(-n_steps // per_epoch),
                )
            )
            for seed, d in zip(seeds_of(config), data, strict=True)
        ]  # fmt: skip

    def draw(self) -> tuple[Tensor, Tensor]:
        pairs = [next(loader) for loader in self._loaders]
        return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])


def train(config: Config, networks: Networks, data: Sequence[Data], tell: Tell) -> Trained:
    """Train all networks; the gradients kept are those of all parameters, in a subspace too."""
    gradients = networks.gradients(_Batches(config, data, 0, config.n_steps + 1))
    steps = recorded_steps(config)
    rows = {int(step): row for row, step in enumerate(steps)}
    start = flat(networks.params)
    kept = torch.empty(len(start), len(steps), start.shape[1], dtype=start.dtype)
    subspace = RandomSubspaces(config, start) if config.subspace else None

    def recorded(params: dict[str, Tensor], step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        losses, grads = gradients(params, step)
        if step in rows:
            kept[:, rows[step]] = flat(grads)
        return losses, grads

    def in_subspace(params: dict[str, Tensor], step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        assert subspace is not None
        weights = networks.split(subspace.vectors(params["coordinates"]))
        losses, grads = recorded(weights, step)
        return losses, {"coordinates": subspace.pull(flat(grads))}

    optimizer = _optimizer(config, start.shape[1])
    if subspace is None:
        losses = train_ensemble(networks.params, recorded, optimizer, config.n_steps, progress=tell)
    else:
        params = {"coordinates": start.new_zeros(len(start), config.subspace)}
        losses = train_ensemble(params, in_subspace, optimizer, config.n_steps, progress=tell)
        networks.params.update(networks.split(subspace.vectors(params["coordinates"])))
    twentieth = max(1, config.n_steps // 20)
    usable = losses.isfinite().all(1) & (kept.norm(dim=2) < LOUDEST).all(1)
    first, last = losses[:, :twentieth], losses[:, -1 - twentieth : -1]
    return Trained(kept, steps, first.mean(1), last.mean(1), (~usable).tolist())


def frozen(
    config: Config, networks: Networks, data: Sequence[Data]
) -> Float[Tensor, "members steps parameters"]:
    """As many gradients at weights that do not move, of other batches of the same data."""
    gradients = networks.gradients(_Batches(config, data, 1, config.n_recorded))
    start = flat(networks.params)
    kept = torch.empty(len(start), config.n_recorded, start.shape[1], dtype=start.dtype)
    for row in range(config.n_recorded):
        kept[:, row] = flat(gradients(networks.params, row)[1])
    return kept


def test_accuracy(networks: Networks, data: Sequence[Data]) -> list[float]:
    """Share of the test images that every network gets right."""
    with torch.no_grad():
        outputs = networks.outputs(networks.params, torch.stack([d.test_x for d in data]))
    labels = torch.stack([d.test_y for d in data])
    return (outputs.argmax(-1) == labels).double().mean(1).tolist()


def _optimizer(config: Config, n_parameters: int) -> EnsembleOptimizer:
    """Steps in a subspace of d dimensions are made as long as those in all D: times sqrt(D/d)."""
    reach = math.sqrt(n_parameters / config.subspace) if config.subspace else 1.0
    rate = config.learning_rate * reach
    if config.optimizer == "adam":
        return EnsembleAdam(rate, betas=(0.9, config.beta2))
    return EnsembleSGD(rate * (1 - config.momentum), momentum=config.momentum)


class RandomSubspaces:
    """theta = theta_0 + P z of every network, P random, sparse, with columns of unit norm.

    Each column has about sqrt(D) entries of either sign, so columns are orthogonal up to about
    D^(-1/2), at a memory of d sqrt(D) instead of d D: the sparse projection of Li et al. (2018,
    arXiv:1804.08838, section 2 and S7), after Li, Hastie and Church (2006).
    """

    def __init__(self, config: Config, start: Float[Tensor, "members parameters"]) -> None:
        size = start.shape[1]
        d, entries = config.subspace, max(1, round(math.sqrt(size)))
        places, signs = [], []
        for seed in seeds_of(config):
            draw = generator(seed, 6)
            # Distinct places of a column: one in each of equal strata of the parameters.
            width = size // entries
            first = torch.arange(entries) * width
            places.append((torch.randint(width, (d, entries), generator=draw) + first).flatten())
            signs.append(torch.randint(2, (d, entries), generator=draw) * 2.0 - 1.0)
        self._places = torch.stack(places)
        self._values = torch.stack(signs).to(start.dtype) / math.sqrt(entries)
        self._start = start

    def pull(self, gradients: Float[Tensor, "members parameters"]) -> Float[Tensor, "members d"]:
        """The gradients of the coordinates, from those of the parameters."""
        entries = gradients.gather(1, self._places).view(self._values.shape)
        return (entries * self._values).sum(2)

    def vectors(
        self, coordinates: Float[Tensor, "members d"]
    ) -> Float[Tensor, "members parameters"]:
        """The parameters at some coordinates."""
        entries = coordinates[..., None] * self._values
        return self._start.scatter_add(1, self._places, entries.flatten(1))
