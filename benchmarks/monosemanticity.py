"""A grid of feature models as one batch, beside a loop over models and the products alone."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from ensembles import one_thread
from rows import Row, alternate, summary
from torch.nn import functional

from phasescope.datasets import SparseFeatures, feature_directions, feature_frequencies
from phasescope.models import FeatureLoss, initial_feature_model
from phasescope.training import EnsembleAdam, EnsembleLAMB, EnsembleOptimizer, train_ensemble


@dataclass(frozen=True)
class Sizes:
    n_models: int = 64
    n_features: int = 128
    d: int = 32
    n_neurons: int = 256
    batch_size: int = 128
    density: float = 1 / 64
    batch_steps: int = 20
    loop_models: int = 2  # of the loop, whose time grows with their number and nothing else
    loop_steps: int = 150
    turns: int = 5


QUICK = Sizes(
    n_models=4, n_features=12, d=4, n_neurons=16, batch_size=8, batch_steps=3, loop_models=1,
    loop_steps=3, turns=1,
)  # fmt: skip


def rows(*, quick: bool, scratch: Path) -> list[Row]:
    sizes = QUICK if quick else Sizes()
    rates = torch.logspace(-3, -1.5, sizes.n_models)  # the grid
    P = torch.stack(
        [feature_directions(sizes.n_features, sizes.d, seed=s) for s in range(sizes.n_models)]
    )
    calls = {
        "batch": lambda: batch(sizes, P, EnsembleAdam(rates)),
        "batch, LAMB": lambda: batch(sizes, P, EnsembleLAMB(rates)),
        "loop": lambda: loop(sizes, P, rates, fused=False),
        "loop, fused": lambda: loop(sizes, P, rates, fused=True),
        "products": products(sizes),
    }
    alternate(calls, 1)  # the first calls set things up
    times = alternate(calls, sizes.turns)
    in_batch = sizes.n_models * sizes.batch_steps
    in_loop = sizes.loop_models * sizes.loop_steps
    each = {
        name: summary([t / (in_loop if name.startswith("loop") else in_batch) for t in measured])
        for name, measured in times.items()
    }
    title = (
        f"One step of one of {sizes.n_models} feature models, N = {sizes.n_features}, "
        f"d = {sizes.d}, k = {sizes.n_neurons}, data included"
    )
    others = {
        "loop": ("loop over models, autograd and torch.optim.Adam, dense draws (1 thread)", 3.0),
        "loop, fused": ("the same with fused=True", 3.0),
        "products": ("its matrix products alone, in memory that is there", 1 / 3.5),
        "batch, LAMB": ("the batch with LAMB", None),
    }
    return [
        Row(
            title,
            each["batch"]["median"],
            each[other]["median"],
            name,
            goal,
            detail={which: each[which] for which in ("batch", other)},
            note=f"{each['batch']['median'] / each[other]['median']:.2f} times the products; "
            "allowed 3.5"
            if other == "products"
            else "",
            quick=quick,
        )
        for other, (name, goal) in others.items()
    ]


def start(sizes: Sizes) -> dict[str, torch.Tensor]:
    return initial_feature_model(
        range(sizes.n_models),
        d=sizes.d,
        n_neurons=sizes.n_neurons,
        n_outputs=sizes.n_features,
    )


def batch(sizes: Sizes, P: torch.Tensor, optimizer: EnsembleOptimizer) -> None:
    features = SparseFeatures(
        feature_frequencies(sizes.n_features, sizes.density),
        n_models=sizes.n_models,
        batch_size=sizes.batch_size,
        seed=0,
    )
    loss = FeatureLoss(features.draw, P)
    train_ensemble(start(sizes), loss, optimizer, sizes.batch_steps)


def loop(sizes: Sizes, P: torch.Tensor, rates: torch.Tensor, *, fused: bool) -> None:
    """What one would write without the ensemble; at one thread, where it is fastest."""
    generator = torch.Generator().manual_seed(0)
    shape = (sizes.batch_size, sizes.n_features)
    begin = start(sizes)
    with one_thread():
        for model in range(sizes.loop_models):
            W_in, b_in, W_out = (
                begin[name][model].clone().requires_grad_() for name in ("W_in", "b_in", "W_out")
            )
            rate = rates[model].item()
            optimizer = torch.optim.Adam([W_in, b_in, W_out], lr=rate, fused=fused)
            losses = []
            for _ in range(sizes.loop_steps):
                active = torch.rand(shape, generator=generator) < sizes.density
                v = torch.rand(shape, generator=generator) * active
                optimizer.zero_grad()
                y = functional.linear(
                    torch.relu(functional.linear(v @ P[model].T, W_in, b_in)), W_out
                )
                loss = (y - v).square().sum(1).mean()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())


def products(sizes: Sizes) -> Callable[[], None]:
    """The six products of a step, forward and backward, of all models; nothing else."""
    S, B, N, d, k = (
        sizes.n_models,
        sizes.batch_size,
        sizes.n_features,
        sizes.d,
        sizes.n_neurons,
    )
    v, x, h, error = (torch.rand(S, B, n) for n in (N, d, k, N))
    P, W_in, W_out = torch.rand(S, d, N), torch.rand(S, k, d), torch.rand(S, N, k)
    to_x, to_h, to_y = torch.empty(S, B, d), torch.empty(S, B, k), torch.empty(S, B, N)
    to_in, to_out = torch.empty(S, k, d), torch.empty(S, N, k)

    def call() -> None:
        for _ in range(sizes.batch_steps):
            torch.bmm(v, P.mT, out=to_x)
            torch.bmm(x, W_in.mT, out=to_h)
            torch.bmm(h, W_out.mT, out=to_y)
            torch.bmm(error, W_out, out=to_h)
            torch.bmm(h.mT, x, out=to_in)
            torch.bmm(error.mT, h, out=to_out)

    return call
