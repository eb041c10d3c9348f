"""Power laws, logistic transitions and random walks fitted to a curve in blocks.

Letters: b blocks, τ = ln(1 + step), t step, p parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from phasescope.analysis.log_blocks import LogBlocks

# Scale of the logistic that an exponential relaxation resembles: t90/t10 = ln 10 / ln(10/9).
SLOWEST = math.log(math.log(10) / math.log(10 / 9)) / (2 * math.log(9))
# Least ln t₀: a power law of t itself, to a few per cent from the first update on.
EARLIEST = -4.0
_FASTEST_BLOCKS = 0.2  # a logistic sharper than this many block widths is a step
_EXPONENTS = np.array([-1.0, -0.5, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0, 10.0, 40.0])


@dataclass(frozen=True, eq=False)
class Fit:
    """A power law and logistic curves, fitted to the blocks by weighted least squares."""

    power: tuple[float, float, float, float]
    """a, b, c and ln t₀ of a + b (1 + t/t₀)^−c."""
    logistics: tuple[tuple[float, float, float], ...]
    """Midpoint m and scale s in τ, and height h, of each."""
    fitted: np.ndarray
    """At the blocks."""
    jacobian: np.ndarray
    """Derivatives of the fit with respect to a, b, c, ln t₀ and every m, s, h."""
    squares: float
    """Weighted sum of squared residuals."""
    bic: float
    """Bayesian information criterion, its constant left out."""


def fit_smooth(blocks: LogBlocks) -> Fit:
    """The best power law with an offset in time, exponential relaxations included."""
    x = blocks.tau.numpy()
    w, y = blocks.counts.double().numpy(), blocks.values.numpy()
    c, log_t0 = _grid(x)[_best_linear(_powers(x), w, y)]
    return _refined(blocks, np.array([c, log_t0]))


def with_transition(blocks: LogBlocks, fit: Fit) -> Fit:
    """The fit with one more logistic, everything fitted anew from the best place of a grid."""
    x = blocks.tau.numpy()
    w, y = blocks.counts.double().numpy(), blocks.values.numpy()
    fixed = np.zeros_like(y)
    for m, s, h in fit.logistics:
        fixed += h * _logistic(x, m, s)
    finest = _finest(x)
    scales = np.geomspace(finest, SLOWEST, 6)
    middles = np.linspace(x[1], x[-2], min(len(x), 80))
    places = np.array([(m, s) for s in scales for m in middles])
    sigmoids = _logistic(x, places[:, :1], places[:, 1:])
    powers = _powers(x)
    i, j = _best_pair(powers, sigmoids, w, y - fixed)
    c, log_t0 = _grid(x)[i]
    earlier = [value for m, s, _ in fit.logistics for value in (m, s)]
    starts = [
        np.array([c, log_t0, *earlier, *places[j]]),
        np.array([*fit.power[2:], *earlier, *places[j]]),
    ]
    return min((_refined(blocks, start) for start in starts), key=lambda f: f.squares)


def fit_walk(blocks: LogBlocks) -> float:
    """Criterion of a random walk with noise, ARIMA(0,1,1) with drift, on the same blocks.

    Its likelihood is that of the increments; a first value is free. Evaluations of a block are
    averaged, so increments of early blocks, which hold few, are noisier: they are divided by the
    standard deviation that their counts say, if noise dominates, or left as they are, if the walk
    does, whichever is more likely.
    """
    from scipy.signal import lfilter

    y, counts = blocks.values.numpy(), blocks.counts.double().numpy()
    d = np.diff(y)
    n = len(y)
    best = math.inf
    for scale in (np.ones(n - 1), np.sqrt(1 / counts[1:] + 1 / counts[:-1])):
        z = d / scale
        for drift in (0.0, z.mean()):
            for theta in np.linspace(0.0, 0.95, 20):
                errors = np.asarray(lfilter([1.0], [1.0, -theta], z - drift))
                variance = max(float(errors @ errors) / (n - 1), 1e-300)
                # The likelihood of the values themselves, with the same constant as `_criterion`.
                value = (n - 1) * math.log(variance) + 2 * float(np.log(scale).sum())
                value += math.log(variance) + float(np.log(counts).sum())
                best = min(best, value + (4 if drift else 3) * math.log(n))
    return best


def _criterion(squares: float, n: int, n_parameters: int) -> float:
    """−2 log likelihood of n values with variances σ²/count, log counts left out, plus p ln n."""
    return n * math.log(max(squares, 1e-300) / n) + n_parameters * math.log(n)


def _refined(blocks: LogBlocks, start: np.ndarray) -> Fit:
    """Nonlinear least squares from c, ln t₀ and every m, s; offsets and heights are linear."""
    from scipy.optimize import least_squares

    x = blocks.tau.numpy()
    w, y = np.sqrt(blocks.counts.double().numpy()), blocks.values.numpy()
    finest = _finest(x)
    low = [-2.0, EARLIEST] + [x[0], finest] * ((len(start) - 2) // 2)
    high = [60.0, x[-1] + 3.0] + [x[-1], SLOWEST] * ((len(start) - 2) // 2)
    start = np.clip(start, np.array(low) + 1e-9, np.array(high) - 1e-9)

    def residuals(theta: np.ndarray) -> np.ndarray:
        basis = _basis(x, theta)
        return w * (basis.T @ _linear(basis, w**2, y) - y)

    found = least_squares(residuals, start, bounds=(low, high), x_scale=1.0, max_nfev=60)
    theta = found.x
    basis = _basis(x, theta)
    beta = _linear(basis, w**2, y)
    fitted = basis.T @ beta
    squares = float((w**2 * (y - fitted) ** 2).sum())
    logistics = tuple(
        (float(theta[2 + 2 * i]), float(theta[3 + 2 * i]), float(beta[2 + i]))
        for i in range(len(beta) - 2)
    )
    n_parameters = 4 + 3 * len(logistics) + 1
    return Fit(
        (float(beta[0]), float(beta[1]), float(theta[0]), float(theta[1])),
        logistics,
        fitted,
        _jacobian(x, theta, beta),
        squares,
        _criterion(squares, len(y), n_parameters),
    )


def _basis(x: np.ndarray, theta: np.ndarray) -> np.ndarray:
    rows = [np.ones_like(x), _power(x, theta[0], theta[1])]
    rows += [_logistic(x, theta[i], theta[i + 1]) for i in range(2, len(theta), 2)]
    return np.array(rows)


def _jacobian(x: np.ndarray, theta: np.ndarray, beta: np.ndarray) -> np.ndarray:
    power = _power(x, theta[0], theta[1])
    step = 1e-5
    columns = [np.ones_like(x), power]
    for i in (0, 1):
        moved = [theta[:2] + sign * step * np.eye(2)[i] for sign in (1, -1)]
        up, down = (_power(x, *m) for m in moved)
        columns.append(beta[1] * (up - down) / (2 * step))
    for i, h in enumerate(beta[2:]):
        m, s = theta[2 + 2 * i], theta[3 + 2 * i]
        value = _logistic(x, m, s)
        slope = h * value * (1 - value) / s
        columns += [-slope, -slope * (x - m) / s, value]
    return np.array(columns).T


def _power(x: np.ndarray, c: float, log_t0: float) -> np.ndarray:
    """(1 + t/t₀)^−c, shifted and scaled to keep its numbers near one; constants are linear."""
    decay = np.log1p(np.expm1(x) / math.exp(log_t0))
    if abs(c) < 1e-6:
        return -decay
    return np.expm1(-c * (decay - decay[-1])) / c if c < 0 else np.exp(-c * (decay - decay[0]))


def _logistic(x: np.ndarray, m: np.ndarray | float, s: np.ndarray | float) -> np.ndarray:
    return 0.5 * (1 + np.tanh((x - m) / (2 * s)))


def _grid(x: np.ndarray) -> list[tuple[float, float]]:
    offsets = np.linspace(EARLIEST, x[-1] + 2.0, 10)
    return [(float(c), float(o)) for c in _EXPONENTS for o in offsets]


def _powers(x: np.ndarray) -> np.ndarray:
    return np.array([_power(x, c, o) for c, o in _grid(x)])


def _finest(x: np.ndarray) -> float:
    """Smallest scale of a logistic that the blocks can tell from a step."""
    return min(_FASTEST_BLOCKS * float(x[-1] - x[0]) / len(x), SLOWEST / 8)


def _linear(basis: np.ndarray, w: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weighted least squares; directions without weight get none."""
    root = np.sqrt(w)
    return np.linalg.lstsq((basis * root).T, root * y, rcond=1e-10)[0]


