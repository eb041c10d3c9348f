"""Paths beside walks of their own increments: exact level, drift found, refusals."""

import math

import pytest
import torch

from phasescope.analysis.gram import gram
from phasescope.analysis.paths import increment_gram, path_p_values, path_walk_null
from phasescope.analysis.spectrum import spectrum
from phasescope.analysis.walks import random_walk_values, walk_null


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(n: int, d: int, seed: int) -> torch.Tensor:
    """Increments of few effective dimensions and falling length: no isotropic walk."""
    mixing = noise(5, d, seed=99)
    rows = noise(n, 5, seed=seed) @ mixing + 0.1 * noise(n, d, seed=seed + 1)
    return rows * (torch.arange(1.0, n + 1).double() ** -0.5)[:, None]


def test_increments_have_the_inner_products_of_explicit_differences():
    X = noise(9, 40).cumsum(0)
    found = increment_gram(gram(X), steps=[0, 2, 3, 7])
    D = X[[2, 3, 7]] - X[[0, 2, 3]]
    torch.testing.assert_close(found.K, D @ D.T, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.row_sums, D.sum(1))
    assert (found.steps.tolist(), found.n_columns) == ([0, 2, 3], 40)


@pytest.mark.parametrize("center", ["none", "steps"])
def test_draws_are_spectra_of_explicit_walks_from_the_same_start(center: str):
    X = noise(8, 30, seed=2).cumsum(0) + 3
    null = path_walk_null(gram(X), center=center, n_draws=4, seed=5)
    generator = torch.Generator().manual_seed(5)
    for draw in null.draws:
        signs = torch.randint(0, 2, (8,), generator=generator).double() * 2 - 1
        steps = torch.cat([X[:1], X.diff(dim=0) * signs[1:, None]])
        expected = spectrum(gram(steps.cumsum(0)), center=center).S
        torch.testing.assert_close(draw, expected, rtol=1e-9, atol=1e-6)
    assert (null.center, null.normalize) == (center, False)
    middle = null.draws.sort(0).values[1:3].mean(0)  # of four
    torch.testing.assert_close(null.S, middle)
    torch.testing.assert_close(null.shares.sum(1), torch.ones(4).double())


def test_increments_of_equal_length_give_the_closed_form():
    n = 60
    walk = torch.eye(n, dtype=torch.float64).cumsum(0)
    null = path_walk_null(gram(walk), n_draws=3)
    for draw in null.draws:  # orthogonal increments: the sign changes nothing at all
        torch.testing.assert_close(draw[:-1], random_walk_values(n), rtol=1e-9, atol=0)
    U = walk_null(torch.ones(n), torch.arange(1, n + 1)).time_vectors
    torch.testing.assert_close((U[:, :5].T @ null.time_vectors[:, :5]).abs(), torch.eye(5).double())


def test_walks_of_any_correlation_keep_the_level_and_a_drift_is_found():
    """By exchangeability .05; of 60 walks at most 9 (p = .0015)."""
    hits, found = 0, 0
    for seed in range(60):
        steps = correlated(24, 200, 10 * seed)
        drift = 0.8 * noise(1, 200, seed=seed) * steps.norm(dim=1, keepdim=True) / math.sqrt(200)
        for path, is_walk in ((steps, True), (steps + drift, False)):
            g = gram(path.cumsum(0))
            p = path_p_values(spectrum(g, center="steps"), path_walk_null(g, n_draws=39))
            hits += is_walk and float(p[0]) <= 0.05
            found += not is_walk and float(p[0]) <= 0.05
    assert hits <= 9
    assert found >= 50


def test_checkpoints_far_apart_need_no_more_than_their_own_differences():
    X = noise(200, 400).cumsum(0)
    kept = [0, 1, 2, 4, 8, 16, 32, 64, 128, 199]
    null = path_walk_null(gram(X), steps=kept, n_draws=99)
    found = spectrum(gram(X), center="steps", steps=kept)
    assert null.steps.tolist() == kept
    assert float(path_p_values(found, null)[0]) > 0.01
    # Against a walk with equally long increments the same points look like a drift.
    equal = walk_null(torch.ones(10), torch.arange(1, 11))
    share = float(found.S[0] ** 2 / (found.S**2).sum())
    assert abs(share - float(null.shares.median(0).values[0])) < 0.15
    assert float(equal.shares[0, 0]) < share


def test_bad_paths_are_refused_with_what_to_do(unchecked_types):
    X = noise(6, 50).cumsum(0)
    with pytest.raises(ValueError, match="at least 4 points, but 3 arrived"):
        path_walk_null(gram(X[:3]))
    with pytest.raises(ValueError, match="increments need at least two points, but 1"):
        increment_gram(gram(X[:1]))
    with pytest.raises(ValueError, match=r"points of a path must differ.*constant"):
        path_walk_null(gram(torch.ones(6, 50)))
    far = (100 + 1e-2 * X).float()
    with pytest.raises(ValueError, match=r"Compute the Gram matrix with dtype=torch\.float64"):
        path_walk_null(gram(far))
    assert len(path_walk_null(gram(far, dtype=torch.float64)).S) == 6
    with pytest.raises(ValueError, match="center must be 'none' or 'steps' for a walk"):
        path_walk_null(gram(X), center="both")
    with pytest.raises(ValueError, match="n_draws must be at least 1"):
        path_walk_null(gram(X), n_draws=0)


def test_p_values_need_draws_of_the_same_points():
    g = gram(noise(6, 50).cumsum(0))
    found = spectrum(g, center="steps")
    with pytest.raises(ValueError, match="center is 'steps' in the spectrum but 'none'"):
        path_p_values(found, path_walk_null(g, center="none"))
    with pytest.raises(ValueError, match=r"6 values \(0 to 5\) .* but 5 values \(1 to 5\)"):
        path_p_values(found, path_walk_null(g, steps=slice(1, None)))
    with pytest.raises(ValueError, match=r"the limit of many dimensions\. Pass n_dimensions"):
        path_p_values(found, walk_null(torch.ones(6), torch.arange(6)))
