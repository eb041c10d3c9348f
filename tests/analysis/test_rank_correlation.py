"""Rank correlation against scipy, closed forms, and its promises over many draws."""

import math

import pytest
import torch
from scipy import stats

from phasescope import rank_correlation


@pytest.mark.parametrize("n", [3, 6, 12, 200])
def test_it_is_spearmans_with_ties_and_without(n: int):
    generator = torch.Generator().manual_seed(n)
    x, y = torch.randn(2, n, generator=generator).double()
    for a, b in ((x, y), ((2 * x).round(), y.round())):
        if len(a.unique()) == 1 or len(b.unique()) == 1:
            continue
        expected = stats.spearmanr(a, b).statistic
        assert rank_correlation(a, b).rho == pytest.approx(float(expected), abs=1e-12)


def test_only_the_order_counts():
    x = torch.tensor([0.3, -1.0, 2.0, 0.1, 5.0])
    y = torch.tensor([1.0, 0.0, 2.0, 4.0, 3.0])
    assert rank_correlation(x.exp(), y).rho == pytest.approx(rank_correlation(x, y).rho)
    assert rank_correlation(x, x).rho == pytest.approx(1.0)
    assert rank_correlation(x, -x).rho == pytest.approx(-1.0)
    assert rank_correlation(x, x).p == pytest.approx(2 / math.factorial(5))
    assert rank_correlation(x, x).low is None


def test_four_things_cannot_surprise():
    assert rank_correlation(torch.arange(4.0), torch.arange(4.0)).p == pytest.approx(2 / 24)


def test_the_interval_covers_and_the_p_value_keeps_its_level():
    r, n = 0.6, 40
    true = 6 / math.pi * math.asin(r / 2)  # of normal variables with correlation r
    generator = torch.Generator().manual_seed(0)
    covered = rejected = 0
    for i in range(300):
        x, noise = torch.randn(2, n, generator=generator)
        found = rank_correlation(x, r * x + math.sqrt(1 - r**2) * noise, n_permutations=39)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= true <= found.high
        rejected += rank_correlation(x, noise, n_permutations=39, seed=i).p <= 0.05
    assert covered >= 276  # .95 of 300 is 285, with a standard deviation of 3.8
    assert 4 <= rejected <= 28  # .05 of 300 is 15


@pytest.mark.usefixtures("unchecked_types")
def test_what_cannot_be_ranked_is_refused():
    x = torch.arange(5.0)
    with pytest.raises(ValueError, match="at least 3 things each are required, but 5 and 4"):
        rank_correlation(x, x[:4])
    with pytest.raises(ValueError, match="not all equal, but y has values from 1 to 1"):
        rank_correlation(x, torch.ones(5))
    with pytest.raises(ValueError, match="finite values"):
        rank_correlation(x.log(), x)


def test_a_perfect_correlation_has_no_interval():
    x = torch.arange(12.0)
    for y, rho in ((x, 1), (-x, -1)):
        found = rank_correlation(x, y)
        assert found.rho == pytest.approx(rho)
        assert found.low is None
        assert found.high is None
