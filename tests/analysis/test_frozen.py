"""Comparison with frozen weights: planted training, matched norms, effective dimensions."""

import math
import statistics

import pytest
import torch

from phasescope.analysis.frozen import compare_with_frozen, effective_dimension
from phasescope.analysis.gram import gram
from phasescope.analysis.ranks import count_above, energy_rank
from phasescope.analysis.spectrum import spectrum


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(n: int, P: int, *, seed: int) -> torch.Tensor:
    """Minibatch noise: correlated between parameters, the same covariance for every seed."""
    return noise(n, 10, seed=seed) @ noise(10, P, seed=99) + noise(n, P, seed=seed + 1)


@pytest.mark.parametrize("center", ["none", "steps", "parameters", "both"])
@pytest.mark.parametrize("normalize", [False, True])
def test_noise_of_the_same_kind_has_no_excess(center: str, normalize: bool):
    decay = torch.exp(-torch.arange(40).double() / 20)[:, None]
    found = compare_with_frozen(
        gram(decay * correlated(40, 600, seed=1)), gram(correlated(200, 600, seed=5)),
        center=center, normalize=normalize, n_draws=30,
    )  # fmt: skip
    for name, value in found.observed.items():
        null = found.null[name]
        assert null.shape == (30,)
        assert abs(value - float(null.mean())) < 4 * float(null.std()) + 1e-9
        middle = statistics.median(null.tolist())  # of an even number, between two
        assert found.excess[name] == pytest.approx(value - middle, abs=1e-12 * abs(middle))
    assert (found.center, found.normalize) == (center, normalize)
    assert found.S.shape == (40,)


def test_structure_made_by_training_shows_as_excess():
    trained = correlated(40, 600, seed=1) + 3 * noise(40, 1, seed=3) * noise(1, 600, seed=4)
    found = compare_with_frozen(gram(trained), gram(correlated(200, 600, seed=5)))
    null = found.null["stable rank"]
    assert found.observed["stable rank"] < float(null.min())


def test_norms_are_matched_exactly_and_only_if_asked():
    rows = torch.zeros(6, 20, dtype=torch.float64)
    rows[range(6), range(6)] = torch.tensor([3.0, 1.0, 0.5, 2.0, 1.5, 0.1]).double()
    frozen = torch.zeros(6, 20, dtype=torch.float64)
    frozen[range(6), range(10, 16)] = 7.0
    found = compare_with_frozen(gram(rows), gram(frozen))
    torch.testing.assert_close(found.S, rows.norm(dim=1).sort(descending=True).values)
    assert found.norms_matched
    raw = compare_with_frozen(gram(rows), gram(frozen), match_norms=False)
    torch.testing.assert_close(raw.S, torch.full((6,), 7.0).double())


def test_draws_are_subsets_of_the_frozen_rows_and_all_of_them_are_one_draw():
    frozen = gram(noise(12, 300))
    g = gram(noise(12, 300, seed=1))
    found = compare_with_frozen(g, frozen, match_norms=False)
    torch.testing.assert_close(found.S, spectrum(frozen).S)
    assert all(len(values) == 1 for values in found.null.values())
    part = compare_with_frozen(g, frozen, steps=[1, 5, 7], statistics={"k90": lambda S: 1.5})
    assert part.steps.tolist() == [1, 5, 7]
    assert part.observed == {"k90": 1.5}
    assert part.null["k90"].tolist() == [1.5] * 20


def test_own_statistics_are_taken_of_both():
    found = compare_with_frozen(
        gram(noise(8, 100)), gram(noise(30, 100, seed=1)),
        statistics={"k90": lambda S: energy_rank(S, 0.9), "count": count_above}, n_draws=3,
    )  # fmt: skip
    assert found.observed == {"k90": 8.0, "count": 8.0} or found.observed["count"] == 8.0
    assert list(found.null) == ["k90", "count"]


def test_mismatched_runs_and_too_few_gradients_are_refused():
    g = gram(noise(6, 50))
    with pytest.raises(ValueError, match=r"same parameters, but the trajectory has 50.* have 51"):
        compare_with_frozen(g, gram(noise(6, 51)))
    with pytest.raises(ValueError, match=r"as many frozen gradients as the 6 steps.*5 gradients"):
        compare_with_frozen(g, gram(noise(5, 50)))
    zero = noise(7, 50)
    zero[3] = 0
    with pytest.raises(ValueError, match=r"every frozen gradient needs a norm above zero.* 1 have"):
        compare_with_frozen(g, gram(zero))


@pytest.mark.parametrize("center", ["none", "steps"])
def test_the_effective_dimension_of_isotropic_noise_is_its_dimension(center: str):
    for d in (30, 300, 3000):
        found = [
            1 / effective_dimension(spectrum(gram(noise(100, d, seed=seed)), center=center))
            for seed in range(10)
        ]
        # Unbiased in 1/d; its standard deviation is about 2/T² (1 + T/d)... ten draws.
        assert sum(found) / 10 == pytest.approx(1 / d, abs=4 * (2 / 100**2 + 2 / 100 / d))


def test_the_effective_dimension_is_that_of_the_covariance():
    scales = torch.linspace(0.2, 3, 400, dtype=torch.float64)
    d = float((scales**2).sum() ** 2 / (scales**4).sum())
    Q = torch.linalg.qr(noise(400, 400))[0]
    A = (noise(300, 400, seed=1) * scales) @ Q
    assert effective_dimension(spectrum(gram(A + 5), center="steps")) == pytest.approx(d, rel=0.05)


def test_uncorrelated_rows_have_no_finite_dimension():
    assert effective_dimension(spectrum(gram(torch.eye(5, 9)))) == math.inf
    with pytest.raises(ValueError, match="at least three steps"):
        effective_dimension(spectrum(gram(noise(2, 9)), center="steps"))


def test_a_trajectory_like_the_frozen_one_has_no_small_p_and_a_planted_one_has():
    pool, other = gram(noise(300, 500)), gram(noise(30, 500, seed=5))
    same = compare_with_frozen(other, pool, n_draws=99)
    assert set(same.p) == set(same.observed)
    assert min(same.p.values()) > 0.02
    planted = noise(30, 500, seed=5) + 3 * noise(30, 1, seed=6) * noise(1, 500, seed=7)
    assert compare_with_frozen(gram(planted), pool, n_draws=99).p["stable rank"] == 0.02


def test_constant_gradients_have_no_spectrum_to_compare():
    constant = gram(torch.ones(8, 1) * noise(1, 50))
    with pytest.raises(ValueError, match=r"the steps must differ.*mean over steps subtracted"):
        compare_with_frozen(constant, gram(noise(20, 50)), center="steps")
    with pytest.raises(ValueError, match="they are constant"):
        effective_dimension(spectrum(constant, center="steps"))


@pytest.mark.parametrize("normalize", [False, True])
def test_frozen_gradients_that_are_all_alike_are_refused(normalize: bool):
    alike = torch.ones(40, 1).double() @ noise(1, 300, seed=2)
    with pytest.raises(ValueError, match=r"must differ, but all 40 are alike: a full batch"):
        compare_with_frozen(gram(noise(20, 300)), gram(alike), center="steps", normalize=normalize)
