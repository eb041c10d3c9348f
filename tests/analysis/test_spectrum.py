"""Singular values and vectors from the Gram matrix: against dense ones and planted answers."""

import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from analysis import reference
from phasescope.analysis.gram import Gram, gram
from phasescope.analysis.ranks import count_above
from phasescope.analysis.spectrum import check_center, norm_null, parameter_vectors, spectrum

CENTERS = ["none", "steps", "parameters", "both"]
few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 10_000)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def biased(n_steps: int, n_columns: int, seed: int = 0) -> torch.Tensor:
    """Noise with a mean over steps, a mean over parameters and unequal norms."""
    A = noise(n_steps, n_columns, seed=seed) + 0.5 * noise(n_columns, seed=seed + 1) + 0.3
    return A * torch.linspace(3, 0.5, n_steps, dtype=torch.float64)[:, None]


def test_float32_data_give_values_far_better_than_any_threshold_needs():
    A, S = reference.graded_matrix(150, 20_000, 1e-6)
    found = spectrum(gram(A.float()))
    dense = torch.from_numpy(np.linalg.svd(A.float().double().numpy(), compute_uv=False))
    error = (found.S / dense - 1).abs()
    assert error[S > 1e-1].max() < 2e-7
    assert (error[S > 1e-2] ** 2).mean().sqrt() < 2e-6
    # First-order perturbation: the norm of the products' rounding, which `resolution` bounds
    # with room to spare, over 2 S².
    bound = found.resolution**2 / (2 * S**2)
    assert (error < 0.1 * bound)[found.resolution < S].all()


def test_float64_products_of_float32_data_give_values_to_1e_6_and_far_better():
    A, S = reference.graded_matrix(150, 20_000, 1e-6)
    found = spectrum(gram(A.float(), dtype=torch.float64))
    dense = torch.from_numpy(np.linalg.svd(A.float().double().numpy(), compute_uv=False))
    error = (found.S / dense - 1).abs()
    assert error[S > 1e-2].max() < 1e-6  # what the reference asks
    assert error[S > 1e-4].max() < 1e-8  # what the docstring says, with room
    assert found.resolution < 1e-7


def test_float32_products_keep_the_errors_of_the_docstring():
    A, S = reference.graded_matrix(150, 20_000, 1e-6)
    dense = torch.from_numpy(np.linalg.svd(A.float().double().numpy(), compute_uv=False))
    error = (spectrum(gram(A.float())).S / dense - 1).abs()
    for smallest, largest_error in ((1e-1, 3e-8), (1e-2, 3e-6), (1e-3, 6e-4), (1e-4, 7e-2)):
        # Other processors round in another order: a factor of three is theirs.
        assert error[smallest < S].max() < 3 * largest_error


