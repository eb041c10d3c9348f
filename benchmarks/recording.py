"""What recording adds to a training step, until everything is written, and what others add."""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rows import Row, summary
from torch import nn

import phasescope as ps
from phasescope.models import MLP, ConvNet, seeded

NORMS, FULL = "norms/gradients", "gradients"
TITLES = {NORMS: "norms of gradients", FULL: "full float32 gradients"}


@dataclass(frozen=True)
class Training:
    name: str
    build: Callable[[], nn.Module]
    n_steps: int
    turns: int
    threads: int
    # What is saved at every step: the largest overhead that is allowed, None to report it only.
    goals: dict[str, float | None]
    # The largest addition to a step, in milliseconds.
    goal_ms: dict[str, float] = field(default_factory=dict)
    peers: bool = False
    n_images: int = 64


MLP_NAME, CNN_NAME = "MLP 784-128-10", "CNN of 1.2M parameters"
TRAININGS = (
    Training(CNN_NAME, ConvNet, 60, 9, 2, {NORMS: 0.05, FULL: 0.15}, peers=True),
    Training(MLP_NAME, MLP, 1000, 7, 2, {NORMS: 0.15, FULL: 0.5}, {NORMS: 0.12}, peers=True),
    Training(MLP_NAME, MLP, 1000, 5, 1, {NORMS: None, FULL: 0.3}),
)
QUICK = (
    Training(MLP_NAME, MLP, 20, 1, 2, {NORMS: 0.15, FULL: 0.5}, {NORMS: 0.12}, n_images=8),
    Training(CNN_NAME, lambda: ConvNet(width=4), 5, 1, 2, {FULL: 0.15}, n_images=8),
)


def rows(*, quick: bool, scratch: Path) -> list[Row]:
    threads = torch.get_num_threads()
    found = []
    try:
        for training in QUICK if quick else TRAININGS:
            torch.set_num_threads(training.threads)
            found += training_rows(training, scratch, quick=quick)
            print(f"  {training.name}: done", file=sys.stderr, flush=True)
    finally:
        torch.set_num_threads(threads)
    return [*found, memory_row(scratch, quick=quick)]


