"""Edges of noise: closed forms, published constants, and simulated noise."""

import math

import pytest
import torch

from phasescope.analysis.edges import (
    edge_p_values,
    gavish_donoho,
    marchenko_pastur_median,
    noise_edges,
    noise_scale,
)
from phasescope.analysis.gram import gram
from phasescope.analysis.spectrum import spectrum


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("T", "P"), [(1, 50), (100, 10_000), (300, 300), (400, 100)])
def test_equal_variances_give_the_edges_of_marchenko_and_pastur(T: int, P: int):
    found = noise_edges(torch.full((P,), 4.0), T)
    assert found.upper == pytest.approx(2 * (math.sqrt(P) + math.sqrt(T)), rel=1e-9)
    assert found.bulk == found.upper
    assert found.n_outliers == 0
    # At P = T the lower edge is 0, and the root lies at infinity.
    expected = 2 * max(math.sqrt(P) - math.sqrt(T), 0.0)
    assert found.lower == pytest.approx(expected, rel=1e-6, abs=1e-3)


def test_two_variances_give_the_roots_of_the_equation():
    T, a, b, n, m = 50, 1.0, 3.0, 700, 200
    found = noise_edges(torch.tensor([a] * n + [b] * m), T)

    def z(x: float) -> float:
        return -1 / x + (n * a / (1 + a * x) + m * b / (1 + b * x)) / T

    grid = torch.linspace(-1 / b + 1e-6, -1e-4, 200_001, dtype=torch.float64)
    upper = math.sqrt(T * min(z(x) for x in grid[::20].tolist()))
    positive = torch.logspace(-3, 3, 20_001, dtype=torch.float64)
    lower = math.sqrt(T * max(z(x) for x in positive.tolist()))
    assert found.upper == pytest.approx(upper, rel=1e-6)
    assert found.lower == pytest.approx(lower, rel=1e-6)


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_edges_of_simulated_noise(spread: float):
    """Acceptance test 5: upper within 2 % (equal, log-normal .5), lower within 1 % for all."""
    T, P = 150, 6000
    sigma = torch.exp(spread * noise(P, seed=1))
    largest, smallest = [], []
    for seed in range(3):
        S = spectrum(gram(noise(T, P, seed=10 + seed) * sigma), time_vectors=False).S
        largest.append(float(S[0]))
        smallest.append(float(S[-1]))
    found = noise_edges(sigma**2, T)
    # Mean of three: a loud parameter's own value varies by 1/sqrt(2 T) = 6 % in each.
    assert sum(largest) / 3 == pytest.approx(found.upper, rel=0.02 if spread < 1 else 0.07)
    assert sum(smallest) / 3 == pytest.approx(found.lower, rel=0.01)


def test_a_loud_parameter_stands_apart_and_is_counted():
    T, P, loud = 100, 5000, 400.0
    variances = torch.ones(P)
    variances[7] = loud
    found = noise_edges(variances, T)
    assert found.n_outliers == 1
    assert found.bulk == pytest.approx(math.sqrt(P - 1) + 10, rel=1e-6)
    expected = math.sqrt(T * (loud + (P - 1) / T / (1 - 1 / loud)))
    assert found.upper == pytest.approx(expected, rel=1e-9)


def test_several_parameters_of_about_one_variance_stand_apart_together():
    T, P = 100, 5000
    variances = torch.ones(P)
    bulk = noise_edges(variances, T).upper
    for loud in ([400.0, 400.0], [400.0, 399.0], torch.linspace(150, 250, 10).tolist()):
        found = noise_edges(torch.cat([variances, torch.tensor(loud)]), T)
        assert found.n_outliers == len(loud)
        assert found.bulk == pytest.approx(bulk, rel=1e-9)
        assert found.upper > 2 * bulk
    generator = torch.Generator().manual_seed(0)
    variances[:10] = torch.linspace(150, 250, 10)
    values = torch.linalg.svdvals(torch.randn(T, P, generator=generator) * variances.sqrt())
    found = noise_edges(variances, T)
    assert values[9] > 1.2 * found.bulk
    assert float(values[10]) == pytest.approx(found.bulk, rel=0.02)


def test_spread_out_variances_have_no_more_outliers_than_others():
    found = noise_edges(torch.logspace(0, 3, 50), 10_000)
    assert found.n_outliers < 25


