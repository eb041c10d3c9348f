"""Does a trajectory turn: angles and curvature of a path, beside those of random walks.

Letters: n points, k coordinates (principal components), w points of a window, D draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from phasescope.analysis.frozen import effective_dimension
from phasescope.analysis.gram import Gram
from phasescope.analysis.paths import increment_gram
from phasescope.analysis.spectrum import check_resolved, spectrum
from phasescope.analysis.walks import wishart_factor

_LIMIT = 10**9  # dimensions in which a walk's increments are orthogonal to four digits


def turning_angles(points: Float[Tensor, "*batch n k"], window: int) -> Float64[Tensor, "*batch n"]:
    r"""Angle by which a path turns at each of its points, in radians.

    Between $x_t - x_{t-w}$ and $x_{t+w} - x_t$: 0 goes straight on, $\pi$ goes back. A short window
    shows noise (in many dimensions neighbouring increments of a random walk are at right angles), a
    long one blurs the turn.

    Args:
        points: Coordinates, one row for each point; leading dimensions are separate paths.
        window: Points w before and after.

    Returns:
        Angles between 0 and pi; not a number for the first and the last w points, and where the
        path does not move.

    Raises:
        ValueError: The window is not positive, or there are fewer than 2 w + 1 points.

    Example:
        >>> corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
        >>> round(float(turning_angles(corner, 1)[1]) / math.pi, 3)
        0.5
    """
    before, after = _displacements(points, window)
    lengths = before.norm(dim=-1) * after.norm(dim=-1)
    cosines = (before * after).sum(-1) / lengths  # 0 / 0 is not a number, as promised
    return _padded(cosines.clamp(-1, 1).acos(), points, window)


def curvature(points: Float[Tensor, "*batch n k"], window: int) -> Float64[Tensor, "*batch n"]:
    r"""Curvature of a path at each of its points: one over the radius of the circle through three.

    Menger's, of $x_{t-w}, x_t, x_{t+w}$: $2 \sin(\alpha) / \|x_{t+w} - x_{t-w}\|$ with the angle
    $\alpha$ at which the path turns. Exact for a circle, whatever the window. In units of one over
    the coordinates: a path of half the size has twice the curvature, and a path that goes straight
    back has none (its angle tells).

    Args:
        points: Coordinates, one row for each point; leading dimensions are separate paths.
        window: Points w before and after.

    Returns:
        Curvatures; not a number for the first and the last w points, and where the path does not
        move.

    Raises:
        ValueError: The window is not positive, or there are fewer than 2 w + 1 points.

    Example:
        >>> t = torch.linspace(0, 1, 20)[:, None]
        >>> circle = 4 * torch.cat([t.cos(), t.sin()], dim=1)
        >>> round(float(curvature(circle, 3)[10]), 4)
        0.25

    References:
        Menger (1930), "Untersuchungen über allgemeine Metrik. Vierte Untersuchung", Mathematische
        Annalen 103, 466-501.
    """
    before, after = _displacements(points, window)
    a, b, c = before.norm(dim=-1), after.norm(dim=-1), (before + after).norm(dim=-1)
    cross = ((a * b) ** 2 - (before * after).sum(-1) ** 2).clamp(min=0).sqrt()  # twice the area
    return _padded(2 * cross / (a * b * c), points, window)


@dataclass(frozen=True, eq=False)
class TurningTest:
    """Where a trajectory turns more than a random walk does in its own principal components."""

    points: Float64[Tensor, "n k"]
    """Coordinates in the leading principal components."""
    angles: Float64[Tensor, " n"]
    """Turning angle at every point, in radians; not a number near the ends."""
    bends: Float64[Tensor, " n"]
    """Change of direction there times the distance it is kept up, over the size of the path."""
    null_bends: Float64[Tensor, "D n"]
    """The same of every walk, in the walk's own principal components."""
    null_points: Float64[Tensor, "n k"]
    """Coordinates of the first walk, to be drawn beside."""
    shares: Float64[Tensor, " k"]
    """Share of each principal component in the variance."""
    null_shares: Float64[Tensor, "D k"]
    """The same of every walk."""
    z: Float64[Tensor, " n"]
    """Standard deviations of the walks between the bend and the walks' mean at that point."""
    threshold: float
    """What the largest z of a walk exceeds with probability `level`."""
    p: float
    """Probability that a walk's largest z reaches the observed one, at least 1 / (D + 1)."""
    level: float
    """Probability of a false turn anywhere."""
    turns: tuple[int, ...]
    """Steps at which the trajectory turns: of every stretch above the threshold its peak."""
    n_dimensions: float
    """Dimensions of the walks' noise."""
    window: int
    """Points before and after."""
    steps: Int64[Tensor, " n"]
    """Step of every point."""


