"""Two seeds of a classifier, and what lies between them before and after matching."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

import phasescope as ps
from phasescope.datasets import ShuffledBatches, as_inputs, load_images
from phasescope.experiments.mode_connectivity.config import Config
from phasescope.models import MLP, ResNet, seeded

SECOND = 1_000_003  # added to the seed for the second network of a pair
WARM_UP = 10  # steps of SGD with a rising rate
STATISTICS_ROWS = 1000  # training images from which batch norms are counted anew

Tell = Callable[[float, str], None]


def measure_pair(config: Config, tell: Tell) -> dict[str, float]:
    """All numbers of a pair.

    Args:
        config: The set-up.
        tell: Called with the share done and what is being done.
    """
    train_set, test_set = load_images(config.dataset, "train"), load_images(config.dataset, "test")
    x = as_inputs(train_set, mean=0.0, std=1.0)[: config.n_train]
    x_test = as_inputs(test_set, mean=0.0, std=1.0)
    y, y_test = train_set.labels[: config.n_train].long(), test_set.labels.long()
    halves = {}
    for number, offset in enumerate((0, SECOND)):
        halves[number] = _trained(
            config,
            x,
            y,
            config.seed + offset,
            lambda share, number=number: tell(
                0.45 * (number + share), f"training network {number + 1} of 2"
            ),
        )
    tell(0.9, "matching")
    first, second = halves[0], halves[1]
    model = _network(config, x.shape[1:])
    norms = any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    statistics = [(part,) for part in x[:STATISTICS_ROWS].split(250)] if norms else None
    measure = ps.StateMeasure(
        model, {"train": (x[:2000], y[:2000]), "test": (x_test, y_test)}, statistics=statistics
    )
    symmetry = ps.permutation_symmetry(model, (x[:2],), state=first)
    weights = ps.match_weights(symmetry, first, second, seed=config.seed)
    doing = ps.match_activations(
        symmetry, model, first, second, [(part,) for part in x[:1000].split(250)]
    )
    ends = {
        "naive": second,
        "matched": symmetry.permuted(second, weights.permutations),
        "activations": symmetry.permuted(second, doing),
    }
    numbers: dict[str, float] = {}
    for name, end in ends.items():
        path = ps.path_values(measure, ps.linear_path(first, end), n_points=config.n_points)
        losses = path.values["test loss"]
        ends_mean = (losses[0] + losses[-1]).item() / 2
        middle = losses[len(losses) // 2].item()
        numbers["test loss"] = ends_mean
        numbers["test accuracy"] = path.values["test accuracy"][[0, -1]].mean().item()
        numbers[f"middle {name}"] = middle
        numbers[f"ratio {name}"] = middle / ends_mean
        for what in ("train", "test"):
            numbers[f"barrier {what} {name}"] = path.barrier(f"{what} loss")
            numbers[f"barrier {what} accuracy {name}"] = path.barrier(f"{what} accuracy")
    target = ps.random_target(first, second, torch.Generator().manual_seed(config.seed))
    path = ps.path_values(measure, ps.linear_path(first, target), n_points=3)
    numbers["ratio random"] = path.values["test loss"][1].item() / numbers["test loss"]
    numbers["similarity"] = weights.similarity[-1].item()
    return numbers


def _network(config: Config, shape: torch.Size) -> nn.Module:
    if config.network == "resnet":
        return ResNet(
            n_blocks=(1, 1, 1),
            width=config.width,
            n_classes=10,
            in_channels=shape[0],
            small_images=True,
        )
    w = config.width
    return MLP((math.prod(shape), w, w, w, 10))


def _trained(
    config: Config, x: Tensor, y: Tensor, seed: int, tell: Callable[[float], None]
) -> dict[str, Tensor]:
    model = seeded(lambda: _network(config, x.shape[1:]), seed)
    rate = config.learning_rate
    if config.optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            model.parameters(), lr=rate, momentum=0.9
        )
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    batches = ShuffledBatches(
        x, y, batch_size=config.batch_size, n_epochs=config.n_epochs, seed=seed
    )
    model.train()
    for step, (inputs, labels) in enumerate(batches):
        if config.optimizer == "sgd":
            warm = min(1.0, (step + 1) / WARM_UP)
            for group in optimizer.param_groups:
                group["lr"] = rate * warm
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        if step % 100 == 0:
            tell(step / len(batches))
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
