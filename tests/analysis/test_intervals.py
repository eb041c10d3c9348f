from collections.abc import Callable

import numpy as np
import pytest
import torch

from phasescope.analysis.intervals import Interval, interval


def coverage(draw: Callable[[np.random.Generator], np.ndarray], mean: float, level: float) -> float:
    """Share of 2,000 data sets whose interval contains the true mean."""
    generator = np.random.default_rng(0)
    found = [interval(draw(generator), level=level, seed=i, n_resamples=1000) for i in range(2000)]
    return float(np.mean([each.low <= mean <= each.high for each in found]))


# Three binomial standard errors of 2,000 trials at .95 are .0146, at .8 .0268.
@pytest.mark.parametrize(
    ("n", "level", "tolerance"),
    [(2, 0.95, 0.0146), (5, 0.95, 0.0146), (5, 0.8, 0.0268), (10, 0.95, 0.0146), (20, 0.8, 0.0268)],
)
def test_intervals_of_normal_values_cover_the_mean_as_often_as_they_promise(
    n: int, level: float, tolerance: float
):
    found = coverage(lambda generator: generator.normal(3.0, 2.0, size=n), 3.0, level)
    assert found == pytest.approx(level, abs=tolerance)


def test_intervals_of_skewed_values_cover_as_documented():
    found = coverage(lambda generator: generator.exponential(size=10), 1.0, 0.95)
    assert found == pytest.approx(0.90, abs=0.02)  # three standard errors


def test_below_ten_values_the_interval_is_students():
    values = [4.0, 6.0, 5.0, 5.0]  # mean 5, standard error sqrt(2/3)/2; t(3, .975) = 3.182446
    found = interval(values)
    reach = 3.182446 * (2 / 3) ** 0.5 / 2
    assert found.method == "student t"
    assert (found.low, found.high) == pytest.approx((5 - reach, 5 + reach), rel=1e-6)


@pytest.mark.parametrize("n", [10, 12, 40])
def test_from_ten_values_on_the_bootstrap_of_normal_values_is_as_wide_as_students(n: int):
    from scipy.stats import norm, t

    values = norm.ppf((np.arange(n) + 0.5) / n)
    found = interval(values, n_resamples=100_000)
    reach = t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5
    assert found.method == "bootstrap"
    # Lighter tails than a normal's narrow the interval a little at small n.
    assert found.high == pytest.approx(reach, rel=0.05)
    assert found.low == pytest.approx(-reach, rel=0.05)


def test_the_bootstrap_equals_a_slow_one():
    from scipy.stats import norm, t

    values = np.random.default_rng(1).exponential(size=12)
    generator = np.random.default_rng(0)
    means = [values[generator.integers(0, 12, size=12)].mean() for _ in range(500)]
    tail = norm.cdf(-((12 / 11) ** 0.5) * t.ppf(0.95, 11))
    found = interval(values, level=0.9, n_resamples=500)
    expected = np.quantile(means, [tail, 1 - tail])
    assert (found.low, found.high) == pytest.approx(tuple(expected), rel=1e-12)


def test_many_values_are_resampled_in_blocks():
    values = np.random.default_rng(0).normal(size=3000)  # 333 resamples per block
    found = interval(values, n_resamples=1000)
    reach = 1.96 / 3000**0.5
    assert (found.low, found.high) == pytest.approx(
        (values.mean() - reach, values.mean() + reach), abs=0.1 * reach
    )


@pytest.mark.parametrize("n", [2, 9, 10, 33])
def test_equal_values_give_exactly_their_value(n: int):
    found = interval([0.1] * n)
    assert (found.low, found.high) == (0.1, 0.1)


@pytest.mark.parametrize("n", [5, 15])
def test_intervals_move_and_stretch_with_the_values(n: int):
    values = np.random.default_rng(0).normal(size=n)
    plain, moved = interval(values), interval(4 * values - 7)
    assert (moved.low, moved.high) == pytest.approx((4 * plain.low - 7, 4 * plain.high - 7))
    assert moved.method == plain.method


@pytest.mark.parametrize("sign", [1, -1])
def test_an_end_at_zero_is_zero_and_not_rounding(sign: int):
    # Claims ask on which side of zero an interval lies; the first value decided that by rounding.
    for k in range(1, 40):
        values = [sign * (0.0156 + 1 / (63 + k)), *[0.0] * 9, *[sign * 0.3] * 2]
        found = interval(values)
        assert (found.low if sign > 0 else found.high) == 0.0


def test_a_higher_level_is_wider():
    values = np.random.default_rng(0).normal(size=15)
    narrow, wide = interval(values, level=0.8), interval(values, level=0.99)
    assert wide.low < narrow.low < values.mean() < narrow.high < wide.high


def test_the_same_seed_gives_the_same_interval_and_lists_arrays_and_tensors_agree():
    values = [float(i * i) for i in range(12)]
    first = interval(values)
    assert interval(values) == first
    assert interval(np.array(values)) == first
    assert interval(torch.tensor(values)) == first
    assert interval([i * i for i in range(12)]) == first
    assert interval(values, seed=1) != first


@pytest.mark.parametrize("values", [[], [1.0]])
def test_fewer_than_two_values_are_refused(values: list[float]):
    with pytest.raises(ValueError, match=r"at least two values .* Run more seeds"):
        interval(values)


def test_values_along_two_axes_are_refused():
    # As users call it: the suite's own check of the annotations would refuse the array first.
    unchecked: Callable[..., Interval] = getattr(interval, "__wrapped__", interval)
    with pytest.raises(ValueError, match=r"along one axis, but values has the shape \(2, 3\)"):
        unchecked(np.ones((2, 3)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(bad: float):
    with pytest.raises(ValueError, match=f"value 1 of 3 is {bad}"):
        interval([1.0, bad, 2.0])


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_levels_outside_0_and_1_are_refused(level: float):
    with pytest.raises(ValueError, match=f"level must lie between 0 and 1.* but it is {level}"):
        interval([1.0, 2.0], level=level)


def test_too_few_resamples_are_refused():
    with pytest.raises(ValueError, match=r"n_resamples must be at least 100 .* not 10"):
        interval([1.0] * 10, n_resamples=10)


def test_an_interval_says_what_it_is():
    assert (
        repr(Interval(1.0, 2.0, "student t")) == "Interval(low=1.0, high=2.0, method='student t')"
    )
