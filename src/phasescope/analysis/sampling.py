"""Which steps of a recorded trajectory to decompose, where not all of them can be.

Letters: T recorded steps, n sampled ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from phasescope.analysis.gram import Gram
from phasescope.analysis.selection import select_steps

Scheme = Literal["random", "even", "jittered", "norm-weighted"]


@dataclass(frozen=True, eq=False)
class StepSample:
    """Sampled steps, and what their rows are to be multiplied with."""

    steps: Int64[Tensor, " n"]
    """Step values, increasing."""
    weights: Float64[Tensor, " n"]
    """Factors of the rows: ones, unless steps were drawn with unequal probabilities."""


def sample_steps(gram: Gram, n: int, scheme: Scheme = "jittered", *, seed: int = 0) -> StepSample:
    r"""A sample of the steps of a trajectory.

    * "random": n of them, all sets alike.
    * "even": as evenly spaced as whole steps allow, first and last included. It aliases with
      whatever has the same period: if the stride divides the steps of an epoch, the same batches of
      each epoch are seen.
    * "jittered": one step at random from each of n equal stretches. As even as "even" and without
      aliasing.
    * "norm-weighted": step t with probability $\pi_t = \min(1, c \|x_t\|)$, where the $\pi_t$ sum
      to n, in one systematic draw; its row is to be divided by $\sqrt{\pi_t}$. The second moment
      $\sum_t x_t x_t^\top$ is estimated without bias, and the loud steps that make it up are in.

    Counts of singular values from samples of unequal size are not comparable: those of a signal
    grow with n, those of noise do not.

    Args:
        gram: Of the trajectory.
        n: Number of steps to draw.
        scheme: See above.
        seed: Of the draw; without effect on "even".

    Returns:
        The steps and the factors of their rows; `sampled_gram` applies them.

    Raises:
        ValueError: There are fewer steps than asked for (of norm above zero, if norm-weighted), n
            is not positive, or the scheme is another word.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> sample_steps(gram(torch.eye(9)), 3, "even").steps
        tensor([0, 4, 8])
    """
    norms = gram.K.diagonal().sqrt()
    available = int((norms > 0).sum()) if scheme == "norm-weighted" else len(norms)
    if scheme not in get_args(Scheme) or not 1 <= n <= available:
        raise ValueError(
            f"a sample needs a scheme of {get_args(Scheme)} and between 1 and {available} steps, "
            f"but scheme={scheme!r} and n={n} arrived."
        )
    T = len(norms)
    generator = np.random.default_rng(seed)
    weights = torch.ones(n, dtype=torch.float64)
    if scheme == "random":
        rows = np.sort(generator.choice(T, n, replace=False))
    elif scheme == "even":
        rows = np.round(np.linspace(0, T - 1, n)).astype(np.int64)
    elif scheme == "jittered":
        edges = np.round(np.linspace(0, T, n + 1)).astype(np.int64)
        rows = generator.integers(edges[:-1], edges[1:])
    else:
        shares = inclusion_probabilities(norms.numpy(), n)
        rows = _systematic(shares, generator)
        weights = torch.from_numpy(1 / np.sqrt(shares[rows]))
    return StepSample(gram.steps[torch.from_numpy(rows)], weights)


def sampled_gram(gram: Gram, sample: StepSample) -> Gram:
    """The Gram matrix of a sample: the rows that were drawn, times their factors.

    Args:
        gram: Of the trajectory that the sample was drawn from.
        sample: From `sample_steps`.

    Returns:
        Inner products, steps and row sums of the sample.

    Raises:
        ValueError: A step was not recorded.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> whole = gram(torch.diag(torch.tensor([1.0, 2.0, 3.0])))
        >>> sampled_gram(whole, sample_steps(whole, 2, "even")).K
        tensor([[1., 0.],
                [0., 9.]], dtype=torch.float64)
    """
    rows = select_steps(gram.steps, sample.steps)
    w = sample.weights
    K = gram.K[rows[:, None], rows] * w * w[:, None]
    return Gram(K, gram.steps[rows], gram.row_sums[rows] * w, gram.n_columns, {}, gram.eps)


def inclusion_probabilities(sizes: np.ndarray, n: int) -> np.ndarray:
    r"""Probabilities $\min(1, c\,a_t)$ that sum to n.

    Args:
        sizes: The $a_t$, not negative; at least n of them above zero.
        n: Their sum.

    Returns:
        One probability for each.

    Example:
        >>> inclusion_probabilities(np.array([10.0, 1.0, 1.0]), 2).tolist()
        [1.0, 0.5, 0.5]
    """
    certain = np.zeros(len(sizes), dtype=bool)
    while True:
        rest = sizes[~certain].sum()
        left = n - int(certain.sum())
        shares = np.where(certain, 1.0, left * sizes / rest if rest > 0 else 0.0)
        over = (shares >= 1) & ~certain
        if not over.any():
            return shares
        certain |= over


def _systematic(shares: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Rows of one systematic draw over a random order: each has exactly its probability."""
    order = generator.permutation(len(shares))
    ends = shares[order].cumsum()
    n = round(float(ends[-1]))
    marks = np.arange(n) + generator.random()
    drawn = np.searchsorted(ends * (n / ends[-1]), marks, side="right")
    return np.sort(order[np.minimum(drawn, len(order) - 1)])