def _best_linear(powers: np.ndarray, w: np.ndarray, y: np.ndarray) -> int:
    """Which power law leaves the least squared residuals beside a constant."""
    r = (y - np.average(y, weights=w)) * np.sqrt(w)
    return int(np.square(_normalised(powers, w) @ r).argmax())


def _best_pair(
    powers: np.ndarray, sigmoids: np.ndarray, w: np.ndarray, y: np.ndarray
) -> tuple[int, int]:
    """Power law and sigmoid that leave the least, of all pairs: products of normalised curves."""
    P, S = _normalised(powers, w), _normalised(sigmoids, w)
    r = (y - np.average(y, weights=w)) * np.sqrt(w)
    p, s, c = P @ r, S @ r, P @ S.T
    rest = np.maximum(1 - c**2, 1e-6)
    explained = (p[:, None] ** 2 + s[None] ** 2 - 2 * c * p[:, None] * s[None]) / rest
    explained[c**2 > 1 - 1e-5] = -1.0
    i, j = np.unravel_index(int(explained.argmax()), explained.shape)
    return int(i), int(j)


def _normalised(curves: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Curves without their weighted mean, weighted, of length one."""
    centred = (curves - np.average(curves, axis=1, weights=w)[:, None]) * np.sqrt(w)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-300)
