"""The Tracy–Widom law: published values, moments, and its tails."""

import math

import numpy as np
import pytest

from phasescope.analysis.tracy_widom import tracy_widom_cdf, tracy_widom_quantile


def test_published_values_are_met():
    assert tracy_widom_cdf(-1.2065) == pytest.approx(0.5197, abs=1e-4)
    # Quantiles as tabulated by Bejan (2005), table 1, to the digits given there.
    for p, x in ((0.01, -3.8954), (0.05, -3.1804), (0.5, -1.2686), (0.95, 0.9793), (0.99, 2.0234)):
        assert tracy_widom_quantile(p) == pytest.approx(x, abs=2e-4)


def test_moments_are_the_known_ones():
    nodes, weights = np.polynomial.legendre.leggauss(80)
    low, high = -7.9, 9.0
    x, weights = low + (nodes + 1) * (high - low) / 2, weights * (high - low) / 2
    cdf = np.array([tracy_widom_cdf(value) for value in x])
    assert (np.diff(cdf) >= -1e-13).all()
    # E X = upper end minus the integral of the distribution function; likewise for X².
    mean = high - (weights * cdf).sum()
    square = high**2 - (weights * 2 * x * cdf).sum()
    assert mean == pytest.approx(-1.2065335746, abs=1e-7)
    assert square - mean**2 == pytest.approx(1.6077810346, abs=1e-6)


def test_quantiles_invert_the_distribution_function():
    for p in (1e-4, 0.3, 0.999):
        assert tracy_widom_cdf(tracy_widom_quantile(p)) == pytest.approx(p, rel=1e-8)


def test_tails_are_zero_and_one_and_nan_is_refused():
    assert tracy_widom_cdf(-50) == 0.0
    assert tracy_widom_cdf(50) == 1.0
    # The right tail falls like exp(-2/3 x^1.5) / (4 sqrt(pi) x^.75), up to 1/x^1.5.
    tail = math.exp(-2 / 3 * 8**1.5) / (4 * math.sqrt(math.pi) * 8**0.75)
    assert 1 - tracy_widom_cdf(8) == pytest.approx(tail, rel=0.05)
    with pytest.raises(ValueError, match="x must be a number, but nan arrived"):
        tracy_widom_cdf(math.nan)
    with pytest.raises(ValueError, match=r"p must be a probability strictly between 0 and 1"):
        tracy_widom_quantile(95)
