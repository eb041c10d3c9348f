"""Seeds of a matrix factorization trained as one batch, beside a loop over seeds with autograd."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rows import Row, alternate, summary

from phasescope.datasets import low_rank_targets
from phasescope.models import Factorization, initial_factors
from phasescope.training import EnsembleAdam, ensemble_gradients, train_ensemble

RATE = 0.01


@dataclass(frozen=True)
class Sizes:
    n_seeds: int = 256
    d: int = 100
    rank: int = 10
    batch_steps: int = 60
    loop_seeds: int = 4  # of the loop, whose time grows with their number and nothing else
    loop_steps: int = 150
    turns: int = 5


QUICK = Sizes(n_seeds=8, d=10, rank=2, batch_steps=5, loop_seeds=1, loop_steps=5, turns=1)


def rows(*, quick: bool, scratch: Path) -> list[Row]:
    sizes = QUICK if quick else Sizes()
    seeds = range(sizes.n_seeds)
    targets = low_rank_targets(seeds, d=sizes.d, rank=sizes.rank).to("cpu", torch.float32)
    start = {
        name: value.float()
        for name, value in initial_factors(seeds, d=sizes.d, rank=sizes.rank).items()
    }
    C = targets.matrices
    calls = {
        "batch": lambda: batch(sizes, C, start, Factorization(C)),
        "batch, autograd": lambda: batch(sizes, C, start, ensemble_gradients(loss_of(C))),
        "loop": lambda: loop(sizes, C, start, fused=False),
        "loop, fused": lambda: loop(sizes, C, start, fused=True),
    }
    alternate(calls, 1)  # the first calls set things up
    times = alternate(calls, sizes.turns)
    batch_work, loop_work = sizes.n_seeds * sizes.batch_steps, sizes.loop_seeds * sizes.loop_steps
    each = {
        name: summary([t / (batch_work if "batch" in name else loop_work) for t in measured])
        for name, measured in times.items()
    }
    title = f"One step of one seed of {sizes.n_seeds}, d = {sizes.d}, rank {sizes.rank}, Adam"
    goals = {"loop": 25.0, "loop, fused": 20.0, "batch, autograd": None}
    names = {
        "loop": "loop over seeds, autograd and torch.optim.Adam (1 thread)",
        "loop, fused": "the same with fused=True",
        "batch, autograd": "the batch with autograd",
    }
    return [
        Row(
            title,
            each["batch"]["median"],
            each[other]["median"],
            names[other],
            goal,
            detail={name: each[name] for name in ("batch", other)},
            quick=quick,
        )
        for other, goal in goals.items()
    ]


def loss_of(C: torch.Tensor) -> Callable[[dict[str, torch.Tensor], int], torch.Tensor]:
    return lambda params, step: (params["X"] @ params["Y"].mT - C).square().sum((1, 2)) / 2


def batch(sizes: Sizes, C: torch.Tensor, start: dict[str, torch.Tensor], gradients) -> None:
    params = {name: value.clone() for name, value in start.items()}
    train_ensemble(params, gradients, EnsembleAdam(RATE), sizes.batch_steps)


def loop(sizes: Sizes, C: torch.Tensor, start: dict[str, torch.Tensor], *, fused: bool) -> None:
    """What one would write without the ensemble; at one thread, where it is fastest."""
    with one_thread():
        for seed in range(sizes.loop_seeds):
            X, Y = (start[name][seed].clone().requires_grad_() for name in "XY")
            optimizer = torch.optim.Adam([X, Y], lr=RATE, fused=fused)
            losses = []
            for _ in range(sizes.loop_steps):
                optimizer.zero_grad()
                loss = (X @ Y.T - C[seed]).square().sum() / 2
                loss.backward()
                optimizer.step()
                losses.append(loss.item())


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
