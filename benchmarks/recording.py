"""What recording adds to a training step, until everything is written."""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rows import Row, summary
from torch import nn

import phasescope as ps
from phasescope.models import MLP, ConvNet, seeded

SAVES = {
    "norms of gradients": "norms/gradients",
    "all norms": "norms",
    "full gradients": "gradients",
}


@dataclass(frozen=True)
class Training:
    name: str
    build: Callable[[], nn.Module]
    n_steps: int
    turns: int
    n_images: int = 64


TRAININGS = (
    Training("MLP 784-128-10", MLP, n_steps=2000, turns=5),
    Training("ConvNet", ConvNet, n_steps=200, turns=3),
)
QUICK = (
    Training("MLP 784-128-10", MLP, n_steps=20, turns=1, n_images=8),
    Training("ConvNet", lambda: ConvNet(width=4), n_steps=5, turns=1, n_images=8),
)


def rows(*, quick: bool, scratch: Path) -> list[Row]:
    return [
        row
        for training in (QUICK if quick else TRAININGS)
        for row in training_rows(training, scratch, quick=quick)
    ]


def training_rows(training: Training, scratch: Path, *, quick: bool) -> list[Row]:
    """One row for each thing saved; the same training without a recorder before each."""
    seconds(training, None, scratch)  # the first training sets things up
    times: dict[str, list[float]] = {name: [] for name in SAVES}
    plain: dict[str, list[float]] = {name: [] for name in SAVES}
    for _ in range(training.turns):
        for name, group in SAVES.items():
            plain[name].append(seconds(training, None, scratch))
            times[name].append(seconds(training, group, scratch))
    n_parameters = sum(p.numel() for p in training.build().parameters())
    found = []
    for name in SAVES:
        ours, other = statistics.median(times[name]), statistics.median(plain[name])
        detail = {
            "n_steps": training.n_steps,
            "n_parameters": n_parameters,
            "step_s": summary([t / training.n_steps for t in times[name]]),
            "step_without_s": summary([t / training.n_steps for t in plain[name]]),
            "overhead": ours / other - 1,
            "overhead_of_turns": summary(
                [a / b - 1 for a, b in zip(times[name], plain[name], strict=True)]
            ),
        }
        title = f"{training.n_steps:,} steps of {training.name}, recording {name}"
        note = (
            f"{100 * detail['overhead']:+.0f} %, "
            f"{1000 * (ours - other) / training.n_steps:+.2g} ms a step"
        )
        found.append(
            Row(title, ours, other, "without a recorder", detail=detail, note=note, quick=quick)
        )
    return found


def seconds(training: Training, group: str | None, scratch: Path) -> float:
    """Seconds of the loop, with a recorder until it is closed."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, training.n_images, 1, 28, 28, generator=generator)
    labels = torch.randint(0, 10, (16, training.n_images), generator=generator)
    model = seeded(training.build, 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def loop() -> None:
        for step in range(training.n_steps):
            optimizer.zero_grad()
            logits = model(images[step % 16])
            nn.functional.cross_entropy(logits, labels[step % 16]).backward()
            optimizer.step()

    if group is None:
        start = time.perf_counter()
        loop()
        return time.perf_counter() - start
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=scratch) as folder:
        save = {group: ps.every(1)}
        with ps.Recorder(f"{folder}/run", model, optimizer, save=save, n_steps=training.n_steps):
            start = time.perf_counter()
            loop()
        return time.perf_counter() - start
