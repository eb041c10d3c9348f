"""Where the singular values of noise end: edges and thresholds in closed form.

Letters: T steps (rows), P parameters (columns), k = min(T, P) singular values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from phasescope.analysis.spectrum import Spectrum
from phasescope.analysis.tracy_widom import tracy_widom_cdf

# The largest variances shape the edge one by one, the others only by their distribution.
_SINGLE = 1000
_BINS = 10_000


@dataclass(frozen=True)
class NoiseEdges:
    """Ends of the singular values of noise with a variance of its own for every parameter."""

    lower: float
    """Smallest singular value; 0 if there are fewer parameters than steps."""
    upper: float
    """Largest singular value, those that single parameters make included."""
    bulk: float
    """Largest singular value without the parameters that stand apart."""
    n_outliers: int
    """Parameters so loud that each makes a singular value of its own (often output biases)."""
    n_steps: int
    """Number of steps that they are for."""
    n_columns: int
    """Number of parameters, those without variance included."""


def noise_edges(variances: Float[Tensor, " P"], n_steps: int) -> NoiseEdges:
    r"""Ends of the spectrum of independent noise whose parameters have these variances.

    The limit of T steps of equal scale, from Silverstein's equation

    $z(m) = -\frac{1}{m} + \frac{1}{T} \sum_p \frac{\sigma_p^2}{1 + \sigma_p^2 m}$ with
    $s^2 = T z$: the upper edge is the stationary point with $-1/\max_p \sigma_p^2 < m < 0$, the
    lower one that with $m > 0$. Of equal variances the edges are $\sigma(\sqrt{P} \pm \sqrt{T})$.
    A parameter much louder than the others stands apart: it makes a singular value of its own, at
    $m = -1/\sigma_p^2$ of the others' z.

    It knows only variances. Correlated parameters (minibatch noise) have a wider spectrum, and
    steps of unequal norm too: normalise them. Of steps that were centred T - 1 remain. The largest
    value of noise fluctuates around the edge, that of a single parameter by a factor of about
    $1 \pm 1/\sqrt{2T}$: it is no threshold of a test.

    Args:
        variances: Variance of every parameter, see `parameter_variances`.
        n_steps: Number of steps T.

    Returns:
        Edges in the unit of the singular values, and the parameters that stand apart.

    Raises:
        ValueError: A variance is negative or not finite, all are zero, or there is no step.

    Example:
        >>> edges = noise_edges(torch.ones(10_000), 100)
        >>> round(edges.lower, 6), round(edges.upper, 6)
        (90.0, 110.0)

    References:
        Silverstein & Choi (1995), "Analysis of the limiting spectral distribution of large
        dimensional random matrices", J. Multivariate Anal. 54, theorems 4.1 and 4.2.
    """
    values = np.sort(variances.detach().double().cpu().numpy())[::-1]
    ends = (float(values[-1]), float(values[0])) if len(values) else (0.0, 0.0)
    if n_steps < 1 or not np.isfinite(values).all() or ends[0] < 0 or ends[1] == 0:
        raise ValueError(
            "noise edges need at least one step and finite variances >= 0 that are not all zero, "
            f"but n_steps={n_steps} and {len(values)} variances from {ends[0]} to {ends[1]} "
            "arrived. `parameter_variances` gives those of a trajectory."
        )
    unit = float(values[0])
    values, weights = _histogram(values[values > 0] / unit)
    apart: list[bool] = []
    # What stands apart is the smaller part.
    n_loud = min(_SINGLE, len(values) - 1, (float(weights.sum()) - 1) // 2)
    while len(apart) < n_loud and weights[len(apart)] == 1:
        # A parameter stands apart if the spectrum of the quieter ones ends before it: if their z
        # still rises at its m. Of several of about one variance only the last does.
        loud, rest = values[len(apart)], slice(len(apart) + 1, None)
        is_louder = bool(values[rest][0] < loud)
        apart.append(is_louder and _slope(-1 / loud, values[rest], weights[rest], n_steps) > 0)
    n_outliers = max((i + 1 for i, is_apart in enumerate(apart) if is_apart), default=0)
    bulk = upper = _upper(values[n_outliers:], weights[n_outliers:], n_steps)
    if n_outliers:
        # The loudest alone, or a spectrum of several.
        n_alone = apart.index(False) if False in apart else len(apart)
        quieter = values[n_alone:], weights[n_alone:], n_steps
        upper = max(bulk, _edge(-1 / values[0], *quieter) if n_alone else _upper(*quieter))
    n_columns = float(weights.sum())
    lower = _lower(values, weights, n_steps) if n_columns > n_steps else 0.0
    scale = math.sqrt(unit)
    return NoiseEdges(
        lower * scale, upper * scale, bulk * scale, n_outliers, n_steps, len(variances)
    )


def edge_p_values(spectrum: Spectrum, sigma: float | int) -> Float64[Tensor, " k"]:
    r"""Probability that noise of equal variance has a largest singular value at least this large.

    $1 - F_1\big((s^2/\sigma^2 - \mu)/\xi\big)$ with $\mu = (\sqrt{P-1} + \sqrt{T})^2$ and
    $\xi = (\sqrt{P-1} + \sqrt{T})(1/\sqrt{P-1} + 1/\sqrt{T})^{1/3}$, the Tracy–Widom law; T - 1
    steps if the mean over steps was subtracted.

    Valid for independent entries of one variance only. Gradients are not like that: under unequal
    variances noise is found significant almost surely (see the calibration page); use
    `flip_rank_test` there.

    Args:
        spectrum: From `spectrum`.
        sigma: Standard deviation of the noise of an entry.

    Returns:
        One p-value for each singular value, each as if it were the largest.

    Raises:
        ValueError: `sigma` is not positive, or there are fewer than two steps or parameters.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> from phasescope.analysis.spectrum import spectrum
        >>> A = torch.randn(30, 900, generator=torch.Generator().manual_seed(0))
        >>> p = edge_p_values(spectrum(gram(A)), 1.0)
        >>> bool(p[0] > 0.05), bool(p[-1] > 0.999)
        (True, True)

    References:
        Johnstone (2001), "On the distribution of the largest eigenvalue in principal components
        analysis", Annals of Statistics 29, eqs. (1.3) and (1.4).
    """
    check_sigma(sigma)
    T, P = degrees_of_freedom(spectrum)
    root_p, root_t = math.sqrt(P - 1), math.sqrt(T)
    mu = (root_p + root_t) ** 2
    xi = (root_p + root_t) * (1 / root_p + 1 / root_t) ** (1 / 3)
    x = ((spectrum.S / sigma) ** 2 - mu) / xi
    p = [1 - tracy_widom_cdf(value) for value in x.tolist()]
    return torch.tensor(p, dtype=torch.float64)


def gavish_donoho(spectrum: Spectrum, sigma: float | int | None = None) -> float:
    r"""Singular value below which keeping a component costs more error than it saves.

    $\lambda_*(\beta) \sqrt{n}\, \sigma$ with n the *larger* of the two dimensions,
    $\beta$ their ratio, and $\lambda_*^2 = 2(\beta + 1) + 8\beta / (\beta + 1 +
    \sqrt{\beta^2 + 14\beta + 1})$; with unknown noise $\lambda_* / \sqrt{\mu_\beta}$ times the
    median singular value, $\mu_\beta$ the median of the Marchenko–Pastur law. T - 1 steps if the
    mean over steps was subtracted.

    It minimises the error of a truncated decomposition under noise of equal variance. It is no
    test, and with unequal variances or norms it keeps large parts of the noise.

    Args:
        spectrum: From `spectrum`.
        sigma: Standard deviation of the noise of an entry; estimated from the median by default.

    Returns:
        The threshold, in the unit of the singular values.

    Raises:
        ValueError: `sigma` is not positive, or there are fewer than two steps or parameters.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> from phasescope.analysis.spectrum import spectrum
        >>> square = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
        >>> round(gavish_donoho(spectrum(gram(square)), 1.0), 3)  # 4 / sqrt(3) * sqrt(16)
        9.238

    References:
        Gavish & Donoho (2014), "The optimal hard threshold for singular values is 4/sqrt(3)", IEEE
        Trans. Inf. Theory 60, eqs. (3), (4) and (11).
    """
    if sigma is None:
        sigma = noise_scale(spectrum)
    check_sigma(sigma)
    T, P = degrees_of_freedom(spectrum)
    beta = min(T, P) / max(T, P)
    root = math.sqrt(beta**2 + 14 * beta + 1)
    factor = math.sqrt(2 * (beta + 1) + 8 * beta / (beta + 1 + root))
    return factor * math.sqrt(max(T, P)) * sigma


def noise_scale(spectrum: Spectrum) -> float:
    r"""Standard deviation of the noise of an entry, from the median singular value.

    $\operatorname{median}(s) / \sqrt{n \mu_\beta}$, with n the larger dimension and $\mu_\beta$ the
    median of the Marchenko–Pastur law of ratio $\beta$. Good if less than half of the values are
    signal and the noise has one variance.

    Args:
        spectrum: From `spectrum`.

    Returns:
        In the unit of the entries (of the normalised ones, if steps were normalised).

    Raises:
        ValueError: There are fewer than two steps or parameters, or the median value is zero.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> from phasescope.analysis.spectrum import spectrum
        >>> A = 3 * torch.randn(50, 2000, generator=torch.Generator().manual_seed(0))
        >>> round(noise_scale(spectrum(gram(A))), 1)
        3.0
    """
    T, P = degrees_of_freedom(spectrum)
    median = float(np.median(spectrum.S[: min(T, P)].numpy()))
    if not median > spectrum.resolution:
        raise ValueError(
            "the noise scale needs a median singular value above rounding, but it is "
            f"{median:.2g} (resolution {spectrum.resolution:.2g}): more than half of the spectrum "
            "is empty. Pass sigma."
        )
    return median / math.sqrt(max(T, P) * marchenko_pastur_median(min(T, P) / max(T, P)))


def marchenko_pastur_median(beta: float | int) -> float:
    r"""Median of the Marchenko–Pastur law of ratio $\beta$ and unit variance.

    Args:
        beta: Smaller dimension over larger one, in (0, 1].

    Returns:
        Of squared singular values over the larger dimension, accurate to about 1e-10.

    Raises:
        ValueError: `beta` is not in (0, 1].

    Example:
        >>> round(4 / 3**0.5 / marchenko_pastur_median(1) ** 0.5, 3)  # Gavish and Donoho's 2.858
        2.858
    """
    if not 0 < beta <= 1:
        raise ValueError(
            f"beta must be a ratio of dimensions in (0, 1], but {beta} arrived. Divide the smaller "
            "by the larger."
        )
    from scipy.optimize import root_scalar

    low, width = (1 - math.sqrt(beta)) ** 2, 4 * math.sqrt(beta)
    nodes, weights = np.polynomial.legendre.leggauss(100)

    def share(angle: float) -> float:
        # With x = low + width sin² the density's roots become smooth, at beta = 1 as well.
        theta = (nodes + 1) * angle / 2
        sine, cosine = np.sin(theta), np.cos(theta)
        density = width**2 * sine**2 * cosine**2 / (math.pi * beta * (low + width * sine**2))
        return float((weights * density).sum() * angle / 2)

    bracket = (1e-6, math.pi / 2)
    angle = root_scalar(lambda a: share(a) - 0.5, bracket=bracket, xtol=1e-14).root
    return low + width * math.sin(angle) ** 2


def degrees_of_freedom(spectrum: Spectrum) -> tuple[int, int]:
    """Dimensions of the noise: one step or one parameter less for each mean that was subtracted."""
    T = len(spectrum.steps) - (spectrum.center in ("steps", "both"))
    P = spectrum.n_columns - (spectrum.center in ("parameters", "both"))
    if min(T, P) < 2:
        raise ValueError(
            "a noise edge needs at least two steps and two parameters after centring, but there "
            f"are {T} and {P}."
        )
    return T, P


def check_sigma(sigma: float | int) -> None:
    """Raise unless sigma is a standard deviation."""
    if not (sigma > 0 and math.isfinite(sigma)):
        raise ValueError(
            f"sigma must be a standard deviation above 0, but {sigma} arrived. `noise_scale` "
            "estimates it from the spectrum."
        )


def _histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Descending variances and how many parameters have each; the small ones binned."""
    single, rest = values[:_SINGLE], values[_SINGLE:]
    if len(rest) <= _BINS:
        return values, np.ones(len(values))
    edges = np.geomspace(rest[-1], rest[0] * (1 + 1e-12), _BINS + 1)
    bins = np.clip(np.searchsorted(edges, rest, side="right") - 1, 0, _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    filled = counts > 0
    means = np.bincount(bins, rest, minlength=_BINS)[filled] / counts[filled]
    merged = np.concatenate([single, means[::-1]])
    return merged, np.concatenate([np.ones(len(single)), counts[filled][::-1]])


def _slope(m: float, values: np.ndarray, weights: np.ndarray, n_steps: int) -> float:
    """m² z'(m): positive where the spectrum is not."""
    return 1 - float((weights * (values * m / (1 + values * m)) ** 2).sum()) / n_steps


def _edge(m: float, values: np.ndarray, weights: np.ndarray, n_steps: int) -> float:
    z = -1 / m + float((weights * values / (1 + values * m)).sum()) / n_steps
    return math.sqrt(max(z, 0.0) * n_steps)


def _upper(values: np.ndarray, weights: np.ndarray, n_steps: int) -> float:
    from scipy.optimize import root_scalar

    pole = 1 / float(values[0])
    # Between the pole, where the slope falls without bound, and 0, where it is 1.
    bracket = (1e-12, 1 - 1e-12)
    u = root_scalar(lambda u: _slope(-pole * u, values, weights, n_steps), bracket=bracket).root
    return _edge(-pole * u, values, weights, n_steps)


def _lower(values: np.ndarray, weights: np.ndarray, n_steps: int) -> float:
    from scipy.optimize import root_scalar

    def slope(log_m: float) -> float:
        return _slope(math.exp(log_m), values, weights, n_steps)

    # As m grows every parameter comes to count fully: the slope falls from 1 to 1 - P / T.
    high = math.log(1 / float(values[0]))
    while slope(high) > 0 and high < 700:
        high += 1
    if slope(high) > 0:
        return 0.0
    log_m = root_scalar(slope, bracket=(high - 100, high)).root
    return _edge(math.exp(log_m), values, weights, n_steps)
