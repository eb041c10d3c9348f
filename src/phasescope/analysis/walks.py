"""What principal components show of a random walk: the null of weights, logits and losses.

Letters: n points of the walk, k singular values, u updates, d columns, D draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from phasescope.analysis.spectrum import Center

# Noise of this many updates is propagated at once: bounds the memory, not the result.
_BLOCK = 4096


def random_walk_values(n_points: int, *, centered: bool = True) -> Float64[Tensor, " k"]:
    r"""Singular values of a random walk in very many dimensions, with increments of norm one.

    Centred over the points $x_1, \dots, x_n$: $s_k = 1 / (2 \sin(\pi k / 2n))$, k = 1 ... n - 1,
    with the time vectors $\cos(\pi k (t - 1/2) / n)$; the shares of variance tend to
    $6 / (\pi k)^2$: 60.8, 15.2, 6.8, 3.8 %, whatever the length. Measured from the origin:
    $s_k = 1 / (2 \sin(\pi (2k - 1) / (4n + 2)))$, so that $s_k / s_1 \approx 1 / (2k - 1)$ and
    first shares of 81.1, 9.0, 3.2 %.

    So a weight trajectory of which five singular values exceed a tenth of the largest is what pure
    noise gives. Exact for independent increments of equal scale in the limit of many dimensions;
    otherwise see `walk_null`.

    Args:
        n_points: Number of points n. A starting point at the origin counts as a point if centred.
        centered: Whether the mean over the points was subtracted.

    Returns:
        n - 1 values if centred, else n, descending.

    Raises:
        ValueError: There are fewer than two points.

    Example:
        >>> S = random_walk_values(400)
        >>> [round(100 * float(share), 1) for share in (S**2 / (S**2).sum())[:4]]
        [60.8, 15.2, 6.8, 3.8]

    References:
        Antognini & Sohl-Dickstein (2018), "PCA of high dimensional random walks with comparison to
        neural network training", arXiv:1806.08805, section 2 (the denominator of eq. 12 is
        misprinted: the trace is (n² - 1) / 6).
    """
    if n_points < 2:
        raise ValueError(f"a walk has at least two points, but n_points={n_points} arrived.")
    if centered:
        k = torch.arange(1, n_points, dtype=torch.float64)
        return 1 / (2 * (math.pi * k / (2 * n_points)).sin())
    k = torch.arange(1, n_points + 1, dtype=torch.float64)
    return 1 / (2 * (math.pi * (2 * k - 1) / (4 * n_points + 2)).sin())


def random_walk_time_vectors(n_points: int, k: int) -> Float64[Tensor, "n k"]:
    r"""The first k time vectors of a centred random walk: $\cos(\pi k (t - 1/2) / n)$, normalised.

    A line, a parabola, a cubic, ...: the curves that principal components of a training often
    show. A drift at constant speed puts 98.6 % of its energy into the first and none into the even
    ones, so that the even components tell a walk from a drift and the first does not.

    Args:
        n_points: Number of points n.
        k: Number of vectors, at most n - 1.

    Returns:
        Orthonormal columns.

    Raises:
        ValueError: k is not between 1 and n - 1.

    Example:
        >>> bool(random_walk_time_vectors(50, 2)[:, 1].argmin() in (24, 25))  # a parabola
        True

    References:
        Antognini & Sohl-Dickstein (2018), arXiv:1806.08805, section 2.
    """
    if not 1 <= k < n_points:
        raise ValueError(
            f"a centred walk of {n_points} points has 1 to {n_points - 1} time vectors, but k={k} "
            "arrived."
        )
    t = torch.arange(n_points, dtype=torch.float64)[:, None] + 0.5
    index = torch.arange(1, k + 1, dtype=torch.float64)
    return (math.pi * index * t / n_points).cos() * math.sqrt(2 / n_points)


@dataclass(frozen=True, eq=False)
class WalkNull:
    """Singular values of random walks with the norms and the optimizer of a training."""

    S: Float64[Tensor, " k"]
    """Median over the draws of each singular value."""
    draws: Float64[Tensor, "D k"]
    """Singular values of every draw; a single one in the limit of many dimensions."""
    time_vectors: Float64[Tensor, "n k"]
    """Unit time vectors of the expected walk: what principal components of noise look like."""
    steps: Int64[Tensor, " n"]
    """Steps at which the walk was observed: updates applied by then."""
    center: Center
    """Centring of the trajectory that it belongs to."""
    normalize: bool
    """Always False: a walk's points are not scaled to norm one."""

    @property
    def shares(self) -> Float64[Tensor, "D k"]:
        """Share of each component in the variance of its draw."""
        return self.draws**2 / (self.draws**2).sum(1, keepdim=True)


