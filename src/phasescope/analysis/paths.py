"""A recorded path of weights, logits or losses beside walks made of its own increments.

Letters: n points, k singular values, D draws.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from phasescope.analysis.gram import Gram
from phasescope.analysis.matching import check_same_rows
from phasescope.analysis.p_values import two_sided_p
from phasescope.analysis.selection import Steps, select_steps
from phasescope.analysis.spectrum import Center, Spectrum
from phasescope.analysis.walks import WalkNull, expected_time_vectors, walk_values

_FEWEST_POINTS = 4
# Squared increments must stand above the rounding of the inner products that they are made of.
_ROUNDINGS = 100


def increment_gram(gram: Gram, *, steps: Steps | None = None) -> Gram:
    r"""Inner products of the increments $x_{t+1} - x_t$ of a path, from those of its points.

    What should be decomposed instead of the path: increments of a random walk have a flat spectrum,
    its points have not. Row t is named by the step at which the increment begins.

    Args:
        gram: Of the points of the path. Points far from the origin need float64 products
            (`gram(..., dtype=torch.float64)`), since increments are differences of large numbers.
        steps: Points to use, by step (see `spectrum`); increments lead from each to the next.

    Returns:
        One row less than points.

    Raises:
        ValueError: There are fewer than two points, nothing moves, or the increments are lost in
            rounding.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> increment_gram(gram(torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]]))).K
        tensor([[1., 0.],
                [0., 4.]], dtype=torch.float64)
    """
    rows = select_steps(gram.steps, steps).sort().values
    K = _differences(gram, rows)[1:, 1:]
    sums = gram.row_sums[rows].diff()
    return Gram(K, gram.steps[rows[:-1]], sums, gram.n_columns, {}, gram.eps)


def path_walk_null(
    gram: Gram,
    *,
    center: Center = "steps",
    steps: Steps | None = None,
    n_draws: int = 199,
    seed: int = 0,
) -> WalkNull:
    r"""Singular values of walks whose increments are those of a path, each with a random sign.

    The null of a path of weights, logits or losses: it starts where the path starts, takes the
    same increments in the same order, and only whether an increment is added or subtracted is
    drawn. So it keeps the length of every increment, hence learning rates, schedules and log-spaced
    checkpoints, and all correlation between columns; what it destroys is that increments go on in a
    direction (drift) or turn systematically (curvature). If increments are independent and
    symmetric around zero, path and walks are exchangeable, so that `path_p_values` are exact at any
    length and in any dimension. No dimension need be estimated, and nothing but the Gram matrix is
    used.

    Increments of an optimizer with momentum are correlated by construction and are found to be no
    walk: that is true of them, but no news. `walk_null` simulates the optimizer instead.

    Args:
        gram: Of the points of the path, see `increment_gram`.
        center: "steps" or "none", as in the spectrum of the path.
        steps: Points to use, by step (see `spectrum`).
        n_draws: Draws.
        seed: Of the draws.

    Returns:
        Singular values of every draw, in the unit of the path's.

    Raises:
        ValueError: There are fewer than four points, nothing moves, increments are lost in
            rounding, the centring is another one, or a number is out of range.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> from phasescope.analysis.spectrum import spectrum
        >>> steps = torch.randn(60, 500, generator=torch.Generator().manual_seed(0))
        >>> walk, drift = gram(steps.cumsum(0)), gram((steps + 0.5).cumsum(0))
        >>> for path in (walk, drift):
        ...     p = path_p_values(spectrum(path, center="steps"), path_walk_null(path))
        ...     print(bool(p[0] <= 0.05))
        False
        True

    References:
        Antognini & Sohl-Dickstein (2018), arXiv:1806.08805 (what walks look like). Lehmann &
        Romano (2005), "Testing Statistical Hypotheses", theorem 15.2.1 (tests by sign changes are
        exact).
    """
    if center not in ("none", "steps"):
        raise ValueError(
            f"center must be 'none' or 'steps' for a walk, but {center!r} arrived. Compute the "
            "spectrum of the path without centring over parameters."
        )
    if n_draws < 1:
        raise ValueError(f"n_draws must be at least 1, but {n_draws} arrived. 199 give p >= .01.")
    rows = select_steps(gram.steps, steps).sort().values
    if len(rows) < _FEWEST_POINTS:
        raise ValueError(
            f"a walk null needs at least {_FEWEST_POINTS} points, but {len(rows)} arrived. Record "
            "or select more of them."
        )
    K = _differences(gram, rows)
    generator = torch.Generator().manual_seed(seed)
    draws = []
    for _ in range(n_draws):
        signs = torch.randint(0, 2, (len(rows),), generator=generator).double() * 2 - 1
        signs[0] = 1  # where the path starts
        points = (K * signs * signs[:, None]).cumsum(0).cumsum(1)
        draws.append(walk_values(points, center))
    k = min(len(rows), gram.n_columns)
    values = torch.stack(draws)[:, :k]
    # Of independent signs the products of different increments cancel.
    expected = K.diagonal().diag().cumsum(0).cumsum(1)
    vectors = expected_time_vectors(expected, center, k)
    return WalkNull(values.quantile(0.5, dim=0), values, vectors, gram.steps[rows], center, False)


def path_p_values(spectrum: Spectrum, null: WalkNull) -> Float64[Tensor, " k"]:
    """Two-sided p-value of each component's share of the variance among walks.

    The first says whether a path is straighter (a drift) or more crooked than a walk. With k of
    them looked at, multiply by k.

    Args:
        spectrum: Of the path, with the centring of the null.
        null: From `path_walk_null`, or from `walk_null` with `n_dimensions`.

    Returns:
        At least 2 / (D + 1) each.

    Raises:
        ValueError: The null is of other points or another centring, or has a single draw.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> from phasescope.analysis.spectrum import spectrum
        >>> steps = torch.randn(30, 400, generator=torch.Generator().manual_seed(0)) + 1
        >>> drift = gram(steps.cumsum(0))
        >>> float(path_p_values(spectrum(drift, center="steps"), path_walk_null(drift))[0])
        0.01
    """
    check_same_rows(spectrum, null, "path_p_values", "path_walk_null(gram, center=..., steps=...)")
    shares = null.shares
    if len(shares) < 2:
        raise ValueError(
            "p-values need draws of the null, but this one is the limit of many dimensions. Pass "
            "n_dimensions to walk_null (see effective_dimension), or use path_walk_null."
        )
    k = min(len(spectrum.S), shares.shape[1])
    observed = spectrum.S**2 / (spectrum.S**2).sum()
    return two_sided_p(observed[:k], shares[:, :k].T)


def _differences(gram: Gram, rows: Tensor) -> Float64[Tensor, "n n"]:
    """Inner products of the first point and of the increments that follow it."""
    if len(rows) < 2:
        raise ValueError(
            f"increments need at least two points, but {len(rows)} arrived. Record or select more."
        )
    K = gram.K[rows[:, None], rows]
    D = torch.eye(len(rows), dtype=torch.float64)
    D[1:] -= torch.eye(len(rows), dtype=torch.float64)[:-1]
    found = D @ K @ D.T
    moved, largest = found.diagonal()[1:].clamp(min=0), float(K.diagonal().max())
    if not float(moved.max()) > _ROUNDINGS * torch.finfo(torch.float64).eps * largest:
        raise ValueError(
            "the points of a path must differ, but nothing above rounding is left of their "
            "increments: they are constant. Check that every point was recorded and that training "
            "went on."
        )
    if float(moved.median()) < _ROUNDINGS * gram.eps * largest:
        raise ValueError(
            "increments must stand above the rounding of the points' inner products, but half of "
            f"them are shorter than {(_ROUNDINGS * gram.eps * largest) ** 0.5:.2g} at points of "
            f"norm {largest**0.5:.2g}. Compute the Gram matrix with dtype=torch.float64, or "
            "subtract the first point before."
        )
    return found
