"""Is a growing coefficient the S-curve of a rank-one factorization, or any logistic?

For any series that grows and saturates, such as the strength of a key frequency over training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from phasescope.analysis.growth import balanced_growth

# Logarithms of rate x span, λ / (s - λ), w0 / s and p0 / s: wider than most series can tell apart.
_LOW, _HIGH = (-2.0, -12.0, -25.0, -12.0), (8.0, 2.0, 0.0, 4.0)


@dataclass(frozen=True)
class FittedGrowth:
    """A growth curve fitted to a series by least squares."""

    parameters: dict[str, float]
    """Its parameters by name."""
    rmse: float
    """Root mean square residual, in the unit of the series."""
    aicc: float
    """Akaike's criterion, corrected for few independent points: smaller is better."""
    values: np.ndarray
    """The curve at the times of the series."""


@dataclass(frozen=True)
class GrowthComparison:
    """Both laws fitted to the same series."""

    rank_one: FittedGrowth
    """Rank-one growth with irrelevant part and decay: five parameters."""
    logistic: FittedGrowth
    """Logistic growth: three parameters."""
    n_independent: float
    """Points that count as independent, given how neighbouring residuals resemble each other."""

    @property
    def aicc_difference(self) -> float:
        """Criterion of the logistic minus that of the rank-one law: above 0 the law is better."""
        return self.logistic.aicc - self.rank_one.aicc


def compare_growth(
    times: Float[Tensor, " time"], values: Float[Tensor, " time"]
) -> GrowthComparison:
    r"""Fits of the rank-one S-curve law with decay and of a logistic to one series.

    The law is $\alpha\, w(t)$ with w of `balanced_growth` in units of s: ceiling, rate $2(s -
    \lambda)$, share of decay $\lambda/s$, start $w_0/s$ and irrelevant part $p_0/s$. Its plateau
    ends later and its rise is steeper than its start suggests, because the irrelevant part has to
    decay first. Without irrelevant part it *is* a logistic, so it never fits worse: compare
    `aicc_difference`, which charges its two further parameters. The criterion counts
    $n (1 - \rho) / (1 + \rho)$ points, with $\rho$ the correlation of neighbouring residuals of the
    law: points of one training are not independent.

    The ceiling, the rate and the time of growth are found well; $\lambda/s$ and $p_0/s$ trade off
    against each other, and noise of a few per cent hides the difference from a logistic.

    Args:
        times: Increasing, in steps or any unit.
        values: The series, at least 16 finite points, that rises from a low to a high level.

    Returns:
        Both fits.

    Raises:
        ValueError: If there are too few points, one is not finite, the times do not increase, or
            the series is constant.

    Example:
        >>> t = torch.linspace(0, 8, 60).double()
        >>> grown = balanced_growth(t, s=1.0, w0=0.02, p0=2.0).u.square()
        >>> compare_growth(t, 5 * grown).aicc_difference > 10
        True
    """
    t, y = times.double().numpy(), values.double().numpy()
    if len(t) != len(y) or len(t) < 16:
        raise ValueError(
            f"at least 16 values with one time each are needed, but there are {len(t)} times and "
            f"{len(y)} values."
        )
    if not (np.isfinite(t).all() and np.isfinite(y).all() and (np.diff(t) > 0).all()):
        raise ValueError(
            "times and values must be finite and the times increasing. Cut the series."
        )
    if np.ptp(y) == 0:
        raise ValueError(
            f"a growth curve needs a series that changes, but it is {y[0]} throughout."
        )
    # Fits in units of the series: times from 0 to 1, values up to 1.
    span, height = t[-1] - t[0], float(np.abs(y).max())
    x, z = (t - t[0]) / span, y / height
    logistic = _least_squares(_logistic, _logistic_starts(x, z), x, z)
    # The law starts from the logistic too, which it contains: so it never ends up worse.
    bounds = _rank_one_bounds(logistic)
    law = _least_squares(_rank_one, _rank_one_starts(logistic, bounds), x, z, bounds)
    n = _independent(_rank_one(law, x) - z)
    ceiling, rate, midpoint = logistic
    named_logistic = {
        "ceiling": height * ceiling,
        "rate": float(np.exp(rate)) / span,
        "midpoint": t[0] + span * midpoint,
    }
    ceiling, rate, decay, w0, p0 = _unpacked(law)
    named_law = {
        "ceiling": height * ceiling,
        "rate": rate / span,
        "decay_share": decay,
        "w0_share": w0,
        "p0_share": p0,
    }
    return GrowthComparison(
        rank_one=_described(_rank_one(law, x), z, height, n, named_law),
        logistic=_described(_logistic(logistic, x), z, height, n, named_logistic),
        n_independent=n,
    )