def walk_null(
    scales: Float[Tensor, " u"],
    steps: Int64[Tensor, " n"],
    *,
    learning_rates: Float[Tensor, " u"] | float | int = 1.0,
    momentum: float | int = 0.0,
    nesterov: bool = False,
    weight_decay: float | int = 0.0,
    decoupled: bool = False,
    center: Center = "steps",
    n_dimensions: int | None = None,
    n_draws: int = 100,
    seed: int = 0,
) -> WalkNull:
    r"""Singular values of a training whose gradients were independent noise of the given norms.

    SGD is linear in the gradients, so the observed points are $X = M Z$, with Z one independent
    row of noise for each update and M (points × updates) what scales, learning rates, momentum and
    weight decay make of them. M is found by running the optimizer on symbolic noise. For isotropic
    Gaussian noise in d dimensions $X X^\top$ has the distribution of $C W C^\top$, with
    $C C^\top = M M^\top$ and W a Wishart matrix of d degrees of freedom, whose Cholesky factor has
    independent normal and $\chi$ entries (Bartlett): the draws are exact for any d and no matrix
    with d columns is ever made. Without `n_dimensions` the limit $M M^\top$ is returned.

    Adaptive optimizers are not linear: pass the recorded norms of the *updates* as scales and leave
    the rest alone. Weights then start from zero displacement, as they do here always: subtract the
    initial weights, or centre over steps.

    Minibatch noise is correlated between parameters: it behaves like isotropic noise of
    `effective_dimension` columns, which may be a hundredth of the parameters.

    Args:
        scales: Norm of each gradient (or update), first update first.
        steps: When the walk is observed: numbers of updates applied, increasing; 0 is the start.
        learning_rates: Of each update, or one for all.
        momentum: As of `torch.optim.SGD`, without dampening.
        nesterov: As of `torch.optim.SGD`.
        weight_decay: As of `torch.optim.SGD`; acts on the displacement.
        decoupled: Whether the decay acts on the weights (as in AdamW), not through the gradient.
        center: "steps" or "none".
        n_dimensions: Dimensions d of the noise; None for the limit.
        n_draws: Draws, if d is given.
        seed: Of the draws.

    Returns:
        Singular values, scaled so that squared scales are expected squared norms; as many as points
        (or as d, if fewer).

    Raises:
        ValueError: Steps do not fit the updates, lengths differ, or a number is out of range.

    Example:
        >>> null = walk_null(torch.ones(50), torch.arange(1, 51))
        >>> torch.allclose(null.S[:-1], random_walk_values(50))
        True

    References:
        Antognini & Sohl-Dickstein (2018), arXiv:1806.08805, sections 2 and 3. Bartlett (1933), "On
        the theory of statistical regression", Proc. R. Soc. Edinburgh 53.
    """
    rates = _check_walk(scales, steps, learning_rates, center, n_dimensions, n_draws)
    if not (0 <= momentum < 1 and 0 <= weight_decay < math.inf):
        raise ValueError(
            "momentum must lie in [0, 1) and weight_decay be finite and >= 0, but "
            f"momentum={momentum} and weight_decay={weight_decay} arrived: such a walk diverges."
        )
    K = torch.zeros(len(steps), len(steps), dtype=torch.float64)
    for first in range(0, len(scales), _BLOCK):
        M = _responses(
            scales.double(), rates, steps, first, float(momentum), nesterov, float(weight_decay),
            decoupled,
        )  # fmt: skip
        K += M @ M.T
    if n_dimensions is None:
        draws = walk_values(K, center)[None]
    else:
        C = _square_root(K)
        generator = np.random.default_rng(seed)
        factors = (wishart_factor(len(K), n_dimensions, generator) for _ in range(n_draws))
        # Noise of d dimensions has d times the energy of one: rows of Z have norm one on average.
        draws = torch.stack(
            [walk_values((B := C @ L) @ B.T / n_dimensions, center) for L in factors]
        )
        draws = draws[:, : min(len(K), n_dimensions)]
    vectors = expected_time_vectors(K, center, draws.shape[1])
    return WalkNull(draws.quantile(0.5, dim=0), draws, vectors, steps.clone(), center, False)


def wishart_factor(
    n: int, n_dimensions: int, generator: np.random.Generator
) -> Float64[Tensor, "n m"]:
    """A matrix L such that L Lᵀ is distributed like Z Zᵀ, Z standard normal of n × d.

    Args:
        n: Rows.
        n_dimensions: Columns d of Z.
        generator: Source of the draws.

    Returns:
        Bartlett's lower triangle of n × n if d >= n, else n × d normal values.

    Example:
        >>> wishart_factor(3, 10**9, np.random.default_rng(0)).shape
        torch.Size([3, 3])
    """
    if n_dimensions < n:
        return torch.from_numpy(generator.standard_normal((n, n_dimensions)))
    L = np.tril(generator.standard_normal((n, n)), -1)
    L[np.diag_indices(n)] = np.sqrt(generator.chisquare(n_dimensions - np.arange(n)))
    return torch.from_numpy(L)


