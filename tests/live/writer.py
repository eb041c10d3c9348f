"""A training in a process of its own, driven line by line: what `phasescope watch` looks at."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CHECKPOINT = 100
PATIENCE = 280.0  # seconds

# A fork of a process that has torch already begins at once.
_methods = multiprocessing.get_all_start_methods()
_context: Any = multiprocessing.get_context("forkserver" if "forkserver" in _methods else "spawn")
if "forkserver" in _methods:
    _context.set_forkserver_preload(["torch", "phasescope", "phasescope.trajectory.recorder"])


class Writer:
    """A process that records a run; it does what it is told and answers when it is committed."""

    def __init__(self, path: Path, seed: int = 0, *, n_steps: int = 1_000) -> None:
        self._pipe, theirs = _context.Pipe()
        self.process = _context.Process(target=write, args=(theirs, path, seed, n_steps))
        self.process.start()
        theirs.close()

    def train(self, n: int) -> int:
        """Do `n` updates and commit them; the number of updates done so far."""
        self._pipe.send(n)
        assert self._pipe.poll(PATIENCE)
        return self._pipe.recv()

    def end(self) -> None:
        """Complete the run."""
        self._pipe.send(None)
        self.process.join(PATIENCE)
        assert self.process.exitcode == 0
        self._pipe.close()

    def kill(self) -> None:
        """As ``kill -9`` does."""
        self.process.kill()
        self.process.join(PATIENCE)
        self._pipe.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.is_alive():
            self.kill()


def write(pipe: Connection, path: Path, seed: int, n_steps: int) -> None:
    """What the process does."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with recorder(path, n_steps) as recording:
        while (n := pipe.recv()) is not None:
            for _ in range(n):
                step(recording, generator)
            recording.flush()
            pipe.send(recording.step)


def recorder(path: Path, n_steps: int) -> Any:
    """A small network, recorded with checkpoints; a run that is there is taken up."""
    import torch
    from torch import nn

    import phasescope as ps

    torch.set_num_threads(1)
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    return ps.Recorder(
        path,
        model,
        optimizer,
        n_steps=n_steps,
        save={"norms": ps.every(1)},
        checkpoint=ps.every(CHECKPOINT),
        resume=True,
    )


def step(recording: Any, generator: Any) -> None:
    """One update: the loss falls from 250 to 350, while one tensor moves ten times as fast."""
    import torch

    at = recording.step
    for name, p in recording.model.named_parameters():
        fast = 10.0 if 250 <= at <= 350 and name == "1.weight" else 1.0
        p.grad = fast * torch.randn(p.shape, generator=generator)
    noise = 0.05 * torch.randn((), generator=generator).item()
    recording.log(loss=2.0 - 1.5 / (1 + (300 / (at + 1)) ** 12) + noise, noise=noise)
    recording.optimizer.step()
    recording.end_step()