def _independent(residuals: np.ndarray) -> float:
    """Points that count, given the correlation of neighbouring residuals."""
    spread = float((residuals**2).sum())
    correlation = float((residuals[1:] * residuals[:-1]).sum()) / spread if spread else 0.0
    correlation = min(max(correlation, 0.0), 0.95)
    return len(residuals) * (1 - correlation) / (1 + correlation)


def _described(
    fitted: np.ndarray, z: np.ndarray, height: float, n: float, parameters: dict[str, float]
) -> FittedGrowth:
    k = len(parameters) + 1  # the noise's variance is a parameter too
    rmse = float(np.sqrt(np.mean((fitted - z) ** 2)))
    # Residuals below rounding say nothing: a perfect fit must not win by 1e-16 against 1e-15.
    aicc = n * np.log(max(rmse, 1e-9) ** 2) + 2 * k + 2 * k * (k + 1) / max(n - k - 1, 1)
    named = {name: float(value) for name, value in parameters.items()}
    return FittedGrowth(named, height * rmse, float(aicc), height * fitted)


Curve = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _logistic(theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    ceiling, rate, midpoint = theta
    return ceiling * expit(np.exp(rate) * (x - midpoint))


def _logistic_starts(x: np.ndarray, z: np.ndarray) -> list[np.ndarray]:
    middle = x[int(np.argmax(z >= z.max() / 2))]
    return [np.array([z.max(), np.log(rate), middle]) for rate in (5.0, 15.0, 60.0)]


def _rank_one(theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Ceiling x share of the final value; the rest of theta as `_unpacked` reads it."""
    ceiling, rate, decay, w0, p0 = _unpacked(theta)
    s = rate / 2 / (1 - decay)
    state = balanced_growth(torch.from_numpy(x), s=s, w0=w0 * s, p0=p0 * s, decay=decay * s)
    return ceiling * state.u.square().numpy() / (s - decay * s)


def _unpacked(theta: np.ndarray) -> tuple[float, float, float, float, float]:
    """Ceiling, rate 2 (s - λ), λ / s, w0 / s and p0 / s."""
    rate, decay, w0, p0 = np.exp(theta[1:])
    return float(theta[0]), float(rate), float(decay / (1 + decay)), float(w0), float(p0)


Bounds = tuple[np.ndarray, np.ndarray]


def _rank_one_bounds(logistic: np.ndarray) -> Bounds:
    """Of all parameters but the ceiling, wide enough for this logistic."""
    _, rate, midpoint = logistic
    low, high = np.array(_LOW), np.array(_HIGH)
    # A late and sharp rise starts from less than any other.
    low[2] = min(low[2], 1.5 * _start_of(rate, midpoint))
    low[0], high[0] = min(low[0], rate - 1), max(high[0], rate + 1)
    return low, high


def _start_of(rate: float, midpoint: float) -> float:
    """Logarithm of w0 / s at which the law is a logistic, w0 = s / (1 + exp(rate * midpoint))."""
    return -float(np.exp(rate)) * midpoint


def _rank_one_starts(logistic: np.ndarray, bounds: Bounds) -> list[np.ndarray]:
    ceiling, rate, midpoint = logistic
    w0 = _start_of(rate, midpoint)
    starts = [np.array([ceiling, rate, _LOW[1], w0, _LOW[3]])]
    starts += [
        np.array([ceiling, rate - 0.3, decay, w0 * share, p0])
        for decay, share, p0 in (
            (-4.0, 1.0, 0.0),
            (-4.0, 0.6, 1.5),
            (-1.0, 1.0, 0.0),
            (0.0, 0.6, 1.0),
        )
    ]
    return [np.concatenate([start[:1], np.clip(start[1:], *bounds)]) for start in starts]


def _least_squares(
    curve: Curve,
    starts: list[np.ndarray],
    x: np.ndarray,
    z: np.ndarray,
    bounds: Bounds | None = None,
) -> np.ndarray:
    from scipy.optimize import least_squares

    within: Any = (-np.inf, np.inf)
    if bounds is not None:
        within = (-np.inf, *bounds[0]), (np.inf, *bounds[1])
    fits = [
        least_squares(lambda theta: curve(theta, x) - z, start, bounds=within, max_nfev=200)
        for start in starts
    ]
    return min(fits, key=lambda fit: fit.cost).x
