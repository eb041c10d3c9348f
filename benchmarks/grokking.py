"""A training step of the network that groks, beside TransformerLens and beside its products."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from rows import Row, summary
from torch import Tensor

from phasescope.datasets import modular_task, split_pairs
from phasescope.models import PairEnsemble, PairTransformer
from phasescope.training import (
    EnsembleAdam,
    EnsembleSteps,
    cross_entropy_float64,
    train_full_batch,
)

# TransformerLens 2 needs numpy<2, so it lives in an environment of its own.
OTHER_PYTHON = "PHASESCOPE_TRANSFORMER_LENS"
NAME = "HookedTransformer"
SETTINGS: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.98)}
WARM_UP = 3


@dataclass(frozen=True)
class Size:
    name: str
    p: int
    d_model: int
    d_mlp: int
    train_fraction: float
    turns: int


SOURCE = Size("p = 113", 113, 128, 512, 0.3, 15)
SMALL = Size("p = 59, width 64", 59, 64, 256, 0.4, 25)
TINY = Size("p = 7", 7, 8, 16, 0.5, 2)


def rows(*, quick: bool, scratch: Path) -> list[Row]:
    threads = torch.get_num_threads()
    if not quick:
        torch.set_num_threads(2)
    try:
        return [*step_rows(TINY if quick else SOURCE, quick=quick), *batch_rows(quick=quick)]
    finally:
        torch.set_num_threads(threads)


def step_rows(size: Size, *, quick: bool) -> list[Row]:
    """Eager and compiled, each beside TransformerLens and beside the matrix products."""
    found = []
    with hooked_transformer(size) as other:
        for compiled, goal, floor_goal in ((False, 3.5, 2.2), (True, 5.0, 1.6)):
            if compiled and quick:
                continue
            calls = {"floor": products(size)} | ({NAME: other} if other else {})
            times = training_times(single(size), calls, size.turns, compiled=compiled)
            how = "compiled" if compiled else "eager"
            detail = {"ours_s": summary(times["ours"])}
            theirs = summary(times[NAME]) if other else None
            found.append(
                Row(
                    f"Step with train and test loss, {size.name}, {how}",
                    detail["ours_s"]["median"],
                    theirs["median"] if theirs else None,
                    NAME,
                    goal=goal,
                    detail=detail | ({"other_s": theirs} if theirs else {}),
                    note=f"without {NAME}: {OTHER_PYTHON} is not set" if theirs is None else "",
                    quick=quick,
                )
            )
            found.append(floor_row(found[-1].name, times, floor_goal, quick=quick))
    return found


def floor_row(name: str, times: dict[str, list[float]], allowed: float, *, quick: bool) -> Row:
    floor, ours = summary(times["floor"]), summary(times["ours"])
    return Row(
        f"{name}: beside its matrix products alone",
        ours["median"],
        floor["median"],
        "products",
        goal=1 / allowed,
        detail={"ours_s": ours, "other_s": floor},
        note=f"{ours['median'] / floor['median']:.2f}x the products, {allowed}x allowed",
        quick=quick,
    )


def batch_rows(*, quick: bool) -> list[Row]:
    """Ten seeds as one batch, beside their products and beside one after another."""
    size = TINY if quick else SMALL
    n = 10
    one_by_one = [single(size, seed) for seed in range(n)]
    calls = {"floor": products(size, n), "alone": one_step_of_each(one_by_one)}
    times = training_times(batch(size, n), calls, size.turns)
    name = f"{n} seeds as one batch, {size.name}: a step with train and test loss"
    alone, ours = summary(times["alone"]), summary(times["ours"])
    beside = Row(
        name,
        ours["median"],
        alone["median"],
        "one after another",
        goal=1.4,
        detail={"ours_s": ours, "other_s": alone},
        quick=quick,
    )
    return [beside, floor_row(name, times, 3.0, quick=quick)]


Training = tuple[torch.nn.Module, torch.optim.Optimizer, Any, Any]


def examples(size: Size, seed: int) -> tuple[Any, Any]:
    task = modular_task("add", size.p)
    split = split_pairs(len(task.labels), size.train_fraction, seed=seed)
    return task.examples(split.train), task.examples(split.test)


def network(size: Size, seed: int) -> PairTransformer:
    generator = torch.Generator().manual_seed(seed)
    return PairTransformer(size.p, d_model=size.d_model, d_mlp=size.d_mlp, generator=generator)


def single(size: Size, seed: int = 0) -> Training:
    model = network(size, seed)
    optimizer = torch.optim.AdamW(model.parameters(), **SETTINGS, weight_decay=1.0, fused=True)
    return (model, optimizer, *examples(size, seed))


def batch(size: Size, n: int) -> Training:
    ensemble = PairEnsemble([network(size, seed) for seed in range(n)])
    rule = EnsembleAdam(**SETTINGS, weight_decay=1.0, decoupled=True)
    sets = [examples(size, seed) for seed in range(n)]
    train, test = (
        tuple(torch.stack([s[part][i] for s in sets]) for i in (0, 1)) for part in (0, 1)
    )
    return ensemble, EnsembleSteps(ensemble, rule), train, test


def training_times(
    training: Training,
    others: dict[str, Callable[[], float | None]],
    turns: int,
    *,
    compiled: bool = False,
) -> dict[str, list[float]]:
    """Seconds of each step of a training, and of other calls made between its steps."""
    times: dict[str, list[float]] = {name: [] for name in ("ours", *others)}
    since = perf_counter()

    def on_step(step: int, metrics: dict[str, Tensor]) -> None:
        nonlocal since
        if step > WARM_UP:
            times["ours"].append(perf_counter() - since)
        for name, call in others.items():
            start = perf_counter()
            told = call()
            seconds = perf_counter() - start if told is None else told
            if step > WARM_UP:
                times[name].append(seconds)
        since = perf_counter()

    model, optimizer, train, test = training
    steps = WARM_UP + turns
    train_full_batch(model, optimizer, train, test, steps, on_step=on_step, compiled=compiled)
    # After the last update the training set is evaluated once more: no step like the others.
    return {name: values[:-1] for name, values in times.items()}


def one_step_of_each(trainings: list[Training]) -> Callable[[], None]:
    """A step with train and test loss of every training, one after another."""
    steppers = [stepper(training) for training in trainings]

    def call() -> None:
        for step in steppers:
            next(step)

    return call


def stepper(training: Training) -> Iterator[None]:
    """What `train_full_batch` does in a step, one step at a time."""
    model, optimizer, train, test = training
    while True:
        optimizer.zero_grad(set_to_none=True)
        losses, _ = measure(model, *train)
        losses.backward()
        with torch.no_grad():
            for block in zip(test[0].split(2048), test[1].split(2048), strict=True):
                measure(model, *block)
        optimizer.step()
        yield


def measure(model: torch.nn.Module, pairs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    logits = model(pairs)
    accuracy = (logits.detach().argmax(-1) == labels).double().mean()
    return cross_entropy_float64(logits, labels).mean(), accuracy


def products(size: Size, n_seeds: int | None = None) -> Callable[[], None]:
    """The matrix products of a step at the last position, into memory that is there already.

    W_O, W_in, W_out and W_U: forward on both sets, and twice more on the training set.
    """
    lead = () if n_seeds is None else (n_seeds,)
    d, m = size.d_model, size.d_mlp
    shapes = ((d, d), (d, m), (m, d), (d, size.p + 1))
    n_train = int(size.train_fraction * size.p**2)
    todo: list[tuple[Tensor, Tensor, Tensor]] = []

    def plan(a: Tensor, b: Tensor) -> None:
        todo.append((a, b, torch.empty(*lead, a.shape[-2], b.shape[-1])))

    for k, out in shapes:
        W = torch.randn(*lead, k, out)
        for n in (n_train, size.p**2 - n_train):
            plan(torch.randn(*lead, n, k), W)
        x, gradient = torch.randn(*lead, n_train, k), torch.randn(*lead, n_train, out)
        plan(gradient, W.mT)
        plan(x.mT, gradient)

    def call() -> None:
        for a, b, out in todo:
            torch.matmul(a, b, out=out)

    return call


@contextmanager
def hooked_transformer(size: Size) -> Iterator[Callable[[], float] | None]:
    """A call that makes one step of the same training with TransformerLens; None without it.

    It runs in a process of its own, which waits while ours is timed.
    """
    python = os.environ.get(OTHER_PYTHON)
    if python is None:
        yield None
        return
    script = Path(__file__).with_name("grokking_hooked_transformer.py")
    settings = {"p": size.p, "d_model": size.d_model, "d_mlp": size.d_mlp, "threads": 2}
    settings |= {"train_fraction": size.train_fraction}
    process = subprocess.Popen(
        [python, str(script), json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def call() -> float:
        stdin.write("step\n")
        stdin.flush()
        while not (line := stdout.readline()).startswith("seconds "):
            if not line:
                raise RuntimeError(f"{script.name} ended: run it by hand to see why")
        return float(line.split()[1])

    try:
        call()
        print(f"  {NAME}: ready", file=sys.stderr, flush=True)
        yield call
    finally:
        stdin.close()
        process.wait(timeout=30)
