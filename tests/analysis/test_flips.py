"""The rank test: planted ranks, exact level by symmetry, and what it was computed on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from phasescope.analysis.flips import flip_rank_test
from phasescope.analysis.gram import gram
from phasescope.analysis.spectrum import spectrum


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def planted(
    n_steps: int, n_columns: int, k: int, amplitude: float, *, seed: int, decay: float = 0.5
) -> torch.Tensor:
    """k orthonormal components in noise of log-normal scales, all rows with norms t^-decay.

    Amplitudes are in units of the noise of a row, so that 1 is where half of a parameter vector is
    signal.
    """
    generator = torch.Generator().manual_seed(seed)
    sigma = torch.exp(0.5 * torch.randn(n_columns, generator=generator))
    Z = torch.randn(n_steps, n_columns, generator=generator) * sigma
    U = torch.linalg.qr(torch.randn(n_steps, k, generator=generator))[0]
    V = torch.linalg.qr(torch.randn(n_columns, k, generator=generator))[0]
    signal = amplitude * float(sigma.square().sum().sqrt()) * U @ V.T
    scales = torch.arange(1.0, n_steps + 1) ** -decay
    return scales[:, None] * (Z + signal)


@pytest.mark.parametrize("center", ["none", "steps", "both"])
@pytest.mark.parametrize("amplitude", [2.0, 10.0, 100.0])
def test_planted_components_are_counted_exactly(amplitude: float, center: str):
    for normalize in (True, False):
        A = planted(80, 2000, 4, amplitude, seed=1, decay=0.0)
        found = flip_rank_test(A, center=center, normalize=normalize)
        assert found.rank == 4
        assert found.converged


def test_strong_components_hide_weak_ones_until_they_are_deflated():
    A = planted(80, 2000, 2, 2.0, seed=3, decay=0.0)
    U = noise(80, 2, seed=4)
    A = A + 15 * U @ noise(2, 2000, seed=5)
    hidden = flip_rank_test(A, max_deflations=0)
    found = flip_rank_test(A)
    assert (hidden.rank, hidden.n_deflated, hidden.converged) == (2, 0, False)
    assert (found.rank, found.n_deflated, found.converged) == (4, 4, True)
    assert torch.equal(found.surrogates, hidden.surrogates)
    assert found.residual_surrogates[:, 0].max() < 0.5 * hidden.surrogates[:, 0].min()


def test_a_mean_over_steps_is_removed_before_flipping_where_it_is_subtracted():
    A = planted(80, 2000, 2, 2.0, seed=6, decay=0.0) + 8 * noise(1, 2000, seed=7)
    found = flip_rank_test(A, center="steps", normalize=True)
    assert found.deflated_mean
    assert found.rank == 2
    assert flip_rank_test(A).rank == 3  # not subtracted, it is a component
    assert not flip_rank_test(noise(30, 500), center="steps").deflated_mean


def test_norms_that_decay_do_not_become_components():
    for seed in range(5):
        A = planted(60, 1500, 3, 6.0, seed=seed)
        assert flip_rank_test(A, normalize=True).rank == 3
        # Raw, the quiet steps drown: fewer, never more.
        assert flip_rank_test(A).rank <= 3


def test_thresholds_separate_what_counts_from_what_does_not():
    A = planted(60, 1500, 3, 6.0, seed=0, decay=0.0)
    found = flip_rank_test(A, normalize=True, n_surrogates=39, quantile=0.95)
    assert ((found.thresholds < found.observed).nonzero().flatten()).tolist() == [0, 1, 2]
    assert found.surrogates.shape == found.residual_surrogates.shape == (39, 60)
    assert found.level == pytest.approx(2 / 40)  # the 38th of 39 surrogates
    edge = found.residual_surrogates[:, 0].sort().values[37]
    torch.testing.assert_close(found.thresholds[3:], edge.expand(57))
    torch.testing.assert_close(found.S, found.surrogates.median(0).values)


def test_the_observed_values_and_settings_are_those_of_the_spectrum():
    A = noise(12, 400)
    for center in ("none", "steps", "parameters", "both"):
        found = flip_rank_test(A, center=center, normalize=True, steps=slice(2, 11))
        expected = spectrum(gram(A), center=center, normalize=True, steps=slice(2, 11))
        torch.testing.assert_close(found.observed, expected.S)
        assert torch.equal(found.steps, expected.steps)
        assert (found.center, found.normalize, found.n_columns) == (center, True, 400)


def test_the_pairwise_rule_compares_each_index_and_finds_no_fewer():
    A = planted(60, 1500, 3, 6.0, seed=2, decay=0.0)
    edge = flip_rank_test(A, normalize=True, max_deflations=0)
    pair = flip_rank_test(A, normalize=True, max_deflations=0, rule="pairwise")
    assert pair.rank >= edge.rank == 3
    torch.testing.assert_close(pair.thresholds, pair.surrogates.max(0).values)
    assert bool((pair.observed[: pair.rank] > pair.thresholds[: pair.rank]).all())
    assert bool(pair.observed[pair.rank] <= pair.thresholds[pair.rank])


def test_orthogonal_updates_of_any_norm_are_no_components():
    # Update n is e_n / n: the 10 % rule counts 9, but flips change nothing at all.
    A = torch.diag(1 / torch.arange(1, 101).double())
    assert flip_rank_test(A).rank == 0
    assert flip_rank_test(A, rule="pairwise").rank == 0


def test_exact_low_rank_is_found_without_any_noise():
    A = noise(20, 3, dtype=torch.float64) @ noise(3, 800, seed=1, dtype=torch.float64)
    for X in (A, A.float()):
        assert flip_rank_test(X, normalize=True).rank == 3


def test_fewer_parameters_than_steps_work_too():
    A = noise(100, 20)
    A[:, 0] += 0.0
    assert flip_rank_test(A).rank == 0
    assert flip_rank_test(A + 3 * noise(100, 1, seed=1) * noise(1, 20, seed=2)).rank == 1


@pytest.mark.parametrize("normalize", [False, True])
def test_equalised_parameters_are_those_of_the_explicit_matrix(normalize: bool, tmp_path: Path):
    A = planted(20, 9000, 2, 3.0, seed=4).double()
    A[:, 77] = 0  # a parameter that never changes stays zero
    np.save(tmp_path / "A.npy", A.numpy())
    B = A / A.norm(dim=1, keepdim=True) if normalize else A
    rms = B[2:].square().mean(0).sqrt()
    B = torch.where(rms > 0, B / rms, 0.0)
    options = {"normalize": normalize, "steps": slice(2, None), "n_surrogates": 3}
    found = flip_rank_test(
        np.load(tmp_path / "A.npy", mmap_mode="r"), equalize=True, memory=8_000_000, **options
    )
    expected = flip_rank_test(B, **options)
    assert (found.equalize, expected.equalize) == (True, False)
    assert (found.rank, found.n_deflated) == (expected.rank, expected.n_deflated) == (2, 2)
    for name in ("observed", "surrogates", "residual_surrogates", "thresholds"):
        # Squares: roots of eigenvalues that are zero are roots of rounding.
        a, b = getattr(found, name) ** 2, getattr(expected, name) ** 2
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12 * float(b.max()))


def test_what_quiet_parameters_share_is_found_once_they_are_equalised():
    generator = torch.Generator().manual_seed(0)
    sigma = torch.exp(torch.randn(1500, generator=generator))
    A = noise(60, 1500, seed=1) * sigma + 0.8 * noise(60, 1, seed=2) * noise(1, 1500, seed=3)
    options = {"center": "steps", "normalize": True}
    assert flip_rank_test(A, **options).rank == 0
    assert flip_rank_test(A, equalize=True, **options).rank == 1
    assert flip_rank_test(noise(60, 1500, seed=1) * sigma, equalize=True, **options).rank == 0


def test_rounds_and_progress_are_reported():
    seen: list[tuple[int, float]] = []
    A = planted(40, 1000, 2, 10.0, seed=0, decay=0.0)
    found = flip_rank_test(A, progress=lambda round_, done: seen.append((round_, done)))
    assert found.rank == 2
    assert {round_ for round_, _ in seen} == {0, 1}
    assert seen[-1] == (1, 1.0)


def test_false_positives_on_noise_of_all_kinds_keep_the_level():
    """By exchangeability the rate is .05; 60 draws of small noise, at most 9 (p = .0015)."""
    hits = 0
    for seed in range(60):
        A = planted(24, 300, 1, 0.0, seed=seed, decay=float(seed % 3) / 2)
        center, normalize = ("none", "steps")[seed % 2], seed % 4 < 2
        hits += flip_rank_test(A, center=center, normalize=normalize, seed=seed).rank > 0
    assert hits <= 9


@pytest.mark.slow
def test_the_false_positive_rate_is_the_nominal_one():
    """Acceptance test 6: within [.02, .09] over 400 draws at nominal .05."""
    hits = 0
    for seed in range(400):
        A = planted(40, 600, 1, 0.0, seed=seed, decay=0.5)
        hits += flip_rank_test(A, center="steps", normalize=True, seed=seed).rank > 0
    assert 0.02 <= hits / 400 <= 0.09


@pytest.mark.slow
@pytest.mark.parametrize("amplitude", [1.5, 4.0])
def test_eight_planted_components_are_counted_in_17_of_20_seeds(amplitude: float):
    """Acceptance test 6: the case of the reference, T = 300 and P = 10,000."""
    ranks = [
        flip_rank_test(planted(300, 10_000, 8, amplitude, seed=seed), normalize=True).rank
        for seed in range(20)
    ]
    assert sum(rank == 8 for rank in ranks) >= 17


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "gap"}, r"rule must be one of \('edge', 'pairwise'\), but 'gap' arrived"),
        ({"n_surrogates": 0}, "n_surrogates must be at least 1.*19 surrogates give level .05"),
        ({"max_deflations": -1}, "max_deflations=-1 arrived"),
        ({"quantile": 0.0}, r"quantile must be a share in \(0, 1\]"),
        ({"center": "rows"}, "center must be one of"),
        ({"steps": [0, 1, 2]}, "at least 4 steps, but 3 arrived"),
    ],
)
def test_impossible_options_are_refused(unchecked_types, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        flip_rank_test(noise(6, 50), **options)


def test_constant_gradients_are_refused():
    A = torch.ones(6, 1) * noise(1, 50)
    with pytest.raises(ValueError, match=r"nothing above rounding is left.*they are constant"):
        flip_rank_test(A, center="steps")
    with pytest.raises(ValueError, match="nothing above rounding is left"):
        flip_rank_test(torch.zeros(6, 50))


def test_a_step_without_norm_cannot_be_normalised():
    A = noise(6, 50)
    A[2] = 0
    with pytest.raises(ValueError, match=r"every step needs a norm above zero.*step 2"):
        flip_rank_test(A, normalize=True)


@pytest.mark.parametrize("equalize", [False, True])
def test_values_that_are_not_finite_are_named(equalize: bool):
    A = noise(6, 50)
    A[3, 7] = torch.inf
    with pytest.raises(ValueError, match=r"step 3 \(row 3\) holds inf in column 7"):
        flip_rank_test(A, normalize=equalize, equalize=equalize)


def test_deflation_of_correlated_noise_does_not_end_and_the_first_count_is_kept():
    scales = torch.linspace(1, 0.05, 60)[:, None]
    rows = noise(40, 60, seed=3) @ (scales * noise(60, 800, seed=4))
    once = flip_rank_test(rows, normalize=True, max_deflations=0)
    found = flip_rank_test(rows, normalize=True, max_deflations=2)
    assert once.first_rank == once.rank == found.first_rank
    assert found.rank > found.first_rank
    assert not found.converged
