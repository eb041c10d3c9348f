"""The rank-one law and the logistic are told apart on planted series."""

import pytest
import torch

import phasescope as ps

TIMES = torch.linspace(0, 10, 80, dtype=torch.float64)


def noise(scale, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(len(TIMES), dtype=torch.float64, generator=generator)


def test_the_law_is_recovered_from_its_own_curve():
    w = ps.balanced_growth(TIMES, s=1.2, w0=0.02, p0=1.5, decay=0.2).u.square()
    found = ps.compare_growth(100 * TIMES, 7 * w)
    assert found.rank_one.rmse < 1e-6
    assert found.rank_one.parameters["rate"] == pytest.approx(2 * (1.2 - 0.2) / 100, rel=1e-2)
    assert found.rank_one.parameters["ceiling"] == pytest.approx(7 * 1.0, rel=1e-3)
    assert found.logistic.rmse > 1e-2


@pytest.mark.parametrize("seed", range(2))
def test_the_law_wins_over_the_logistic_on_its_own_curve_with_noise(seed):
    w = ps.balanced_growth(TIMES, s=1.0, w0=0.02, p0=2.0, decay=0.1).u.square()
    found = ps.compare_growth(TIMES, w + noise(0.003, seed))
    assert found.aicc_difference > 10


@pytest.mark.parametrize("seed", range(2))
def test_a_logistic_with_noise_is_not_taken_for_the_law(seed):
    logistic = 3 * torch.sigmoid(1.5 * (TIMES - 5))
    found = ps.compare_growth(TIMES, logistic + noise(0.03, seed))
    assert found.aicc_difference < 6  # the law contains the logistic and pays for two parameters
    assert found.logistic.parameters["midpoint"] == pytest.approx(5, abs=0.05)
    assert found.logistic.parameters["rate"] == pytest.approx(1.5, rel=0.05)
    assert found.rank_one.rmse <= found.logistic.rmse * (1 + 1e-6)


def test_neighbours_that_resemble_each_other_count_less():
    slow = torch.sin(2 * TIMES) * 0.02
    series = 3 * torch.sigmoid(1.5 * (TIMES - 5))
    assert ps.compare_growth(TIMES, series + slow).n_independent < 30
    assert ps.compare_growth(TIMES, series + noise(0.02)).n_independent > 50


@pytest.mark.parametrize(
    ("times", "values", "message"),
    [
        (TIMES[:15], TIMES[:15], "there are 15 times and 15 values"),
        (TIMES, torch.ones_like(TIMES), "a series that changes, but it is 1.0"),
        (TIMES.flip(0), TIMES, "the times increasing"),
        (TIMES, TIMES * float("nan"), "must be finite"),
    ],
)
def test_what_is_wrong_is_said(times, values, message):
    with pytest.raises(ValueError, match=message):
        ps.compare_growth(times, values)


@pytest.mark.parametrize(("rate", "midpoint"), [(0.3, 50.0), (0.6, 80.0), (1.0, 90.0)])
def test_the_law_never_fits_worse_than_the_logistic_that_it_contains(rate, midpoint):
    t = torch.linspace(0, 100, 200).double()
    clean = torch.sigmoid(rate * (t - midpoint))
    noise = 0.01 * torch.randn(200, generator=torch.Generator().manual_seed(0)).double()
    for y in (clean, clean + noise):
        found = ps.compare_growth(t, y)
        assert found.rank_one.rmse <= found.logistic.rmse * 1.001 + 1e-6


def test_a_late_and_sharp_curve_of_the_law_is_its_own():
    t = torch.linspace(0, 100, 200).double()
    y = ps.balanced_growth(t, s=0.4, w0=1e-15, p0=0.0).u.square()
    assert ps.compare_growth(t, y).rank_one.rmse < 1e-6