def test_many_variances_are_binned_without_moving_the_edges():
    variances = torch.exp(noise(30_000, seed=3)).double()
    whole = noise_edges(variances, 300)
    from phasescope.analysis import edges

    values = variances.sort(descending=True).values.numpy()
    exact = edges._lower(values / values[0], torch.ones(30_000).numpy(), 300) * values[0] ** 0.5
    assert whole.lower == pytest.approx(exact, rel=1e-6)


def test_edges_scale_with_the_noise():
    variances = torch.exp(noise(500, seed=3))
    small, large = noise_edges(variances, 50), noise_edges(variances * 1e8, 50)
    for name in ("lower", "upper", "bulk"):
        assert getattr(large, name) == pytest.approx(1e4 * getattr(small, name), rel=1e-5)


@pytest.mark.parametrize(
    ("variances", "n_steps"),
    [
        (torch.zeros(3), 5),
        (torch.zeros(0), 5),
        (torch.tensor([1.0, math.nan]), 5),
        (torch.tensor([1.0, -1.0]), 5),
        (torch.ones(3), 0),
    ],
)
def test_impossible_variances_are_refused(variances: torch.Tensor, n_steps: int):
    with pytest.raises(ValueError, match="at least one step and finite variances >= 0"):
        noise_edges(variances, n_steps)


def test_thresholds_of_gavish_and_donoho_are_the_published_ones():
    for beta, known in ((1.0, 2.858), (0.5, 2.1711), (1e-6, math.sqrt(2))):
        root = math.sqrt(beta**2 + 14 * beta + 1)
        factor = math.sqrt(2 * (beta + 1) + 8 * beta / (beta + 1 + root))
        found = factor / math.sqrt(marchenko_pastur_median(beta))
        assert found == pytest.approx(known, rel=2e-4)
    square = spectrum(gram(noise(64, 64)))
    assert gavish_donoho(square, 0.5) == pytest.approx(4 / math.sqrt(3) * 8 * 0.5)


def test_the_larger_dimension_sets_the_threshold_and_the_median_the_noise():
    A = 3 * noise(40, 4000)
    wide, tall = spectrum(gram(A)), spectrum(gram(A.T.contiguous()[:400, :40]))
    assert gavish_donoho(wide, 3.0) == pytest.approx(3 * math.sqrt(2 * 4000), rel=0.02)
    assert noise_scale(wide) == pytest.approx(3, rel=0.02)
    assert noise_scale(tall) == pytest.approx(3, rel=0.05)
    assert gavish_donoho(wide) == pytest.approx(gavish_donoho(wide, noise_scale(wide)))
    centered = spectrum(gram(A), center="steps")
    assert noise_scale(centered) == pytest.approx(3, rel=0.02)


def test_p_values_of_noise_are_uniform():
    p = [
        float(edge_p_values(spectrum(gram(noise(12, 400, seed=seed))), 1.0)[0])
        for seed in range(100)
    ]
    # Uniform: mean 1/2 with standard deviation .029; the share below .1 has .03.
    assert abs(sum(p) / 100 - 0.5) < 0.1
    assert 0.02 <= sum(value < 0.1 for value in p) / 100 <= 0.2


def test_a_planted_component_has_a_small_p_value_and_the_next_has_not():
    A = noise(50, 2000) + 0.5 * noise(50, 1, seed=1) * noise(1, 2000, seed=2)
    p = edge_p_values(spectrum(gram(A), center="both"), 1.0)
    assert p[0] < 1e-6
    assert p[1] > 0.01


def test_impossible_noise_scales_are_refused():
    found = spectrum(gram(noise(10, 50)))
    for call in (edge_p_values, gavish_donoho):
        with pytest.raises(ValueError, match=r"sigma must be .* above 0, but 0\.0"):
            call(found, 0.0)
    with pytest.raises(ValueError, match=r"beta must be a ratio of dimensions in \(0, 1\]"):
        marchenko_pastur_median(2.0)
    with pytest.raises(ValueError, match="median singular value above rounding"):
        noise_scale(spectrum(gram(noise(10, 1) * noise(1, 50))))
    with pytest.raises(ValueError, match="at least two steps and two parameters after centring"):
        gavish_donoho(spectrum(gram(noise(2, 50)), center="steps"), 1.0)
