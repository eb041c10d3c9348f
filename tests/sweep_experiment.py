"""An experiment of milliseconds that does, when told to, what a sweep must survive.

A linear model is trained for `N_STEPS` with checkpoints; at step `ACT_AT` the run raises, kills its
process, fills the memory, or waits for a file. It has the parts of an experiment in
`phasescope.experiments`.
"""

import dataclasses
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

import phasescope as ps
from phasescope.report import Claim

SOURCE = "the tests"
RUNTIME = "milliseconds"
CLAIM_IDS = ("T1",)
N_STEPS = 20
CHECKPOINT_EVERY = 5
ACT_AT = 13


@dataclass(frozen=True)
class Config:
    size: int = 3
    rate: float = 0.1
    act: Literal["finish", "raise", "die", "hold", "hoard"] = "finish"
    deaths: int = 1  # how often `die` kills its process
    disk: int = 0  # bytes it claims to need
    shape: tuple[int, ...] = (1, 2)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size > 100:
            raise ValueError("size must be at most 100.")


PRESETS = {
    "default": (Config(),),
    "two": (Config(size=2), Config(size=4)),
    "own seeds": (Config(), Config(size=4), Config(size=4, seed=1)),
}


@dataclass(frozen=True)
class Results:
    config: Config
    numbers: dict[str, Any]


def run(config: Config, directory: Path, *, progress: Any = None) -> Results:
    starts = directory.parent / f"starts-{directory.name}"
    starts.parent.mkdir(parents=True, exist_ok=True)
    with open(starts, "a") as file:
        file.write("x")
    n_starts = starts.stat().st_size
    generator = torch.Generator().manual_seed(config.seed)
    inputs = torch.randn(N_STEPS, config.size, generator=generator)
    model = nn.Linear(config.size, 1)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.rate)
    with ps.Recorder(
        directory,
        model,
        optimizer,
        save={"gradients": ps.every(1)},
        checkpoint=ps.every(CHECKPOINT_EVERY),
        config=dataclasses.asdict(config) | {"act": "", "deaths": 0},
        resume=True,
    ) as recorder:
        first = recorder.step
        for step in range(first, N_STEPS):
            optimizer.zero_grad()
            loss = model(inputs[step : step + 1]).square().sum()
            loss.backward()
            optimizer.step()
            recorder.end_step()
            if progress is not None:
                progress(step / N_STEPS, "training")
            if step == ACT_AT:
                _act(config, directory, n_starts, progress)
    recorded = ps.open_run(directory).gradients
    return Results(
        config,
        {
            "weight": float(model.weight.detach().sum()),
            "trace": float(ps.gram(recorded).K.trace()),
            "starts": n_starts,
            "first step": first,
            "threads": torch.get_num_threads(),
            "process": os.getpid(),
        },
    )


def _act(config: Config, directory: Path, n_starts: int, progress: Any) -> None:
    if config.act == "raise":
        raise ArithmeticError(f"rate {config.rate} is not to its taste")
    if config.act == "die" and n_starts <= config.deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    if config.act == "hoard":
        hoard = bytearray(b"x") * 800_000_000
        while hoard:  # until it is killed for it
            time.sleep(0.02)
    if config.act == "hold":
        (directory / "holding").touch()
        try:
            while not (directory.parent / "release").exists():
                progress(ACT_AT / N_STEPS, "holding")
                time.sleep(0.02)
        finally:
            (directory / "holding").unlink()


def load(config: Config, directory: Path, numbers: dict[str, Any]) -> Results:
    return Results(config, numbers)


def summary(results: Results) -> dict[str, float]:
    return {"weight": results.numbers["weight"], "trace": results.numbers["trace"]}


def disk_bytes(config: Config) -> int:
    return config.disk


def for_storage(results: Sequence[Results]) -> list[dict[str, Any]]:
    return [{"config": dataclasses.asdict(r.config), "numbers": r.numbers} for r in results]


def claims(results: Sequence[Results]) -> list[Claim]:
    seeds = len({r.config.seed for r in results})
    sentence = f"{len(results)} runs."
    return [Claim("T1", "s", SOURCE, "r", None, None, "", "n", seeds, "not tested", sentence)]


def figures(results: Sequence[Results]) -> dict[str, Any]:
    return {}