def turning_test(
    gram: Gram,
    *,
    window: int,
    k: int = 2,
    n_dimensions: int | None = None,
    n_draws: int = 199,
    level: float = 0.05,
    seed: int = 0,
) -> TurningTest:
    r"""Where a path bends in its first k principal components more than random walks do.

    The first two principal components of *any* smooth path bend: those of a random walk are a
    parabola. An inflection means something where the path bends more than walks do at that place.
    The walks have the norms of the trajectory's own increments, one after the other, and normal
    noise of d dimensions; each goes through its own principal component analysis. (Walks of the
    path's own increments with random signs, see `path_walk_null`, go to and fro along whatever
    drift there is, so that no turn of a path is sharp beside theirs.)

    What is compared is the *bend*: with $b = x_t - x_{t-w}$ and $a = x_{t+w} - x_t$

    $\min(\|a\|, \|b\|) \cdot \big\| a/\|a\| - b/\|b\| \big\|$ over the root mean square distance of
    the path from its mean. The angle alone would be largest where a path hardly moves. The walks'
    bends have a mean and a standard deviation at every point, and their largest standardised bend
    anywhere gives the threshold, so that a walk has a turn with probability `level`. Every path is
    standardised by all the others, so that trajectory and walks are treated alike.

    Since walks themselves turn by a right angle, only sharper turns are found: of two straight
    stretches at an angle of 120 degrees or more, with noise of a tenth of the drift, and not at 90.
    It says that the path turns, not why: a change of the learning rate turns a path too, and a path
    that fluctuates around one place turns everywhere, unlike a walk. Increments correlated in time
    make a path smoother than its walks: the test errs on the safe side then.

    Args:
        gram: Of the trajectory (weights, logits, losses of fixed examples), rows in order.
        window: Points w before and after, as for `turning_angles`.
        k: Number of principal components.
        n_dimensions: Dimensions d of the noise; by default the `effective_dimension` of the
            differences of neighbouring increments, in which a drift that they share has vanished.
        n_draws: Walks D. Each costs an eigendecomposition of n × n.
        level: Probability of a false turn.
        seed: Of the walks.

    Returns:
        Bends, their null, and the steps at which the trajectory turns.

    Raises:
        ValueError: There are too few points for the window, the trajectory stands still somewhere
            or has fewer than k components, its increments are all alike (so that the noise has no
            dimension: pass `n_dimensions`), or a number is out of range.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> generator, t = torch.Generator().manual_seed(0), torch.arange(60.0)
        >>> aside = (t - 30).clamp(min=0) * 0.3
        >>> there_and_back = torch.stack([30 - (t - 30).abs(), aside], dim=1)
        >>> noise = torch.randn(60, 50, generator=generator).mul(0.1).cumsum(0)
        >>> path = torch.cat([there_and_back, noise], dim=1)
        >>> turning_test(gram(path.double()), window=5).turns
        (30,)

    References:
        Antognini & Sohl-Dickstein (2018), "PCA of high dimensional random walks with comparison to
        neural network training", arXiv:1806.08805.
    """
    n = len(gram.steps)
    if n_draws < 19 or not 0 < level < 1 or k < 2 or n < 2 * window + 3:
        raise ValueError(
            "a turning test needs at least 19 draws, a level in (0, 1), two components and "
            f"2 * window + 3 points, but n_draws={n_draws}, level={level}, k={k}, window={window} "
            f"and {n} points arrived."
        )
    if n_dimensions is not None and not n_dimensions >= 1:
        raise ValueError(
            f"noise has at least one dimension, but n_dimensions={n_dimensions} arrived. Leave it "
            "out to have it estimated."
        )
    whole = spectrum(gram, center="steps")
    check_resolved(whole, k)
    points = whole.time_vectors[:, :k] * whole.S[:k]
    moved = increment_gram(gram)
    scales = moved.K.diagonal().sqrt()
    if not bool((scales > 0).all()):
        raise ValueError(
            "a trajectory must move between its points, but it stands still after step "
            f"{int(moved.steps[scales <= 0][0])}. Leave out points that repeat."
        )
    d = float(_noise_dimension(moved) if n_dimensions is None else n_dimensions)
    walks, null_shares = _walks(scales, k, d, n_draws, seed)
    bends, null_bends = _bends(points, window), _bends(walks, window)
    z = _beside_the_others(torch.cat([bends[None], null_bends]))
    observed, highest = z[0].nan_to_num(-math.inf), z[1:].nan_to_num(-math.inf).amax(1)
    order = math.ceil(round((1 - level) * (n_draws + 1), 9))
    threshold = float(highest.sort().values[order - 1]) if order <= n_draws else math.inf
    p = (1 + int((highest >= observed.max()).sum())) / (n_draws + 1)
    peaks = tuple(int(gram.steps[row]) for row in _peaks(observed, threshold))
    shares = (whole.S**2 / (whole.S**2).sum())[:k]
    return TurningTest(
        points, turning_angles(points, window), bends, null_bends, walks[0], shares, null_shares,
        z[0], threshold, p, level, peaks, d, window, gram.steps,
    )  # fmt: skip


