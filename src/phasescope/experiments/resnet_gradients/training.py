"""Train one network and record its norms and weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import phasescope as ps
from phasescope.datasets import RandomFlips, ShuffledBatches, colour_inputs, load_cifar10
from phasescope.experiments.resnet_gradients.config import Config
from phasescope.models import ResNet, seeded
from phasescope.training import accuracy
from phasescope.training import train as train_on

Data = tuple[Tensor, Tensor]


def network(config: Config, seed: int | None = None) -> ResNet:
    """The network before training."""
    model = seeded(
        lambda: ResNet(
            n_blocks=config.n_blocks,
            width=config.width,
            n_classes=10,
            small_images=config.small_images,
        ),
        config.seed if seed is None else seed,
    )
    return model.to(memory_format=torch.channels_last)


def images(config: Config) -> tuple[Data, Data, str]:
    """Training images, all test images, and where they come from.

    The training images are the first that there are, the same for all seeds.

    Raises:
        ValueError: There are fewer than the configuration asks for.
    """
    train, test = load_cifar10("train"), load_cifar10("test")
    for wanted, there in ((config.n_train, train), (config.n_test, test)):
        if wanted > len(there.labels):
            raise ValueError(
                f"{wanted:,} images are asked for, but there are {there.provenance}. Get the other "
                "files of the archive, or set n_train and n_test."
            )
    size, n = config.image_size, config.n_train
    x = colour_inputs(train, size=size)[:n].contiguous(memory_format=torch.channels_last)
    y = colour_inputs(test, size=size).contiguous(memory_format=torch.channels_last)
    return (x, train.labels[:n]), (y, test.labels), train.provenance


def train(config: Config, directory: Path, progress: Callable[[float], None]) -> ps.Run:
    """The recorded run; one that was interrupted goes on from its last checkpoint."""
    (x, y), (test_x, test_y), _ = images(config)
    model = network(config)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    batches = RandomFlips(
        ShuffledBatches(x, y, config.batch_size, seed=config.seed, n_epochs=config.n_epochs)
    )
    n_steps, epoch = config.n_steps, config.n_steps // config.n_epochs
    often = ps.every(config.norms_every)
    if config.norms_every > 1:
        often = often | ps.at(*range(min(config.raw_steps, n_steps)))
    recorder = ps.Recorder(
        directory,
        model,
        optimizer,
        save={
            "norms/gradients": often,
            "norms/weights": often,
            "weights": ps.every(snapshot_every(config)),
        },
        n_steps=n_steps,
        checkpoint=ps.every(10 * epoch),
        state={"loader": batches},
        config=config,
        loss_reduction="mean",
        resume=True,
    )

    def measure(model: nn.Module) -> dict[str, float]:
        n = config.n_test
        return {"test_accuracy": accuracy(model, test_x[:n], test_y[:n], batch_size=250)}

    with recorder:
        train_on(
            model,
            optimizer,
            batches,
            recorder=recorder,
            evaluate=measure,
            evaluate_every=epoch,
            on_step=lambda step, loss: progress(step / n_steps),
        )
        final = accuracy(model, test_x, test_y, batch_size=250)
        recorder.log(step=recorder.step, final_accuracy=final)
    return ps.open_run(directory)


def snapshot_every(config: Config) -> int:
    """Steps between the weights that are kept: an epoch, but forty of them at most."""
    return -(-config.n_steps // min(config.n_epochs, 40))
