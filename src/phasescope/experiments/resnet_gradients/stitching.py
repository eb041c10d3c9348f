"""Layers of two trained networks joined, beside those of one, and of one that is not trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from phasescope.experiments.resnet_gradients.config import Config
from phasescope.experiments.resnet_gradients.training import images, network
from phasescope.interventions import match_channels, train_stitch
from phasescope.models import ResNet
from phasescope.training import accuracy

OTHER = 1000  # added to the seed of the second network
UNTRAINED = 2000  # likewise of the network that is not trained
_PASSES = 4  # over the training images, for the batch statistics of the untrained network


def stitched(config: Config, first: ResNet, second: ResNet) -> dict[str, Any]:
    """Accuracies of the front of one network before the back of another, at every stage.

    Args:
        config: Of the networks.
        first: A trained network.
        second: Another one.

    Returns:
        ``alone`` of the second network, and under ``other``, ``same`` and ``untrained`` one
        accuracy per stage but the last: the front of the first network, of the second itself, of
        one that is not trained, each before the back of the second, with a layer matched and then
        trained between them.
    """
    (x, y), (test_x, test_y), _ = images(config)
    untrained = _with_statistics(network(config, config.seed + UNTRAINED), x, config)
    fronts = {"other": first.eval(), "same": second.eval(), "untrained": untrained}
    stages = range(1, second.n_stages)
    found: dict[str, Any] = {"stages": list(stages)}
    found["alone"] = accuracy(second, test_x, test_y, batch_size=250)
    for name, front in fronts.items():
        found[name] = [
            _joined(front, second, stage, (x, y), (test_x, test_y), config.seed) for stage in stages
        ]
    return found


def _joined(
    front: ResNet,
    back: ResNet,
    stage: int,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    seed: int,
) -> float:
    h, target = (_through(model, train[0], stage) for model in (front, back))
    stitch = match_channels(h, target)
    train_stitch(stitch, lambda z: back.back(z, stage), h, train[1], seed=seed)
    with torch.no_grad():
        z = stitch(_through(front, test[0], stage))
        logits = [back.back(functional.relu(part), stage) for part in z.split(250)]
    return float((torch.cat(logits).argmax(1) == test[1]).double().mean())


def _through(model: ResNet, x: Tensor, stage: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([model.front(part, stage) for part in x.split(250)])


def _with_statistics(model: ResNet, x: Tensor, config: Config) -> ResNet:
    """An untrained network whose batch norms know the images."""
    model.train()
    with torch.no_grad():
        for _ in range(_PASSES):
            for part in x.split(config.batch_size):
                model(part)
    return model.eval()