def _bends(points: Float64[Tensor, "*batch n k"], window: int) -> Float64[Tensor, "*batch n"]:
    """Change of direction times the shorter displacement, over the size of the path."""
    before, after = _displacements(points, window)
    b, a = before.norm(dim=-1), after.norm(dim=-1)
    change = (after / a[..., None] - before / b[..., None]).norm(dim=-1)
    centred = points - points.mean(-2, keepdim=True)
    size = (centred**2).sum(-1).mean(-1).sqrt()
    return _padded(torch.minimum(a, b) * change / size[..., None], points, window)


def _beside_the_others(values: Float64[Tensor, "R n"]) -> Float64[Tensor, "R n"]:
    """Every row minus the mean of the other rows, over their standard deviation."""
    m = len(values) - 1
    mean = (values.sum(0) - values) / m
    squares = ((values**2).sum(0) - values**2) / m
    return (values - mean) / ((squares - mean**2) * m / (m - 1)).sqrt()


def _noise_dimension(moved: Gram) -> float:
    """Effective dimension of what differs between neighbouring increments, each used once."""
    K = moved.K / moved.K.diagonal().sqrt() / moved.K.diagonal().sqrt()[:, None]
    units = Gram(K, moved.steps, moved.row_sums, moved.n_columns, {}, moved.eps)
    differences = increment_gram(units)
    return effective_dimension(
        spectrum(differences, steps=differences.steps[::2].tolist(), time_vectors=False)
    )


def _walks(
    scales: Float64[Tensor, " m"], k: int, d: float, n_draws: int, seed: int
) -> tuple[Float64[Tensor, "D n k"], Float64[Tensor, "D k"]]:
    """Coordinates of walks in their principal components, and the components' shares."""
    m = len(scales)
    # The first point is the origin: a row of zeros above the running sums.
    C = torch.cat([torch.zeros(1, m, dtype=torch.float64), torch.ones(m, m).double().tril()])
    C = C * scales
    generator = np.random.default_rng(seed)
    dimensions = int(min(max(round(d) if math.isfinite(d) else _LIMIT, k), _LIMIT))
    points, shares = [], []
    for _ in range(n_draws):
        B = C @ wishart_factor(m, dimensions, generator) / math.sqrt(dimensions)
        B = B - B.mean(0)
        values, U = torch.linalg.eigh(B @ B.T)
        leading = values.flip(0)[:k].clamp(min=0)
        points.append(U.flip(1)[:, :k] * leading.sqrt())
        shares.append(leading / values.sum())
    return torch.stack(points), torch.stack(shares)


def _peaks(z: Float64[Tensor, " n"], threshold: float) -> list[int]:
    """The largest of every run of neighbours above the threshold."""
    rows = (z > threshold).nonzero().flatten().tolist()
    runs: list[list[int]] = []
    for row in rows:
        if runs and row == runs[-1][-1] + 1:
            runs[-1].append(row)
        else:
            runs.append([row])
    return [max(run, key=lambda row: float(z[row])) for run in runs]


def _displacements(
    points: Float[Tensor, "*batch n k"], window: int
) -> tuple[Float64[Tensor, "*batch m k"], Float64[Tensor, "*batch m k"]]:
    """To every inner point from w points before, and from it to w points later."""
    n = points.shape[-2]
    if window < 1 or n < 2 * window + 1:
        raise ValueError(
            f"a window of at least 1 point and at most {(n - 1) // 2} is needed for {n} points, "
            f"but window={window} arrived."
        )
    x = points.double()
    middle = x[..., window : n - window, :]
    return middle - x[..., : n - 2 * window, :], x[..., 2 * window :, :] - middle


def _padded(
    values: Float64[Tensor, "*batch m"], points: Float[Tensor, "*batch n k"], window: int
) -> Float64[Tensor, "*batch n"]:
    full = torch.full(points.shape[:-1], math.nan, dtype=torch.float64)
    full[..., window : points.shape[-2] - window] = values
    return full