def training_rows(training: Training, scratch: Path, *, quick: bool) -> list[Row]:
    """What each thing saved costs, and what trackers cost that log something alike."""
    ways: dict[str, Callable[[Path], Way]] = {
        group: lambda folder, group=group: recording(folder, group) for group in training.goals
    }
    if training.peers:
        ways |= PEERS
    seconds(training, no_recording, scratch)  # the first training sets things up
    # Without, with, without, ...: each is compared with the mean of its neighbours.
    plain = [seconds(training, no_recording, scratch)]
    times: dict[str, list[float]] = {name: [] for name in ways}
    overheads: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(training.turns):
        for name, way in ways.items():
            if name in PEERS:
                continue
            times[name].append(seconds(training, way, scratch))
            plain.append(seconds(training, no_recording, scratch))
            overheads[name].append(times[name][-1] / statistics.mean(plain[-2:]) - 1)
    # They take several times as long and need no precision: a tenth of the steps, once.
    short = replace(training, n_steps=max(1, training.n_steps // 10))
    for name, way in PEERS.items() if training.peers else ():
        base = [seconds(short, no_recording, scratch)]
        took = seconds(short, way, scratch)
        base.append(seconds(short, no_recording, scratch))
        overheads[name].append(took / statistics.mean(base) - 1)
    return [
        row
        for name in training.goals
        for row in rows_of(training, name, times, overheads, plain, quick=quick)
    ]


def rows_of(
    training: Training,
    name: str,
    times: dict[str, list[float]],
    overheads: dict[str, list[float]],
    plain: list[float],
    *,
    quick: bool,
) -> Iterator[Row]:
    n = training.n_steps
    overhead = statistics.median(overheads[name])
    base = statistics.median(plain) / n
    threads = f"{training.threads} thread{'s' * (training.threads > 1)}"
    title = f"{n:,} steps of {training.name}, {threads}, {TITLES[name]}"
    detail = {
        "n_steps": n,
        "n_parameters": sum(p.numel() for p in training.build().parameters()),
        "step_s": summary([t / n for t in times[name]]),
        "step_without_s": summary([t / n for t in plain]),
        "overhead": summary(overheads[name]),
    }
    goal = training.goals[name]
    note = f"{100 * overhead:+.1f} %, {1000 * overhead * base:+.2g} ms a step"
    if goal is not None:
        note += f"; allowed {100 * goal:.0f} %"
    # The ratio comes from neighbours in time, not from the two medians.
    yield Row(
        title,
        base * (1 + overhead) * n,
        base * n,
        "without a recorder",
        goal=None if goal is None else 1 / (1 + goal),
        detail=detail,
        note=note,
        quick=quick,
    )
    if name in training.goal_ms:
        yield Row(
            f"{title}: added to a step",
            overhead * base,
            goal=training.goal_ms[name] / 1000,
            goal_on="ours",
            detail=detail,
            quick=quick,
        )
    for peer in PEERS if training.peers else ():
        yield Row(
            title,
            base * (1 + overhead) * n,
            base * (1 + overheads[peer][0]) * n,
            peer,
            detail={"overhead": overheads[peer][0], "n_steps": max(1, n // 10)},
            note=f"{peer}: {1 + overheads[peer][0]:.2g} times the plain loop",
            quick=quick,
        )


# --- ways of watching: each is a context around the loop and what is called after a step ---------


@dataclass(frozen=True)
class Way:
    around: Callable[[nn.Module, torch.optim.Optimizer, int], contextlib.AbstractContextManager]


def no_recording(folder: Path) -> Way:
    return Way(lambda model, optimizer, n: contextlib.nullcontext(lambda step: None))


def recording(folder: Path, group: str) -> Way:
    @contextlib.contextmanager
    def around(model: nn.Module, optimizer: torch.optim.Optimizer, n: int):
        save = {group: ps.every(1)}
        with ps.Recorder(folder / "run", model, optimizer, save=save, n_steps=n):
            yield lambda step: None

    return Way(around)


def tensorboard_histograms(folder: Path) -> Way:
    @contextlib.contextmanager
    def around(model: nn.Module, optimizer: torch.optim.Optimizer, n: int):
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(folder / "tensorboard"))

        def after(step: int) -> None:
            for name, p in model.named_parameters():
                writer.add_histogram(name, p.grad, step)

        yield after
        writer.close()

    return Way(around)


def wandb_watch(folder: Path) -> Way:
    @contextlib.contextmanager
    def around(model: nn.Module, optimizer: torch.optim.Optimizer, n: int):
        import wandb

        settings = wandb.Settings(silent=True, console="off")
        run = wandb.init(mode="offline", dir=str(folder), project="bench", settings=settings)
        run.watch(model, log="gradients", log_freq=1)
        yield lambda step: run.log({"step": step})
        run.unwatch(model)
        run.finish()

    return Way(around)


PEERS: dict[str, Callable[[Path], Way]] = {
    "TensorBoard add_histogram": tensorboard_histograms,
    "wandb.watch(log_freq=1), offline": wandb_watch,
}


def seconds(training: Training, way: Callable[[Path], Way], scratch: Path) -> float:
    """Seconds of the loop, until everything that watches it is closed."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, training.n_images, 1, 28, 28, generator=generator)
    labels = torch.randint(0, 10, (16, training.n_images), generator=generator)
    model = seeded(training.build, 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=scratch) as folder:
        around = way(Path(folder)).around(model, optimizer, training.n_steps)
        after = around.__enter__()
        start = time.perf_counter()
        for step in range(training.n_steps):
            optimizer.zero_grad()
            logits = model(images[step % 16])
            nn.functional.cross_entropy(logits, labels[step % 16]).backward()
            optimizer.step()
            after(step)
        around.__exit__(None, None, None)
        return time.perf_counter() - start


def memory_row(scratch: Path, *, quick: bool) -> Row:
    """Peak memory of a process that records full gradients, for a run ten times as long."""
    short, long = (20, 40) if quick else (300, 3000)
    peaks = {}
    for n_steps in (short, long):
        with tempfile.TemporaryDirectory(prefix="benchmark-", dir=scratch) as folder:
            command = [sys.executable, "-m", "recording_process", folder, str(n_steps)]
            here = Path(__file__).parent
            output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=here)
            peaks[n_steps] = json.loads(output.stdout)
    return Row(
        f"Peak memory of {long:,} steps of {MLP_NAME}, {TITLES[FULL]}",
        float(peaks[long]["peak_bytes"]),
        float(peaks[short]["peak_bytes"]),
        f"of {short:,} steps",
        goal=1 / 1.05,
        unit="bytes",
        detail={str(n): found for n, found in peaks.items()},
        note=f"{(peaks[long]['peak_bytes'] - peaks[long]['without_bytes']) / 1e6:.0f} MB more than "
        "without a recorder",
        quick=quick,
    )
