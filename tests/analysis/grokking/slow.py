"""Slow, obvious float64 versions of the grokking measures, for cyclic groups: waves written out."""

import math

import torch
from torch import Tensor


def waves(n: int, k: int, turns: Tensor) -> list[Tensor]:
    """Unit cosine and sine of k turns / n; the cosine alone where the sine vanishes."""
    angle = 2 * math.pi * k * turns.double() / n
    found = [angle.cos()] if 2 * k == n else [angle.cos(), angle.sin()]
    return [wave / wave.norm() for wave in found]


def pair_sums(n: int) -> Tensor:
    i = torch.arange(n)
    return i[:, None] + i


def projected(values: Tensor, directions: list[Tensor]) -> Tensor:
    """The part of values [n, n, c] in the span of orthonormal directions [n, n]."""
    U = torch.stack([d.flatten() for d in directions], 1)
    flat = values.double().flatten(0, 1)
    return (U @ (U.T @ flat)).reshape(values.shape)


def sum_directions(n: int, keys: list[int]) -> list[Tensor]:
    return [wave for k in keys for wave in waves(n, k, pair_sums(n))]


def product_directions(n: int, k: int, with_constant: bool) -> list[Tensor]:
    """Products of one operand's waves with the other's."""
    rows = waves(n, k, torch.arange(n))
    rows += [torch.full((n,), n**-0.5, dtype=torch.float64)] if with_constant else []
    return [torch.outer(a, b) for a in rows for b in rows]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(
        logits.double().flatten(0, 1), labels.flatten(), reduction="none"
    ).reshape(labels.shape)


def cube(n: int, k: int) -> Tensor:
    """cos(w(a + b - c)) over all triples, of norm 1."""
    i = torch.arange(n)
    return waves(n, k, i[:, None, None] + i[:, None] - i)[0]


def purity(activations: Tensor, k: int) -> Tensor:
    """Share of every neuron's variance in the 3x3 block of one frequency."""
    n = len(activations)
    centred = activations.double() - activations.double().mean((0, 1))
    block = projected(centred, product_directions(n, k, with_constant=True))
    return block.square().sum((0, 1)) / centred.square().sum((0, 1))


def random_values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
