"""Time profiles: closed forms of the null, planted times, norms that decay."""

import math

import pytest
import torch

from phasescope.analysis.gram import gram
from phasescope.analysis.profiles import degenerate_groups, time_profiles
from phasescope.analysis.spectrum import Spectrum, spectrum


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_vectors(U: torch.Tensor, steps: torch.Tensor | None = None) -> Spectrum:
    """A spectrum with the given time vectors."""
    T, n = U.shape
    steps = torch.arange(T) if steps is None else steps
    S, ones = torch.linspace(2, 1, n).double(), torch.ones(T).double()
    return Spectrum(S, U, steps, ones, ones, "none", True, 10 * T, 0.0)


def test_statistics_are_those_of_the_squared_vector():
    steps = torch.tensor([0, 10, 20, 40, 80])
    v = torch.tensor([0.6, 0.0, -0.8, 0.0, 0.0]).double()
    found = time_profiles(with_vectors(v[:, None], steps), 1, share=0.4)
    assert float(found.center.observed[0]) == pytest.approx(0.64 * 20)
    spread = math.sqrt(0.36 * 12.8**2 + 0.64 * 7.2**2)
    assert float(found.spread.observed[0]) == pytest.approx(spread)
    assert float(found.early.observed[0]) == pytest.approx(0.36)
    assert float(found.late.observed[0]) == 0
    assert float(found.autocorrelation.observed[0]) == 0
    torch.testing.assert_close(found.energy[0], v**2)


def test_the_null_of_the_centre_of_mass_has_the_closed_form_moments_of_permutations():
    T = 60
    v = noise(T, 1)
    v = v / v.norm()
    found = time_profiles(with_vectors(v), 1, n_permutations=4000)
    w, t = (v**2).flatten(), torch.arange(T).double()
    variance = float(((w - 1 / T) ** 2).sum() * ((t - t.mean()) ** 2).sum()) / (T - 1)
    sd = math.sqrt(variance)
    assert float(found.center.null_mean[0]) == pytest.approx((T - 1) / 2, abs=4 * sd / 63)
    assert float(found.center.null_sd[0]) == pytest.approx(sd, rel=0.05)


def test_centres_of_vectors_uniform_on_the_sphere_have_the_published_moments():
    """Acceptance test 7: mean (T + 1)/2 and standard deviation 8.14 at T = 400."""
    T, n = 400, 400
    U = torch.linalg.qr(noise(T, n))[0]
    found = time_profiles(with_vectors(U, torch.arange(1, T + 1)), n, n_permutations=19)
    centre = found.center.observed
    sd = math.sqrt((T**2 - 1) / (6 * (T + 2)))
    assert sd == pytest.approx(8.14, abs=0.01)
    # The 400 columns of an orthogonal matrix: each step has total weight one, so the mean is exact.
    assert float(centre.mean()) == pytest.approx((T + 1) / 2, abs=1e-6)
    assert float(centre.std()) == pytest.approx(sd, rel=4 / math.sqrt(2 * n))
    assert float(found.center.null_sd.mean()) == pytest.approx(sd, rel=0.05)


def test_p_values_of_noise_are_uniform_and_autocorrelation_is_near_zero():
    found = time_profiles(with_vectors(torch.linalg.qr(noise(80, 80))[0]), 80, n_permutations=199)
    for statistic in (found.center, found.spread, found.early, found.late, found.autocorrelation):
        # Binomial(80, .1): above 17 with probability .001.
        assert int((statistic.p <= 0.1).sum()) <= 17
        assert float(statistic.z.std()) == pytest.approx(1, abs=0.35)


def test_a_component_planted_early_is_early_and_a_slow_one_is_correlated():
    T = 60
    A = noise(T, 900)
    A[:10, 0] += 90
    A[:, 1] += 15 * torch.sin(torch.arange(T) * 2 * math.pi / T)
    found = time_profiles(spectrum(gram(A), normalize=True), 3)
    assert float(found.early.observed[0]) > 0.9
    assert float(found.early.p[0]) == pytest.approx(2 / 1000)
    assert float(found.center.z[0]) < -3
    assert float(found.autocorrelation.observed[1]) > 0.7
    assert float(found.autocorrelation.p[1]) == pytest.approx(2 / 1000)
    assert float(found.autocorrelation.p[2]) > 0.05


def test_norms_that_decay_are_refused_until_they_are_normalised():
    T, hits = 100, 0
    a = torch.exp(-torch.arange(T).double() / 30)
    for seed in range(20):
        g = gram(a[:, None] * noise(T, 800, seed=seed))
        # Raw noise is early-heavy by construction: its first component is its first steps.
        assert float((spectrum(g).time_vectors[:20, 0] ** 2).sum()) > 0.8
        found = time_profiles(spectrum(g, center="steps", normalize=True), 1)
        hits += float(found.center.p[0]) < 0.05
    assert hits <= 5  # of 20 at .05: more than 5 has probability .0003
    with pytest.raises(ValueError, match=r"needs a spectrum of normalised steps.*normalize=True"):
        time_profiles(spectrum(g), 1)


def test_a_group_shares_one_profile_that_rotation_does_not_change():
    U = torch.linalg.qr(noise(50, 3))[0]
    angle = torch.tensor(0.7)
    R = torch.eye(3).double()
    R[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]]).double()
    one = time_profiles(with_vectors(U), [(0, 1), (2,)])
    two = time_profiles(with_vectors(U @ R), [(0, 1), (2,)])
    torch.testing.assert_close(one.energy, two.energy, atol=1e-7, rtol=0)
    torch.testing.assert_close(one.center.observed, two.center.observed)
    torch.testing.assert_close(one.autocorrelation.observed, two.autocorrelation.observed)
    assert one.groups == ((0, 1), (2,))
    torch.testing.assert_close(one.energy[0], (U[:, :2] ** 2).sum(1) / 2)


def test_a_flat_profile_is_never_significant():
    found = time_profiles(with_vectors(torch.full((16, 1), 0.25).double()), 1)
    assert float(found.center.p[0]) == 1
    assert float(found.autocorrelation.p[0]) == 1


def test_neighbouring_values_are_grouped_by_their_distance():
    found = spectrum(gram(torch.diag(torch.tensor([4.0, 3.99, 3.0, 1.0, 0.999, 0.998]))))
    assert degenerate_groups(found, 6, 0.02) == ((0, 1), (2,), (3, 4, 5))
    assert degenerate_groups(found, 2, 0.0) == ((0,), (1,))
    with pytest.raises(ValueError, match="width must be a relative difference >= 0"):
        degenerate_groups(found, 2, -1.0)


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        (1, {"share": 0.6}, r"share must lie in \(0, .5\]"),
        (1, {"n_permutations": 5}, "n_permutations be at least 19"),
        ([], {}, "non-empty groups of their indices"),
        ([(0,), ()], {}, "non-empty groups"),
        ([(-1,)], {}, "indices from 0"),
        (9, {}, "k must be between 1 and 3"),
        ([(0, 5)], {}, "k must be between 1 and 3"),
    ],
)
def test_impossible_groups_are_refused(groups, options, message: str):
    with pytest.raises(ValueError, match=message):
        time_profiles(with_vectors(torch.linalg.qr(noise(9, 3))[0]), groups, **options)


def test_too_few_steps_and_missing_vectors_are_refused():
    with pytest.raises(ValueError, match="at least 4 steps, but the spectrum has 3"):
        time_profiles(with_vectors(torch.eye(3).double()), 1)
    with pytest.raises(ValueError, match="singular values only"):
        time_profiles(spectrum(gram(noise(5, 9)), normalize=True, time_vectors=False), 1)
