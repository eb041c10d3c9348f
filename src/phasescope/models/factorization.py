"""Matrix factorization Z = X Yᵀ of many seeds at once, with its gradients written out.

Axes: seed, rows and columns (both of length d), rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

FactorLoss = Literal["squared_error", "cross_entropy", "softmax_squared_error"]
Balance = Literal["random", "balanced"]
BLOCK = 2_000_000  # bytes of products held at once: about what two cores' own caches hold
_INITIAL = 1  # the random stream of initial values; targets draw from stream 0


def initial_factors(
    seeds: Sequence[int],
    *,
    d: int,
    rank: int,
    scale: float = 1.0,
    balance: Balance = "random",
    imbalance: float = 1.0,
) -> dict[str, Tensor]:
    r"""Initial factors "X" and "Y": entries from $N(0, \mathrm{scale}^2/d)$, in float64 on the CPU.

    A seed draws the same numbers whatever the other settings: `scale`, `balance` and `imbalance`
    change what is made of them, so that settings can be compared seed by seed.

    Args:
        seeds: One start each.
        d: Rows of X and of Y.
        rank: Columns of X and of Y, between 1 and d.
        scale: Length of a column, about.
        balance: "balanced" replaces Y by $Y (Y^\top Y)^{-1/2} (X^\top X)^{1/2}$, so that the
            conserved matrix $X^\top X - Y^\top Y$ is zero; "random" leaves it as drawn.
        imbalance: X is multiplied by this and Y divided by it: Z stays, the conserved matrix grows.

    Returns:
        The factors, seed × d × rank each.

    Raises:
        ValueError: There is no seed, the rank is not between 1 and d, or `scale` or `imbalance` is
            not positive.

    Example:
        >>> start = initial_factors([0, 1], d=8, rank=2, balance="balanced")
        >>> torch.allclose(start["X"].mT @ start["X"], start["Y"].mT @ start["Y"])
        True
    """
    if not seeds:
        raise ValueError("at least one seed is needed, but there is none. Pass seeds=[0, 1, ...].")
    if not 1 <= rank <= d:
        raise ValueError(f"the rank of d = {d} factors must be between 1 and {d}, not {rank}.")
    if balance not in get_args(Balance):
        raise ValueError(f"balance must be one of {get_args(Balance)}, but {balance!r} arrived.")
    for name, value in (("scale", scale), ("imbalance", imbalance)):
        if not value > 0:
            raise ValueError(f"{name} must be positive, but it is {value}.")
    drawn = [
        np.random.default_rng([seed, _INITIAL]).standard_normal((2, d, rank)) for seed in seeds
    ]
    X, Y = torch.from_numpy(np.stack(drawn, axis=1)) * (scale / d**0.5)
    if balance == "balanced":
        Y = Y @ _root(Y.mT @ Y, -0.5) @ _root(X.mT @ X, 0.5)
    # Columns lie together in memory: products with few columns are several times faster so.
    return {"X": _by_column(X * imbalance), "Y": _by_column(Y / imbalance)}


def _by_column(factors: Tensor) -> Tensor:
    return factors.mT.contiguous().mT


def _root(matrix: Tensor, power: float) -> Tensor:
    """A power of symmetric positive definite matrices."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ (values.pow(power).unsqueeze(-1) * vectors.mT)


