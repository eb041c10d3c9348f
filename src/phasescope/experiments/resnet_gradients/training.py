"""Train one network and record its norms and weights."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import phasescope as ps
from phasescope.datasets import RandomFlips, ShuffledBatches, colour_inputs, load_cifar10
from phasescope.experiments.chunks import save_whole
from phasescope.experiments.resnet_gradients.config import Config
from phasescope.experiments.resnet_gradients.unit_parts import units_of
from phasescope.interventions import SequentialFreezing, freezeout_ends
from phasescope.models import ResNet, seeded
from phasescope.training import accuracy
from phasescope.training import train as train_on

Data = tuple[Tensor, Tensor]
FINAL = "final.safetensors"  # the trained network with its batch statistics


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
    # The stub of `to` has no such overload.
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


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
    first = dataclasses.replace(train, images=train.images[:n], labels=train.labels[:n])
    x = colour_inputs(first, size=size).contiguous(memory_format=torch.channels_last)
    y = colour_inputs(test, size=size).contiguous(memory_format=torch.channels_last)
    return (x, first.labels), (y, test.labels), train.provenance


def train(
    config: Config, directory: Path, seed: int, progress: Callable[[float], None]
) -> dict[str, Any]:
    """The recorded run; one that was interrupted goes on from its last checkpoint.

    Args:
        config: What is trained.
        directory: Of the run.
        seed: Of weights, batches and flips.
        progress: Called with the share that is done.

    Returns:
        How its stages moved, when they were frozen, and the seconds of processor time that took,
        None where the training was resumed.
    """
    (x, y), (test_x, test_y), _ = images(config)
    model = network(config, seed)
    stages = frozen_stages(config)
    optimizer = torch.optim.SGD(
        SequentialFreezing.groups(model, stages),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    power = {"linear": 1, "cubic": 3}.get(config.freezing)
    freezing = SequentialFreezing(
        model,
        optimizer,
        stages,
        n_steps=config.n_steps,
        window=window(config),
        ends=freezeout_ends(len(stages), config.freeze_first, power) if power else None,
        cosine=config.cosine,
        when_settled=config.freezing == "settled",
    )
    batches = RandomFlips(
        ShuffledBatches(x, y, config.batch_size, seed=seed, n_epochs=config.n_epochs)
    )
    n_steps, epoch = config.n_steps, config.n_steps // config.n_epochs
    often = ps.every(config.norms_every)
    if config.norms_every > 1:
        often = often | ps.at(*range(min(config.raw_steps, n_steps)))
    save = {
        "norms/gradients": often,
        "norms/weights": often,
        "weights": ps.every(snapshot_every(config)),
    }
    components: dict[str, ps.Component] = {}
    if config.scored:
        units = units_of(model)
        components = units.filters | units.readers
        save |= {f"component_norms/{which}": ps.every(1) for which in ("updates", "weights")}
    recorder = ps.Recorder(
        directory,
        model,
        optimizer,
        save=save,
        components=components,
        n_steps=n_steps,
        checkpoint=ps.every(10 * epoch),
        state={"loader": batches, "freezing": freezing},
        config=config,
        loss_reduction="mean",
        resume=True,
    )

    def measure(model: nn.Module) -> dict[str, float]:
        nonlocal aside
        began = time.process_time()
        n = config.n_test
        found = accuracy(model, test_x[:n], test_y[:n], batch_size=250)
        aside += time.process_time() - began
        return {"test_accuracy": found}

    aside = 0.0  # seconds of evaluation

    def scheduled() -> Iterator[Data]:
        for batch in batches:
            freezing.before_update(recorder.step)
            yield batch

    with recorder:
        whole, began = recorder.step == 0, time.process_time()
        train_on(
            model,
            optimizer,
            scheduled(),
            recorder=recorder,
            evaluate=measure,
            evaluate_every=epoch,
            on_step=lambda step, loss: progress(step / n_steps),
        )
        seconds = time.process_time() - began - aside if whole else None
        final = accuracy(model, test_x, test_y, batch_size=250)
        recorder.log(step=recorder.step, final_accuracy=final)
        save_whole(dict(model.state_dict()), directory / FINAL)
    return {
        "movement": freezing.movement,
        "frozen_at": freezing.frozen_at,
        "cpu_seconds": seconds,
    }


def snapshot_every(config: Config) -> int:
    """Steps between the weights that are kept: an epoch, but forty of them at most.

    Where units are scored, the interval between two checkpoints.
    """
    if config.scored:
        return config.n_steps // config.scored
    return -(-config.n_steps // min(config.n_epochs, 40))


def window(config: Config) -> int:
    """Steps between measurements of how far stages moved: a forty-eighth of the training."""
    return max(1, config.n_steps // 48)


def frozen_stages(config: Config) -> tuple[str, ...]:
    """What is frozen in sequence: the start, every block, the final layer."""
    blocks = [f"layer{i}.{j}" for i, n in enumerate(config.n_blocks, start=1) for j in range(n)]
    return ("conv1 bn1", *blocks, "fc")
