"""S-curves with a known place: factorizations of block matrices, features by their importance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

import phasescope as ps
from phasescope.experiments.phase_detection.modular import N_RECORDS
from phasescope.experiments.phase_detection.system import Params, Progress, System
from phasescope.models import initial_factors
from phasescope.training import EnsembleAdam, EnsembleSGD, ensemble_gradients

BLOCK = 5  # rows of a block


def factors_system(
    name: str,
    seeds: Sequence[int],
    *,
    strengths: Sequence[float] = (1.0, 0.25),
    start: float = 1e-3,
    noise: float = 0.02,
    learning_rate: float = 0.1,
    n_steps: int = 1500,
) -> System:
    r"""Gradient descent on $\frac12\lVert X Y^\top - C\rVert^2$ from small factors.

    C is block diagonal: every block holds one mode with its strength, the last block none. A mode
    rises in an S-curve at a time inverse to its strength, in the rows of its block, which are the
    components. C gets fresh noise at every step, as a batch has.
    """
    n_blocks = len(strengths) + 1
    d = n_blocks * BLOCK
    clean = torch.zeros(len(seeds), d, d)
    left, right = torch.zeros(2, len(seeds), n_blocks, d)
    for i, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        for b in range(n_blocks):
            rows = slice(b * BLOCK, (b + 1) * BLOCK)
            u, v = torch.randn(2, BLOCK, generator=generator)
            left[i, b, rows], right[i, b, rows] = u / u.norm(), v / v.norm()
        for b, strength in enumerate(strengths):
            clean[i] += strength * torch.outer(left[i, b], right[i, b])
    params = {
        k: v.float() for k, v in initial_factors(seeds, d=d, rank=n_blocks, scale=start).items()
    }
    generator = torch.Generator().manual_seed(seeds[0])

    def gradients(params: Params, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        C = clean + noise * torch.randn(clean.shape, generator=generator)
        E = params["X"] @ params["Y"].mT - C
        loss = E.square().sum((1, 2)) / 2
        return loss, {"X": E @ params["Y"], "Y": E.mT @ params["X"]}

    def squares(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            f"{n} block {b + 1}": tensors[n][:, b * BLOCK : (b + 1) * BLOCK].square().sum((1, 2))
            for n in "XY"
            for b in range(n_blocks)
        }

    def evaluate(params: Params) -> dict[str, Tensor]:
        Z = params["X"] @ params["Y"].mT
        found = {"test_loss": (Z - clean).square().sum((1, 2)) / 2}
        for b, strength in enumerate(strengths):
            found[f"mode {b + 1}"] = (left[:, b, None] @ Z @ right[:, b, :, None])[
                :, 0, 0
            ] / strength
        return found

    def place(b: int) -> Progress:
        names = (f"X block {b + 1}", f"Y block {b + 1}")
        return Progress(f"mode {b + 1}", 0.5, lambda params: [names] * len(seeds))

    return System(
        name,
        params,
        gradients,
        EnsembleSGD(learning_rate),
        n_steps,
        ps.log_spaced(N_RECORDS).steps(n_steps),
        squares,
        evaluate,
        [place(b) for b in range(len(strengths))],
    )


def features_system(
    name: str,
    seeds: Sequence[int],
    *,
    n_features: int = 3,
    d: int = 3,
    ratio: float = 0.25,
    probability: float = 0.2,
    start: float = 1e-2,
    learning_rate: float = 0.4,
    batch_size: int = 256,
    n_steps: int = 3000,
) -> System:
    """The toy model of superposition from small weights: features are learned by their importance.

    The autoencoder ReLU(W Wᵀ x + b) sees sparse features, the i-th of importance ratio to the i;
    each gets its direction in its own time. Components are the features' rows of W, and b.
    """
    importance = ratio ** torch.arange(n_features)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    W = torch.stack([start * torch.randn(n_features, d, generator=g) for g in generators])
    params = {"W": W, "b": torch.zeros(len(seeds), n_features)}

    def draw(n: int) -> Tensor:
        shape = (n, n_features)
        return torch.stack(
            [
                torch.rand(shape, generator=g) * (torch.rand(shape, generator=g) < probability)
                for g in generators
            ]
        )

    held_out = draw(2048)

    def loss(params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        y = (x @ params["W"] @ params["W"].mT + params["b"][:, None]).relu()
        return ((y - x).square() * importance).sum(-1).mean(1)

    def squares(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        rows = tensors["W"].square().sum(2)
        found = {f"feature {i + 1}": rows[:, i] for i in range(n_features)}
        return found | {"b": tensors["b"].square().sum(1)}

    def evaluate(params: Params) -> dict[str, Tensor]:
        lengths = params["W"].square().sum(2)
        found = {f"feature {i + 1}": lengths[:, i] for i in range(n_features)}
        return {"test_loss": loss(params, held_out), **found}

    return System(
        name,
        params,
        ensemble_gradients(lambda params, step: loss(params, draw(batch_size))),
        EnsembleSGD(learning_rate),
        n_steps,
        ps.log_spaced(N_RECORDS).steps(n_steps),
        squares,
        evaluate,
        [
            Progress(f"feature {i + 1}", 0.3, _always(f"feature {i + 1}", len(seeds)))
            for i in range(n_features)
        ],
    )


def parity_system(
    name: str,
    seeds: Sequence[int],
    *,
    n_bits: int = 20,
    k: int = 3,
    width: int = 64,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.01,
    n_steps: int = 2000,
) -> System:
    """The parity of k of n bits, by a network of one hidden layer on fresh batches with AdamW.

    Components are the input bits' weights, and the output weights; the event takes place in the
    bits of the parity, which a seed draws.

    References:
        Barak et al. (2022), "Hidden progress in deep learning", arXiv:2207.08799.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    bits = [torch.randperm(n_bits, generator=g)[:k].sort().values for g in generators]
    relevant = torch.zeros(len(seeds), n_bits)
    for i, chosen in enumerate(bits):
        relevant[i, chosen] = 1.0
    params = {
        "W_in": torch.stack([torch.randn(n_bits, width, generator=g) for g in generators])
        / n_bits**0.5,
        "b_in": torch.zeros(len(seeds), width),
        "W_out": torch.stack([torch.randn(width, 1, generator=g) for g in generators]) / width**0.5,
    }

    def draw(n: int) -> tuple[Tensor, Tensor]:
        x = (
            torch.stack([torch.randint(0, 2, (n, n_bits), generator=g) for g in generators]).float()
            * 2
            - 1
        )
        own = torch.stack([x[i][:, chosen].prod(1) for i, chosen in enumerate(bits)])
        return x, own

    held_out = draw(1024)

    def outputs(params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        hidden = (x @ params["W_in"] + params["b_in"][:, None]).relu()
        return (hidden @ params["W_out"]).squeeze(-1)

    def loss(params: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return torch.nn.functional.softplus(-y * outputs(params, x)).mean(1)

    def squares(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        rows = tensors["W_in"].square().sum(2)
        found = {f"bit {i + 1}": rows[:, i] for i in range(n_bits)}
        return found | {"W_out": tensors["W_out"].square().sum((1, 2))}

    def evaluate(params: Params) -> dict[str, Tensor]:
        rows = params["W_in"].square().sum(2)
        x, y = held_out
        return {
            "test_loss": loss(params, x, y),
            "test_accuracy": (outputs(params, x) * y > 0).float().mean(1),
            "share of the input weights on the bits": (rows * relevant).sum(1) / rows.sum(1),
        }

    names = [tuple(f"bit {int(b) + 1}" for b in chosen) for chosen in bits]
    return System(
        name,
        params,
        ensemble_gradients(lambda params, step: loss(params, *draw(batch_size))),
        EnsembleAdam(learning_rate, weight_decay=weight_decay, decoupled=True),
        n_steps,
        ps.log_spaced(N_RECORDS).steps(n_steps),
        squares,
        evaluate,
        [Progress("share of the input weights on the bits", 0.3, lambda params: names)],
        decay=learning_rate * weight_decay,
    )


def _always(component: str, n_seeds: int):
    return lambda params: [(component,)] * n_seeds
