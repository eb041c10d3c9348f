"""Samples of steps: who is drawn how often, and that their second moment is unbiased."""

import numpy as np
import pytest
import torch

from phasescope.analysis.gram import gram
from phasescope.analysis.sampling import inclusion_probabilities, sample_steps, sampled_gram
from phasescope.analysis.spectrum import spectrum


@pytest.fixture(scope="module")
def trajectory():
    A = torch.randn(60, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return A / torch.arange(1, 61, dtype=torch.float64)[:, None].sqrt()


def test_even_steps_are_as_far_apart_as_whole_steps_allow(trajectory):
    steps = sample_steps(gram(trajectory), 7, "even").steps
    assert (int(steps[0]), int(steps[-1])) == (0, 59)
    assert set(steps.diff().tolist()) <= {9, 10}


def test_jittered_steps_come_one_from_each_stretch(trajectory):
    g = gram(trajectory)
    for seed in range(20):
        steps = sample_steps(g, 20, "jittered", seed=seed).steps
        assert (steps // 3).tolist() == list(range(20))
    drawn = torch.cat([sample_steps(g, 20, "jittered", seed=s).steps for s in range(300)])
    counts = torch.bincount(drawn, minlength=60).double() / 300
    torch.testing.assert_close(counts, torch.full((60,), 1 / 3).double(), atol=0.11, rtol=0)


@pytest.mark.parametrize("scheme", ["random", "norm-weighted"])
def test_the_second_moment_is_unbiased(trajectory, scheme):
    g, n, n_draws = gram(trajectory), 12, 1500
    whole, total = trajectory.T @ trajectory, torch.zeros(5, 5, dtype=torch.float64)
    for seed in range(n_draws):
        sample = sample_steps(g, n, scheme, seed=seed)
        rows = trajectory[sample.steps] * sample.weights[:, None]
        total += rows.T @ rows * (len(trajectory) / n if scheme == "random" else 1)
    torch.testing.assert_close(total / n_draws, whole, atol=0.06 * float(whole.max()), rtol=0)


def test_steps_are_drawn_as_often_as_their_norms_say(trajectory):
    g = gram(trajectory)
    shares = inclusion_probabilities(trajectory.norm(dim=1).numpy(), 12)
    assert shares.sum() == pytest.approx(12)
    drawn = torch.cat([sample_steps(g, 12, "norm-weighted", seed=s).steps for s in range(2000)])
    counts = torch.bincount(drawn, minlength=60).numpy() / 2000
    np.testing.assert_allclose(counts, shares, atol=5 * np.sqrt(0.25 / 2000))


def test_a_step_that_outweighs_the_others_is_always_drawn():
    g = gram(torch.diag(torch.tensor([100.0, 1.0, 1.0, 1.0])))
    for seed in range(10):
        sample = sample_steps(g, 2, "norm-weighted", seed=seed)
        assert 0 in sample.steps
        assert float(sample.weights[0]) == 1
        assert float(sample.weights[1]) == pytest.approx(3**0.5)


def test_the_gram_matrix_of_a_sample_is_that_of_its_scaled_rows(trajectory):
    sample = sample_steps(gram(trajectory), 9, "norm-weighted", seed=3)
    rows = trajectory[sample.steps] * sample.weights[:, None]
    found, explicit = sampled_gram(gram(trajectory), sample), gram(rows)
    torch.testing.assert_close(found.K, explicit.K, rtol=0, atol=1e-13)
    torch.testing.assert_close(found.row_sums, explicit.row_sums, rtol=0, atol=1e-13)
    plain = sample_steps(gram(trajectory), 9, "random", seed=3)
    S = spectrum(gram(trajectory), steps=plain.steps).S
    torch.testing.assert_close(spectrum(sampled_gram(gram(trajectory), plain)).S, S)


def test_a_sample_is_the_same_for_the_same_seed(trajectory):
    g = gram(trajectory)
    for scheme in ("random", "jittered", "norm-weighted"):
        first, second, third = (sample_steps(g, 9, scheme, seed=s).steps for s in (0, 0, 1))
        assert torch.equal(first, second)
        assert not torch.equal(first, third)


def test_impossible_samples_are_refused(trajectory, unchecked_types):
    with pytest.raises(ValueError, match="between 1 and 60 steps, but scheme='even' and n=61"):
        sample_steps(gram(trajectory), 61, "even")
    with pytest.raises(ValueError, match=r"a scheme of .*'jittered'.* but scheme='poisson'"):
        sample_steps(gram(trajectory), 3, "poisson")
    with pytest.raises(ValueError, match="between 1 and 1 steps, but scheme='norm-weighted'"):
        sample_steps(gram(torch.tensor([[1.0], [0.0]])), 2, "norm-weighted")