def test_float64_data_give_values_to_1e_12_where_float32_does_not():
    A, S = reference.graded_matrix(100, 2000, 1e-6)
    large = S > 1e-2
    error = lambda X: (spectrum(gram(X)).S / S - 1).abs()[large].max().item()  # noqa: E731
    assert error(A) < 1e-12 < error(A.float())
    assert ((spectrum(gram(A)).S / S - 1).abs() < 1e-2).all()


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("center", CENTERS)
def test_centring_of_the_gram_equals_centring_of_the_matrix(center: str, normalize: bool):
    A = biased(20, 300)
    found = spectrum(gram(A), center=center, normalize=normalize)
    expected = reference.singular_values(A, center, normalize)
    torch.testing.assert_close(found.S[:-1], expected[:-1], rtol=1e-12, atol=0)
    if center in ("steps", "both"):
        assert found.S[-1] == 0
    torch.testing.assert_close(found.norms, A.norm(dim=1), rtol=1e-12, atol=0)
    centered = reference.prepared(A, "parameters" if center in ("parameters", "both") else "none")
    torch.testing.assert_close(found.centered_norms, centered.norm(dim=1), rtol=1e-12, atol=0)
    prepared = reference.prepared(A, center, normalize)
    projected = found.time_vectors.T @ prepared @ prepared.T @ found.time_vectors
    torch.testing.assert_close(projected, (found.S**2).diag(), rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("center", CENTERS)
def test_steps_are_selected_before_centring(center: str):
    A = biased(20, 100)
    found = spectrum(gram(A), center=center, normalize=True, steps=slice(4, 17, 3))
    assert found.steps.tolist() == [4, 7, 10, 13, 16]
    expected = reference.singular_values(A[4:17:3], center, True)
    torch.testing.assert_close(found.S[:4], expected[:4], rtol=1e-12, atol=0)
    torch.testing.assert_close(found.norms, A[4:17:3].norm(dim=1), rtol=1e-12, atol=0)


def test_a_list_of_steps_is_put_into_order():
    g = gram(biased(6, 50))
    assert spectrum(g, steps=[5, 0, 2]).steps.tolist() == [0, 2, 5]


def test_spectrum_of_a_component_is_that_of_its_columns():
    from phasescope.parameters import Component

    A = biased(8, 90)
    parts = gram(A, components={"c": Component("c", ((10, 60),))}).components
    expected = reference.singular_values(A[:, 10:60], "both")
    torch.testing.assert_close(
        spectrum(parts["c"], center="both").S[:-1], expected[:-1], rtol=1e-11, atol=0
    )


@pytest.mark.parametrize("center", CENTERS)
def test_values_alone_equal_those_found_with_vectors(center: str):
    g = gram(biased(9, 40))
    whole = spectrum(g, center=center, normalize=True, steps=slice(1, 8))
    alone = spectrum(g, center=center, normalize=True, steps=slice(1, 8), time_vectors=False)
    torch.testing.assert_close(alone.S, whole.S, rtol=1e-12, atol=1e-12)
    assert alone.time_vectors.shape == (7, 0)
    assert torch.equal(alone.norms, whole.norms)
    assert alone.resolution == whole.resolution
    torch.testing.assert_close(norm_null(alone).S, norm_null(whole).S)


def test_parameter_vectors_need_time_vectors():
    A = biased(6, 40)
    with pytest.raises(ValueError, match=r"holds singular values only.*without time_vectors=False"):
        parameter_vectors(A, spectrum(gram(A), time_vectors=False), 1)


def test_fewer_parameters_than_steps_give_as_many_values_as_parameters():
    A = biased(9, 4)
    found = spectrum(gram(A))
    torch.testing.assert_close(found.S, torch.linalg.svdvals(A), rtol=1e-11, atol=0)
    assert found.time_vectors.shape == (9, 4)


def test_one_step_has_its_norm_and_nothing_after_centring():
    g = gram(torch.tensor([[3.0, 4.0]]))
    assert spectrum(g).S.tolist() == [5.0]
    assert spectrum(g, center="steps").S.tolist() == [0.0]


def test_resolution_separates_a_planted_rank_from_rounding():
    U, V = noise(60, 7), noise(7, 30_000)
    for A in ((U @ V).float(), U @ V):
        found = spectrum(gram(A))
        assert int((found.resolution < found.S).sum()) == 7
        centered = spectrum(gram(A + 100), center="both", normalize=True)
        assert int((centered.resolution < centered.S).sum()) == 7


def test_rows_that_are_appended_leave_the_products_of_the_others():
    A = biased(40, 6000)
    whole = gram(A)
    for n in (1, 17, 40):
        part = gram(A[:n])
        torch.testing.assert_close(part.K, whole.K[:n, :n], rtol=1e-12, atol=1e-10)
        S = spectrum(whole, steps=slice(0, n)).S
        torch.testing.assert_close(spectrum(part).S, S, rtol=1e-10, atol=1e-10)


def test_bfloat16_storage_adds_a_floor_of_a_thousandth_of_the_energy():
    """Acceptance test 1: entries err by 1.1e-3, which adds 1.1e-3 |A| / sqrt(T) to every value."""
    T = 120
    A, _ = reference.graded_matrix(T, 20_000, 1e-4)
    A = A.float()
    stored = A.bfloat16().float()
    relative = float((stored - A).norm() / A.norm())
    assert relative == pytest.approx(1.65e-3, rel=0.1)  # of all entries; the median is 1.1e-3
    found, exact = (spectrum(gram(X, dtype=torch.float64)).S for X in (stored, A))
    floor = relative * float(A.norm()) / T**0.5
    # Rounding is like independent noise: its own values spread by 2 sqrt(T / P) of their square.
    spread = (2 * (T / 20_000) ** 0.5 + T / 20_000) * floor**2
    torch.testing.assert_close(found**2, exact**2 + floor**2, rtol=0.02, atol=spread)
    leading = exact > 1e-2 * exact[0]
    assert float((found / exact - 1).abs()[leading].max()) < 0.02


def test_planted_updates_one_over_n_count_nine_above_a_tenth():
    n = torch.arange(1, 1001)
    A = torch.diag(1 / n.double())
    for X in (A, A.float()):
        S = spectrum(gram(X)).S
        torch.testing.assert_close(S, 1 / n.double(), rtol=1e-7, atol=0)
        assert count_above(S, 0.1) == 9
        assert count_above(S, 0.05) == 19


def test_order_and_sign_of_steps_leave_the_spectrum_and_entry_signs_do_not():
    A = biased(30, 500)
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(30, generator=generator)
    signs = torch.randint(0, 2, (30, 1), generator=generator) * 2.0 - 1
    flips = torch.randint(0, 2, A.shape, generator=generator) * 2.0 - 1
    S = spectrum(gram(A)).S
    torch.testing.assert_close(spectrum(gram(A[order])).S, S, rtol=1e-10, atol=0)
    torch.testing.assert_close(spectrum(gram(A * signs)).S, S, rtol=1e-10, atol=0)
    assert spectrum(gram(A * flips)).S[0] < 0.8 * S[0]


def test_time_vectors_of_a_planted_profile_are_that_profile_with_a_fixed_sign():
    profile = torch.tensor([1.0, -4.0, 2.0, 0.5])
    A = profile[:, None] * noise(1, 200, dtype=torch.float32)
    found = spectrum(gram(A)).time_vectors[:, 0]
    torch.testing.assert_close(found, -profile.double() / profile.double().norm())


@few
@given(seeds, st.floats(1e-6, 1e6))
def test_scaling_the_matrix_scales_the_values_and_not_the_normalised_ones(seed: int, scale: float):
    A = biased(6, 40, seed)
    before, after = gram(A), gram(A * scale)
    S, scaled = (spectrum(g, center="steps").S for g in (before, after))
    torch.testing.assert_close(scaled, S * scale, rtol=1e-9, atol=1e-9 * scale)
    S, scaled = (spectrum(g, center="both", normalize=True).S for g in (before, after))
    torch.testing.assert_close(scaled, S, rtol=1e-9, atol=1e-9)


@few
@given(seeds)
def test_rotating_the_parameters_leaves_values_and_time_vectors(seed: int):
    A = biased(5, 30, seed)
    Q, _ = torch.linalg.qr(noise(30, 30, seed=seed + 7))
    before, after = spectrum(gram(A), center="steps"), spectrum(gram(A @ Q), center="steps")
    torch.testing.assert_close(after.S, before.S, rtol=1e-9, atol=1e-9)


@few
@given(seeds)
def test_squared_values_sum_to_the_squared_norms(seed: int):
    found = spectrum(gram(biased(7, 20, seed)))
    torch.testing.assert_close((found.S**2).sum(), (found.norms**2).sum(), rtol=1e-12, atol=0)


def test_norm_null_counts_independent_noise_with_decaying_norms():
    t = torch.arange(1, 401)
    A = noise(400, 20_000, dtype=torch.float32) * (t.float() ** -0.5)[:, None]
    observed = spectrum(gram(A))
    null = norm_null(observed)
    assert abs(count_above(null.S, 0.1) - 99) <= 2  # exact norms would give 99
    assert abs(count_above(observed.S, 0.1) - count_above(null.S, 0.1)) <= 2
    assert torch.equal(null.steps, observed.steps)
    assert (null.center, null.normalize) == ("none", False)


def test_norm_null_of_normalised_steps_is_flat():
    found = spectrum(gram(biased(12, 50)), normalize=True)
    assert norm_null(found).S.tolist() == [1.0] * 12


@pytest.mark.parametrize("center", CENTERS)
def test_norm_null_equals_orthogonal_rows_of_the_same_norms(center: str):
    a = torch.tensor([3.0, 1.0, 0.5, 2.0], dtype=torch.float64)
    rows = torch.zeros(4, 8, dtype=torch.float64)
    rows[range(4), range(0, 8, 2)], rows[range(4), range(1, 8, 2)] = a, -a  # rows of mean zero
    found = spectrum(gram(rows), center=center)
    torch.testing.assert_close(norm_null(found).S, found.S, rtol=1e-12, atol=1e-12)


def test_norm_null_uses_norms_after_centring_over_parameters():
    A = noise(5, 5000) + 10
    null = norm_null(spectrum(gram(A), center="parameters"))
    expected = (A - A.mean(1, keepdim=True)).norm(dim=1).sort(descending=True).values
    torch.testing.assert_close(null.S, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("center", CENTERS)
def test_parameter_vectors_equal_the_dense_ones(center: str, normalize: bool):
    A = biased(20, 9000).float()
    found = spectrum(gram(A), center=center, normalize=normalize, steps=slice(2, 18))
    V = parameter_vectors(A, found, 4)
    prepared = reference.prepared(A[2:18], center, normalize)
    dense = reference.parameter_directions(prepared, 4)
    assert V.dtype == torch.float32
    torch.testing.assert_close(
        (V.double() @ dense.T).abs(), torch.eye(4).double(), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(V @ V.T, torch.eye(4), rtol=0, atol=1e-5)
    signed = found.time_vectors[:, :4].T @ prepared / found.S[:4, None]
    torch.testing.assert_close(V.double(), signed, rtol=0, atol=1e-6)


def test_parameter_vectors_of_a_stream_equal_those_of_a_tensor():
    A = biased(10, 40_000).float().numpy()
    found = spectrum(gram(A), center="both")
    expected = parameter_vectors(A, found, 3)
    A.flags.writeable = False
    streamed = parameter_vectors(A, found, 3, memory=2_000_000)
    torch.testing.assert_close(streamed, expected, rtol=0, atol=1e-7)


def test_parameter_vectors_refuse_another_matrix():
    A = biased(6, 40)
    found = spectrum(gram(A))
    with pytest.raises(ValueError, match="40 columns and its 6 steps, but A has 39 columns"):
        parameter_vectors(A[:, 1:], found, 1)
    with pytest.raises(ValueError, match="40 columns and lacks 2 of the steps"):
        parameter_vectors(A[:4], found, 1)
    with pytest.raises(ValueError, match="its row norms differ"):
        parameter_vectors(A * 2, found, 1)


def test_parameter_vectors_refuse_directions_that_are_rounding():
    A = (noise(8, 3) @ noise(3, 500)).float()
    found = spectrum(gram(A))
    assert parameter_vectors(A, found, 3).shape == (3, 500)
    for k in (0, 4):
        with pytest.raises(ValueError, match=rf"between 1 and 3, .* but k={k} arrived"):
            parameter_vectors(A, found, k)


def test_a_step_without_norm_cannot_be_normalised():
    A = biased(5, 30)
    A[3] = 0
    g = gram(A)
    assert spectrum(g).S[-1] == 0
    with pytest.raises(ValueError, match=r"1 have none .* the first at step 3\. Leave"):
        spectrum(g, normalize=True)
    A[3] = 0.1  # constant over parameters: only rounding is left
    for X in (A, A.float()):
        with pytest.raises(ValueError, match="the first at step 3"):
            spectrum(gram(X), normalize=True, center="both")
    assert len(spectrum(g, normalize=True, steps=[0, 1, 2, 4]).S) == 4


def test_an_unknown_centring_is_refused():
    with pytest.raises(ValueError, match=r"one of \('none', 'steps', .* but 'rows' arrived"):
        check_center("rows")


def test_a_gram_made_by_hand_is_enough():
    K = torch.diag(torch.tensor([4.0, 9.0], dtype=torch.float64))
    made = Gram(K, torch.arange(2), torch.zeros(2, dtype=torch.float64), 10)
    assert spectrum(made).S.tolist() == [3.0, 2.0]


def test_more_components_than_steps_or_parameters_can_have_are_refused_as_such():
    A = torch.randn(20, 300, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"k=21 arrived: 20 steps of 300 parameters have no more"):
        parameter_vectors(A, spectrum(gram(A)), 21)


WRONG_OBJECTS = """
import torch
import phasescope as ps
A = torch.eye(3)
for call, arrived in ((ps.spectrum, A), (ps.norm_null, ps.gram(A)), (ps.figures.scree, ps.gram(A))):
    try:
        call(arrived)
    except TypeError as error:
        print(error)
"""


def test_a_matrix_instead_of_its_gram_matrix_or_spectrum_is_refused_with_what_to_call():
    # In a process of its own: here the annotations are checked before the functions are.
    command = [sys.executable, "-c", WRONG_OBJECTS]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "spectrum takes a Gram matrix, but a Tensor arrived" in said[0]
    assert "norm_null takes a Spectrum, but a Gram arrived" in said[1]
    assert "scree draws a Spectrum, but a Gram arrived" in said[2]
    assert all("phasescope.gram(A)" in line for line in said)