class Factorization:
    r"""Loss and gradients of $Z = X Y^\top$ against one target per seed, without autograd.

    - "squared_error": $\frac12 \lVert C - Z \rVert_F^2$, a sum, not a mean.
    - "cross_entropy": $\mathrm{KL}(P \,\Vert\, Q) = \sum P (\ln P - \ln Q)$ in nats, with
      $P = \mathrm{softmax}(\mathrm{vec}\, C / T)$ and $Q = \mathrm{softmax}(\mathrm{vec}\, Z / T)$
      over all $d^2$ entries: the cross-entropy minus its smallest value. Zero if and only if Z is C
      plus a constant. Computed as $\sum (Q - P - P \ln(Q/P))$, in float32 to about 1e-7 nats, where
      the difference of two entropies would be known to 1e-6.
    - "softmax_squared_error": $\frac12 \lVert P - Q \rVert^2$.

    With $G = \partial L / \partial Z$ the gradients are $G Y$ and $G^\top X$. An instance is called
    by `train_ensemble`; the gradients that it returns are written over by its next call.

    Args:
        targets: The matrices C.
        loss: Which loss.
        temperature: T of the softmax; squared error has none.

    Raises:
        ValueError: If the temperature is not positive, or given to the squared error, if the
            targets lack an axis, or if factors do not fit them in shape or type.

    Example:
        >>> C = torch.eye(2).expand(1, 2, 2)
        >>> params = {"X": torch.ones(1, 2, 1), "Y": torch.ones(1, 2, 1)}
        >>> loss, grads = Factorization(C)(params, 0)
        >>> round(loss.item(), 4), grads["X"].flatten().tolist()
        (1.0, [1.0, 1.0])
    """

    def __init__(
        self,
        targets: Float[Tensor, "seed rows columns"],
        loss: FactorLoss = "squared_error",
        *,
        temperature: float = 1.0,
    ) -> None:
        if loss not in get_args(FactorLoss):
            raise ValueError(f"loss must be one of {get_args(FactorLoss)}, but {loss!r} arrived.")
        if not temperature > 0:
            raise ValueError(f"the temperature must be positive, but it is {temperature}.")
        if loss == "squared_error" and temperature != 1:
            raise ValueError(
                f"the squared error has no temperature, but got {temperature}. Leave it at 1, or "
                "take loss='cross_entropy'."
            )
        if targets.ndim != 3 or not targets.is_floating_point() or not len(targets):
            raise ValueError(
                "targets must have the axes seed, rows and columns in a floating-point type, but "
                f"their shape is {tuple(targets.shape)} and their type {targets.dtype}. One target "
                "for n seeds is C.expand(n, *C.shape)."
            )
        self.targets, self.loss, self.temperature = targets.contiguous(), loss, temperature
        if loss != "squared_error":
            logits = targets.flatten(1) / temperature
            self._log_p = torch.log_softmax(logits, 1).view_as(targets)
            self._p = self._log_p.exp()
        n_seeds, *shape = targets.shape
        # A block of products stays in the cache while everything is done with it.
        n = max(1, min(n_seeds, BLOCK // (shape[0] * shape[1] * targets.element_size())))
        self._blocks = [slice(i, min(i + n, n_seeds)) for i in range(0, n_seeds, n)]
        self._product = torch.empty((n, *shape), dtype=targets.dtype, device=targets.device)
        self._grads: dict[str, Tensor] = {}  # transposed

    def __call__(
        self, params: Mapping[str, Tensor], step: int = 0
    ) -> tuple[Float[Tensor, " seed"], dict[str, Tensor]]:
        """Loss and gradients of every seed."""
        X, Y = params["X"], params["Y"]
        if not self._grads or self._grads["X"].shape != X.mT.shape:
            self._check(X, Y)
            self._grads = {name: torch.empty_like(params[name].mT) for name in ("X", "Y")}
        losses = X.new_empty(len(X))
        for block in self._blocks:
            x, y = X[block], Y[block]
            Z = torch.bmm(x, y.mT, out=self._product[: len(x)])
            if self.loss == "squared_error":
                G = Z.sub_(self.targets[block])
                torch.linalg.vector_norm(G, dim=(1, 2), out=losses[block])
            else:
                G = self._softmax(Z, block, losses[block])
            # Few rows times a matrix is faster than a matrix times few columns.
            torch.bmm(y.mT, G.mT, out=self._grads["X"][block])
            torch.bmm(x.mT, G, out=self._grads["Y"][block])
        if self.loss == "squared_error":
            losses.square_().mul_(0.5)
        return losses, {name: grad.mT for name, grad in self._grads.items()}

    def _check(self, X: Tensor, Y: Tensor) -> None:
        shape, dtype = self.targets.shape, self.targets.dtype
        product = (len(X), X.shape[-2], Y.shape[-2])
        if product != tuple(shape) or {X.dtype, Y.dtype} != {dtype} or X.shape[2] != Y.shape[2]:
            raise ValueError(
                f"factors whose product has the shape {tuple(shape)} and the type {dtype} of the "
                f"targets are required, but X and Y have {tuple(X.shape)} and {tuple(Y.shape)}, "
                f"{X.dtype} and {Y.dtype}. Bring them to one type: `initial_factors` are float64."
            )

    def _softmax(self, Z: Tensor, block: slice, loss: Tensor) -> Tensor:
        """Gradient with respect to Z of a loss behind a softmax; its value goes into `loss`."""
        P, log_P = self._p[block], self._log_p[block]
        log_Q = torch.log_softmax(Z.div_(self.temperature).flatten(1), 1).view_as(Z)
        Q = torch.exp(log_Q, out=Z)
        if self.loss == "cross_entropy":
            G = Q.sub_(P)
            weighted = log_Q.sub_(log_P).mul_(P)
            torch.sum(torch.sub(G, weighted, out=weighted), dim=(1, 2), out=loss)
            return G.div_(self.temperature)
        difference = Q - P
        torch.linalg.vector_norm(difference, dim=(1, 2), out=loss)
        loss.square_().mul_(0.5)
        mean = (Q * difference).sum((1, 2), keepdim=True)
        return difference.sub_(mean).mul_(Q).div_(self.temperature)
