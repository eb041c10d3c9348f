"""The optimisation processes: what is optimised, on what data, and how its examples are seen.

Letters: n samples, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from phasescope.datasets import ShuffledBatches, as_inputs, load_images, modular_task, split_pairs
from phasescope.experiments.gradient_nulls.config import Config
from phasescope.models import MLP, seeded

Batch = tuple[Tensor, Tensor]
_QUADRATIC = 1000  # parameters
_LOW_RANK = (200, 5)  # side of the matrix, its rank and that of the factors
_MODULUS = 23
_N_SYNTHETIC = 6400  # samples of data that are drawn
_N_EXAMPLES = 1000  # examples that are followed


@dataclass(frozen=True)
class Process:
    """A model, its loss, its data in any order, and examples that stay the same."""

    model: nn.Module
    """At its initial weights."""
    loss_fn: Callable[[Tensor, Tensor], Tensor]
    """Scalar loss of (outputs, targets), a mean over the batch."""
    batches: Callable[[int], Iterable[Batch]]
    """`n_steps` batches or more, in the order of a seed."""
    dataset: str
    """Name of the data."""
    examples: Batch | None = None
    """Fixed inputs and classes, held out where there are any, whose losses and logits are followed;
    None if it is no classification."""


def make_process(config: Config) -> Process:
    """The process of a configuration at its initial weights.

    * "mnist": the MLP of `gradient_spectrum`, on images.
    * "logistic": softmax regression on the same images: convex.
    * "quadratic": ½ Σ h_p (w_p - x_p)² with x normal and curvatures h from 1 down to 1/1000.
    * "low_rank": y = M x, M of rank 5 and 200 × 200, learned as a product of two factors.
    * "modular": a + b modulo 23 from one-hot operands by a network with one hidden layer.
    * "planted": update n is e_n / n, whatever the weights: the gradient of w_n / n.

    Args:
        config: Process, sizes and seed.
    """
    make = {
        "mnist": _images,
        "logistic": _images,
        "quadratic": _quadratic,
        "low_rank": _low_rank,
        "modular": _modular,
        "planted": _planted,
    }[config.process]
    return make(config)


def _shuffled(x: Tensor, y: Tensor, config: Config) -> Callable[[int], Iterable[Batch]]:
    per_epoch = -(-len(x) // config.batch_size)
    n_epochs = -(-max(config.n_steps, 2 * config.n_sampled) // per_epoch)
    return lambda seed: ShuffledBatches(x, y, config.batch_size, seed=seed, n_epochs=n_epochs)


def _images(config: Config) -> Process:
    train_set = load_images(config.dataset, "train")
    test_set = load_images("mnist" if train_set.name == "mnist" else "digits", "test")
    x, y = as_inputs(train_set), train_set.labels
    n_pixels = x[0].numel()
    sizes = (n_pixels, config.hidden, train_set.n_classes)
    if config.process == "logistic":
        sizes = (n_pixels, train_set.n_classes)
    return Process(
        seeded(lambda: MLP(sizes), config.seed),
        functional.cross_entropy,
        _shuffled(x, y, config),
        train_set.name,
        (as_inputs(test_set)[:_N_EXAMPLES], test_set.labels[:_N_EXAMPLES]),
    )


class _Residual(nn.Module):
    """Weights minus inputs."""

    def __init__(self, initial: Float[Tensor, " P"]) -> None:
        super().__init__()
        self.w = nn.Parameter(initial)

    def forward(self, x: Float[Tensor, "n P"]) -> Float[Tensor, "n P"]:
        return self.w - x


def _quadratic(config: Config) -> Process:
    generator = torch.Generator().manual_seed(config.seed)
    curvatures = torch.logspace(0, -3, _QUADRATIC)
    x = torch.randn(_N_SYNTHETIC, _QUADRATIC, generator=generator)
    initial = torch.randn(_QUADRATIC, generator=generator)

    def loss(residual: Tensor, _: Tensor) -> Tensor:
        return 0.5 * (curvatures * residual**2).sum(1).mean()

    targets = torch.zeros(len(x))
    return Process(_Residual(initial), loss, _shuffled(x, targets, config), "normal inputs")


def _low_rank(config: Config) -> Process:
    side, rank = _LOW_RANK
    generator = torch.Generator().manual_seed(config.seed)

    def factor(rows: int, columns: int) -> Float[Tensor, "rows columns"]:
        return torch.linalg.qr(torch.randn(rows, columns, generator=generator)).Q

    strengths = torch.linspace(2, 1, rank)
    target = factor(side, rank) * strengths @ factor(side, rank).T
    x = torch.randn(_N_SYNTHETIC, side, generator=generator)
    model = nn.Sequential(nn.Linear(side, rank, bias=False), nn.Linear(rank, side, bias=False))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.01 * torch.randn(p.shape, generator=generator))

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return 0.5 * ((outputs - targets) ** 2).sum(1).mean()

    return Process(model, loss, _shuffled(x, x @ target.T, config), "normal inputs")


def _modular(config: Config) -> Process:
    task = modular_task("add", _MODULUS)
    split = split_pairs(len(task.pairs), 0.8, seed=config.seed)

    def inputs(rows: Int64[Tensor, " rows"]) -> Float[Tensor, "rows two_p"]:
        return functional.one_hot(task.pairs[rows], _MODULUS).flatten(1).float()

    x, y = inputs(split.train), task.labels[split.train]
    sizes = (2 * _MODULUS, config.hidden, _MODULUS)
    return Process(
        seeded(lambda: MLP(sizes), config.seed),
        functional.cross_entropy,
        _shuffled(x, y, config),
        task.name,
        (inputs(split.test), task.labels[split.test]),
    )


class _Entry(nn.Module):
    """The weights that the inputs name."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(n))

    def forward(self, index: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        return self.w[index]


def _planted(config: Config) -> Process:
    index = torch.arange(config.n_steps)
    sizes = 1 / (index + 1.0)

    def batches(seed: int) -> Iterable[Batch]:
        if seed == config.seed:  # the training: in the order 1, 2, 3, ...
            return [(index[i : i + 1], sizes[i : i + 1]) for i in range(len(index))]
        return _shuffled(index, sizes, config)(seed)

    def loss(outputs: Tensor, sizes: Tensor) -> Tensor:
        return (outputs * sizes).mean()

    return Process(_Entry(config.n_steps), loss, batches, "none")
