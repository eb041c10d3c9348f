"""How subspaces of a trajectory relate to its other steps, from blocks of its Gram matrix.

Letters: T steps, n sampled ones, h held-out ones, k components.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from phasescope.analysis.gram import Gram
from phasescope.analysis.selection import Steps, select_steps
from phasescope.analysis.spectrum import (
    Center,
    check_resolved,
    spectrum,
    subtract_parameter_means,
)


def heldout_residuals(
    gram: Gram,
    sample: Steps,
    heldout: Steps,
    n_components: Sequence[int],
    *,
    center: Center = "none",
) -> Float64[Tensor, "h n"]:
    r"""Share of each held-out step's squared norm that leading directions of other steps miss.

    $r_h(k) = 1 - \|S_k^{-1} U_k^\top c_h\|^2 / K_{hh}$ with $S_k, U_k$ from the sampled steps and
    $c_h = K_{hS}$ the inner products of the held-out step with them: 0 lies inside the span of the
    top k directions, 1 is orthogonal to it. Centring over steps subtracts the mean of the *sample*
    from all of them. Components that the Gram matrix cannot resolve are not used.

    A small residual of steps that neighbour sampled ones in time says little, since they share
    their weights: hold out contiguous blocks, or another data order. The null of a random subspace
    is 1 - k/P.

    Args:
        gram: From `gram`.
        sample: Steps that span the subspace, by value (see `spectrum`).
        heldout: Steps to explain, by value; sampled ones give the in-sample curve.
        n_components: Numbers k of leading directions, each from 0 to the number of sampled steps.
        center: What to subtract, see `spectrum`.

    Returns:
        Residuals between 0 and 1, one row per held-out step in the order asked, one column per k.

    Raises:
        ValueError: A step was not recorded, a number of components is impossible, or a held-out
            step is zero after centring.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> g = gram(torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 4.0]]))
        >>> heldout_residuals(g, [0, 1], [2], [0, 1, 2])
        tensor([[1.0000, 0.6400, 0.0000]], dtype=torch.float64)
    """
    inside = spectrum(gram, center=center, steps=sample)
    rows, others = select_steps(gram.steps, inside.steps), select_steps(gram.steps, heldout)
    if not all(0 <= k <= len(rows) for k in n_components):
        raise ValueError(
            f"n_components must lie between 0 and the {len(rows)} sampled steps, but "
            f"{list(n_components)} arrived."
        )
    K = subtract_parameter_means(gram, center)
    cross, squares = K[others[:, None], rows], K.diagonal()[others]
    before = gram.K.diagonal()[others]
    if center in ("steps", "both"):
        mean_row = K[rows[:, None], rows].mean(0)
        mean_cross = cross.mean(1)
        squares = squares - 2 * mean_cross + mean_row.mean()
        cross = cross - mean_cross[:, None] - mean_row + mean_row.mean()
    empty = squares <= 4 * gram.eps * before
    if bool(empty.any()):
        raise ValueError(
            f"every held-out step needs a norm above zero after centring, but step "
            f"{int(gram.steps[others[empty][0]])} has none. Leave it out of `heldout`."
        )
    r = int((inside.resolution < inside.S).sum())
    explained = ((cross @ inside.time_vectors[:, :r]) / inside.S[:r]) ** 2
    explained = torch.cat([torch.zeros(len(others), 1, dtype=explained.dtype), explained], dim=1)
    held = explained.cumsum(1)[:, [min(k, r) for k in n_components]]
    return (1 - held / squares[:, None]).clamp(0, 1)


def subspace_overlap(
    gram: Gram, steps_a: Steps, steps_b: Steps, k: int, *, center: Center = "none"
) -> float:
    r"""Overlap of the leading parameter directions of two sets of steps of one trajectory.

    $\frac{1}{k}\|V_a V_b^\top\|_F^2$ with $V_a, V_b$ the k leading unit directions in parameter
    space: 1 for the same subspace, 0 for orthogonal ones, k/P for random ones. Each set is centred
    on its own mean.

    Minibatch noise rotates directions near the edge of the noise even when nothing changed: compare
    with the overlap of frozen-weights gradients.

    Args:
        gram: From `gram`.
        steps_a: One set of steps, by value (see `spectrum`).
        steps_b: The other set; the sets may intersect.
        k: Number of directions.
        center: What to subtract, see `spectrum`.

    Returns:
        Dimensionless, between 0 and 1.

    Raises:
        ValueError: A step was not recorded, or k exceeds the resolved singular values of a set.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> g = gram(torch.tensor([[2.0, 0.0], [1.0, 0.0], [3.0, 3.0]]))
        >>> round(subspace_overlap(g, [0, 1], [2], 1), 6)
        0.5
    """
    sides = [spectrum(gram, center=center, steps=steps) for steps in (steps_a, steps_b)]
    weights = []
    for side in sides:
        check_resolved(side, k)
        U = side.time_vectors[:, :k]
        if center in ("steps", "both"):
            U = U - U.mean(0)  # exactly orthogonal to the mean that the other set does not have
        weights.append(U / side.S[:k])
    a, b = (select_steps(gram.steps, side.steps) for side in sides)
    inner = weights[0].T @ subtract_parameter_means(gram, center)[a[:, None], b] @ weights[1]
    return min(float((inner**2).sum() / k), 1.0)


def mean_alignment(gram: Gram, steps: Steps | None = None) -> float:
    r"""Absolute cosine between the first parameter direction and the mean over steps.

    $s_1 |u_1 \cdot \mathbf{1}| / \sqrt{\mathbf{1}^\top K \mathbf{1}}$ of the uncentred spectrum:
    near 1, the first component is the mean, and centring over steps removes it.

    Args:
        gram: From `gram`.
        steps: Steps to use, by value (see `spectrum`); all by default.

    Returns:
        Dimensionless, between 0 and 1.

    Raises:
        ValueError: A step was not recorded, or the mean over the steps is zero.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> round(mean_alignment(gram(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))), 6)
        1.0
    """
    whole = spectrum(gram, steps=steps)
    rows = select_steps(gram.steps, whole.steps)
    squared = float(gram.K[rows[:, None], rows].sum())
    if squared <= 4 * gram.eps * float(whole.norms.sum() ** 2):
        raise ValueError(
            f"the mean over the {len(rows)} steps must not vanish, but it is zero up to rounding: "
            "no direction aligns with it."
        )
    return min(float(whole.S[0] * whole.time_vectors[:, 0].sum().abs()) / squared**0.5, 1.0)