def _responses(
    scales: Tensor,
    rates: Tensor,
    steps: Tensor,
    first: int,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    decoupled: bool,
) -> Float64[Tensor, "n b"]:
    """How far each observed point moves per unit of noise in a block of updates."""
    n = min(_BLOCK, len(scales) - first)
    weights, velocity = torch.zeros(2, n, dtype=torch.float64)
    rows = torch.zeros(len(steps), n, dtype=torch.float64)
    wanted = {step: row for row, step in enumerate(steps.tolist())}
    for update in range(first, int(steps[-1])):
        gradient = torch.zeros(n, dtype=torch.float64)
        rate = float(rates[update])
        if update < first + n:
            gradient[update - first] = scales[update]
        if weight_decay and decoupled:
            weights = weights * (1 - rate * weight_decay)
        elif weight_decay:
            gradient = gradient + weight_decay * weights
        velocity = momentum * velocity + gradient
        direction = gradient + momentum * velocity if nesterov else velocity
        weights = weights - rate * direction
        if update + 1 in wanted:
            rows[wanted[update + 1]] = weights
    return rows


def walk_values(K: Float64[Tensor, "n n"], center: Center) -> Float64[Tensor, " n"]:
    """Singular values of a walk whose points have these inner products."""
    values = torch.linalg.eigvalsh(_centered(K, center)).flip(0).clamp(min=0).sqrt()
    if center == "steps":
        values[-1] = 0.0  # centring removes one dimension exactly
    return values


def expected_time_vectors(
    K: Float64[Tensor, "n n"], center: Center, k: int
) -> Float64[Tensor, "n k"]:
    """Unit time vectors of a walk with these expected inner products, largest entry positive."""
    U = torch.linalg.eigh(_centered(K, center)).eigenvectors.flip(1)[:, :k]
    return U * U.gather(0, U.abs().argmax(0, keepdim=True)).sign()


def _centered(K: Float64[Tensor, "n n"], center: Center) -> Float64[Tensor, "n n"]:
    if center == "steps":
        K = K - K.mean(0)
        K = K - K.mean(1, keepdim=True)
    return (K + K.T) / 2


def _square_root(K: Float64[Tensor, "n n"]) -> Float64[Tensor, "n n"]:
    """C with C Cᵀ = K; K may be singular (a point at the start is zero)."""
    values, vectors = torch.linalg.eigh(K)
    return vectors * values.clamp(min=0).sqrt()


def _check_walk(
    scales: Tensor,
    steps: Tensor,
    learning_rates: Tensor | float | int,
    center: str,
    n_dimensions: int | None,
    n_draws: int,
) -> Float64[Tensor, " u"]:
    """The learning rate of every update."""
    n = len(scales)
    if len(steps) < 2 or int(steps[0]) < 0 or int(steps[-1]) > n or bool((steps.diff() < 1).any()):
        raise ValueError(
            f"steps must be at least two increasing numbers of updates between 0 and {n}, the "
            f"number of scales, but {len(steps)} arrived, beginning {steps[:3].tolist()} and "
            f"ending {steps[-1:].tolist()}."
        )
    rates = torch.as_tensor(learning_rates, dtype=torch.float64)
    rates = rates.expand(n) if rates.ndim == 0 else rates
    if len(rates) != n or not bool(rates.isfinite().all() and scales.isfinite().all()):
        raise ValueError(
            f"every one of the {n} updates needs a finite scale and a finite learning rate, but "
            f"{len(rates)} learning rates arrived, or one is not finite."
        )
    moves = (scales * rates)[: int(steps[-1])]
    if bool((scales < 0).any()) or not bool((moves != 0).any()):
        raise ValueError(
            "scales are norms: they must be >= 0 and, times the learning rates, not all zero up to "
            f"the last step, but they range from {float(scales.min()):.3g} to "
            f"{float(scales.max()):.3g}. Pass the recorded norms of gradients or updates."
        )
    if center not in ("none", "steps"):
        raise ValueError(
            f"center must be 'none' or 'steps' for a walk, but {center!r} arrived: isotropic noise "
            "has no mean over many parameters."
        )
    if n_draws < 1 or (n_dimensions is not None and n_dimensions < 1):
        raise ValueError(
            f"n_draws and n_dimensions must be at least 1, but n_draws={n_draws} and "
            f"n_dimensions={n_dimensions} arrived."
        )
    return rates
