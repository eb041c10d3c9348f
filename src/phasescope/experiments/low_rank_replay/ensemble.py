"""Many perceptrons trained as one batch, each with its own part of every update.

Letters: M models, k directions, P parameters; b samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

# Models with few directions do not pay for those of the others.
_BANDS = (20, 200, 10**9)


@dataclass(frozen=True)
class Member:
    """One model: which part of its updates it keeps, and which data it sees."""

    variant: str
    """What it is called."""
    k: int
    """Number of directions; 0 for none at all, which is full training."""
    order: Literal["original", "fresh"]
    """Order of the data."""
    source: str | None = None
    """Whose directions; None for full training."""
    keep: bool = True
    """Whether the directions are kept or left out."""
    rate: float = 1.0
    """Factor on the learning rate."""


class Ensemble:
    """Perceptrons with one hidden layer, all from the same weights, trained side by side.

    Every model has its own minibatch gradient at its own weights; models of one order share the
    minibatch. The optimizer's update is computed as PyTorch's SGD or Adam would, and projected
    then.

    Args:
        start: Weights to start from, as `MLP` has them.
        sizes: Width of input, hidden layer and output.
        members: The models; those of an order need not stand together.
        bases: Orthonormal rows for every source, most important direction first.
        optimizer: Rule of the updates.
        learning_rate: Of the updates.
    """

    def __init__(
        self,
        start: Float[Tensor, " P"],
        sizes: tuple[int, int, int],
        members: Sequence[Member],
        bases: dict[str, Float[Tensor, "k P"]],
        *,
        optimizer: Literal["sgd", "adam"],
        learning_rate: float,
    ) -> None:
        self.members = tuple(members)
        inputs, hidden, outputs = sizes
        shapes = ((hidden, inputs), (hidden,), (outputs, hidden), (outputs,))
        self._sizes = [torch.Size(shape).numel() for shape in shapes]
        M = len(members)
        self.layers = [
            part.view(shape).expand(M, *shape).clone()
            for part, shape in zip(start.split(self._sizes), shapes, strict=True)
        ]
        self._orders = {
            order: torch.tensor([i for i, m in enumerate(members) if m.order == order])
            for order in ("original", "fresh")
        }
        # Contiguous rows make the first layer one product per order.
        if any(m.order == "original" for m in members[len(self._orders["original"]) :]):
            raise ValueError("members of the original order come first")
        self._groups = list(_groups(members, bases, self._sizes))
        self._optimizer = optimizer
        self._learning_rate = learning_rate
        self._step = 0
        self._moments = (
            [[torch.zeros_like(p) for p in self.layers] for _ in range(2)]
            if optimizer == "adam"
            else []
        )

    def update(
        self, batches: dict[str, tuple[Float[Tensor, "b inputs"], Int64[Tensor, " b"]]]
    ) -> None:
        """One step of every model, each order on its batch."""
        updates = self._rule(self._gradients(batches))
        for group in self._groups:
            group.apply(updates)
        for layer, update in zip(self.layers, updates, strict=True):
            layer += update

    def _gradients(self, batches: dict[str, tuple[Tensor, Tensor]]) -> list[Tensor]:
        leaves = [layer.detach().requires_grad_() for layer in self.layers]
        loss = torch.zeros(())
        first = 0
        for order, (x, y) in batches.items():
            m = len(self._orders[order])
            if m == 0:
                continue
            out = logits([leaf[first : first + m] for leaf in leaves], x)
            first += m
            loss = loss + functional.cross_entropy(
                out.reshape(-1, out.shape[-1]), y.repeat(m), reduction="sum"
            ) / len(y)
        return list(torch.autograd.grad(loss, leaves))

    def _rule(self, grads: list[Tensor]) -> list[Tensor]:
        self._step += 1
        if self._optimizer == "sgd":
            return [g.mul_(-self._learning_rate) for g in grads]
        return adam_updates(grads, self._moments, self._step, self._learning_rate)


def adam_updates(
    grads: Sequence[Tensor], moments: Sequence[Sequence[Tensor]], step: int, learning_rate: float
) -> list[Tensor]:
    """Updates of Adam with PyTorch's defaults; the moments are changed in place.

    Args:
        grads: Gradients.
        moments: Running means of the gradients and of their squares.
        step: Number of this update, from 1.
        learning_rate: Of the updates.
    """
    beta1, beta2, eps = 0.9, 0.999, 1e-8
    updates = []
    for g, mean, square in zip(grads, *moments, strict=True):
        mean.lerp_(g, 1 - beta1)
        square.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        denominator = (square.sqrt() / (1 - beta2**step) ** 0.5).add_(eps)
        updates.append(mean.div(denominator).mul_(-learning_rate / (1 - beta1**step)))
    return updates


def logits(layers: Sequence[Tensor], x: Float[Tensor, "b inputs"]) -> Float[Tensor, "M b outputs"]:
    """Outputs of every model on the same inputs."""
    W1, b1, W2, b2 = layers
    M, hidden, inputs = W1.shape
    h = (x @ W1.reshape(M * hidden, inputs).T).view(len(x), M, hidden) + b1
    return torch.baddbmm(b2[:, None], h.relu().transpose(0, 1), W2.transpose(1, 2))


@torch.no_grad()
def evaluate(
    layers: Sequence[Tensor], x: Float[Tensor, "n inputs"], y: Int64[Tensor, " n"]
) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"]]:
    """Mean loss in nats and accuracy of every model; outputs that are not finite count as wrong."""
    losses, correct = [], []
    for first in range(0, len(layers[0]), 16):
        loss, right = torch.zeros(()), torch.zeros(())
        for xs, ys in zip(x.split(2000), y.split(2000), strict=True):
            out = logits([layer[first : first + 16] for layer in layers], xs)
            m = len(out)
            each = functional.cross_entropy(out.flatten(0, 1), ys.repeat(m), reduction="none")
            loss = loss + each.view(m, -1).sum(1)
            finite = out.isfinite().all(2)
            right = right + ((out.argmax(2) == ys) & finite).sum(1)
        losses.append(loss / len(x))
        correct.append(right / len(x))
    return torch.cat(losses), torch.cat(correct)


def split(weights: Float[Tensor, "M P"], sizes: tuple[int, int, int]) -> list[Tensor]:
    """The layers of models that are given as flat vectors."""
    inputs, hidden, outputs = sizes
    shapes = ((hidden, inputs), (hidden,), (outputs, hidden), (outputs,))
    parts = weights.split([torch.Size(shape).numel() for shape in shapes], dim=1)
    return [p.reshape(len(weights), *shape) for p, shape in zip(parts, shapes, strict=True)]


class _Group:
    """Models that share a basis, and what becomes of their updates."""

    def __init__(self, rows: list[int], members: Sequence[Member], basis: list[Tensor]) -> None:
        self._rows = torch.tensor(rows)
        self._basis = basis
        chosen = [members[i] for i in rows]
        ks = torch.tensor([m.k for m in chosen])
        self._mask = (torch.arange(len(basis[0])) < ks[:, None]).float()
        rate = torch.tensor([m.rate for m in chosen])
        keep = torch.tensor([m.keep for m in chosen])
        # update -> whole * update + part * (its part in the directions)
        self._whole = torch.where(keep, 0.0, 1.0)[:, None]
        self._part = torch.where(keep, rate, -1.0)[:, None]
        self._any_whole = bool(self._whole.any())

    def apply(self, updates: Sequence[Tensor]) -> None:
        own = [u.index_select(0, self._rows).flatten(1) for u in updates]
        coordinates = self._mask * sum(u @ B.T for u, B in zip(own, self._basis, strict=True))
        for update, u, B in zip(updates, own, self._basis, strict=True):
            changed = (self._part * coordinates) @ B
            if self._any_whole:
                changed += self._whole * u
            update.index_copy_(0, self._rows, changed.view(-1, *update.shape[1:]))


def _groups(members: Sequence[Member], bases: dict[str, Tensor], sizes: list[int]) -> Any:
    for source, basis in bases.items():
        low = 0
        for band in _BANDS:
            rows = [i for i, m in enumerate(members) if m.source == source and low < m.k <= band]
            if rows:
                held = basis[: max(members[i].k for i in rows)]
                yield _Group(rows, members, [b.contiguous() for b in held.split(sizes, dim=1)])
            low = band
