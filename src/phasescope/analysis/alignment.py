"""Which column of a factorization matches which component of its target, and when.

Axes: batch (such as seeds), d entries of a column, column (learned), target (true), rank.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def alignments(
    X: Float[Tensor, "*batch d column"], A: Float[Tensor, "*batch d target"]
) -> Float[Tensor, "*batch column target"]:
    r"""Absolute cosine between every learned and every true column.

    It depends on the basis: a factorization may reach $Z = C$ with columns that are any mixture of
    the true ones, since $X G$ and $Y G^{-\top}$ have the same product. `principal_angles` does not.

    Args:
        X: Learned columns.
        A: True columns.

    Returns:
        Between 0 and 1; 0 for a column of length 0.

    Raises:
        ValueError: The columns differ in length.

    Example:
        >>> alignments(torch.tensor([[3.0], [4.0]]), torch.eye(2))
        tensor([[0.6000, 0.8000]])
    """
    if X.shape[-2] != A.shape[-2]:
        raise ValueError(
            "learned and true columns must have one length d, the second axis from the right, but "
            f"X has {X.shape[-2]} and A has {A.shape[-2]}."
        )
    tiny = torch.finfo(X.dtype).tiny
    cosines = (X.mT @ A).abs()
    cosines /= X.norm(dim=-2).clamp(min=tiny).unsqueeze(-1)
    cosines /= A.norm(dim=-2).clamp(min=tiny).unsqueeze(-2)
    return cosines.clamp_(max=1)


def principal_angles(
    X: Float[Tensor, "*batch d m"], A: Float[Tensor, "*batch d n"]
) -> Float[Tensor, "*batch k"]:
    r"""Angles between the spans of two sets of columns, in radians, smallest first.

    They do not depend on the bases: 0 where a direction is shared, π/2 where one is orthogonal to
    the other span. Small angles are computed from sines, so that they are exact to rounding and not
    to its root.

    Args:
        X: Linearly independent columns.
        A: Linearly independent columns.

    Returns:
        As many angles as the smaller set has columns.

    Example:
        >>> plane = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
        >>> tilted = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> [round(angle, 3) for angle in principal_angles(plane, tilted).tolist()]
        [0.0, 0.785]

    References:
        Björck & Golub (1973), "Numerical methods for computing angles between linear subspaces",
        Mathematics of Computation 27, equations 5 and 13.
    """
    if X.shape[-1] > A.shape[-1]:
        X, A = A, X
    Q_X, Q_A = torch.linalg.qr(X)[0], torch.linalg.qr(A)[0]
    overlap = Q_A.mT @ Q_X
    cosines = torch.linalg.svdvals(overlap).clamp(max=1)
    sines = torch.linalg.svdvals(Q_X - Q_A @ overlap).clamp(max=1).flip(-1)
    return torch.where(cosines**2 < 0.5, torch.acos(cosines), torch.asin(sines))


def mode_strengths(
    X: Float[Tensor, "*batch d column"],
    Y: Float[Tensor, "*batch e column"],
    U: Float[Tensor, "*batch d mode"],
    V: Float[Tensor, "*batch e mode"],
) -> Float[Tensor, "*batch mode"]:
    r"""How much of each mode the product has: $u_j^\top X Y^\top v_j$ for pairs of columns j.

    With singular vectors of the target it goes to the singular value; divided by it, the share of
    the mode that is learned.

    Args:
        X: Left factor.
        Y: Right factor.
        U: Left vectors of the modes, of length 1.
        V: Right vectors of the modes, of length 1.

    Returns:
        The strengths.

    Example:
        >>> X = torch.diag(torch.tensor([2.0, 3.0]))
        >>> mode_strengths(X, X, torch.eye(2), torch.eye(2))
        tensor([4., 9.])
    """
    return ((U.mT @ X) * (V.mT @ Y)).sum(-1)


def relative_spread(values: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Standard deviation over mean of positive values, such as the path lengths of columns.

    Args:
        values: At least two values.

    Returns:
        Coefficient of variation, with the unbiased variance; 0 if all are equal.

    Raises:
        ValueError: If there are fewer than two values.

    Example:
        >>> round(relative_spread(torch.tensor([1.0, 3.0])).item(), 4)
        0.7071
    """
    if values.shape[-1] < 2:
        raise ValueError(
            f"a spread needs at least two values, but there is {values.shape[-1]}. Leave out "
            "factorizations of rank one."
        )
    return values.std(-1) / values.mean(-1)
