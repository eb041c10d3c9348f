"""Held-out residuals, overlaps and the mean's alignment: against explicit projections."""

import pytest
import torch

from analysis import reference
from phasescope.analysis.gram import gram
from phasescope.analysis.residuals import heldout_residuals, mean_alignment, subspace_overlap

CENTERS = ["none", "steps", "parameters", "both"]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def drifting(n_steps: int = 24, n_columns: int = 400) -> torch.Tensor:
    """A few shared directions, a mean and noise."""
    return noise(n_steps, 5) @ noise(5, n_columns, seed=1) + noise(n_steps, n_columns, seed=2) + 0.7


@pytest.mark.parametrize("center", CENTERS)
def test_residuals_equal_explicit_projections(center: str):
    A = drifting()
    sample, heldout, ks = [0, 3, 4, 9, 11, 15, 20], [22, 1, 4], [0, 1, 3, 6]
    found = heldout_residuals(gram(A), sample, heldout, ks, center=center)
    expected = [
        [reference.heldout_residual(A[sample], A[h], k, center) for k in ks] for h in heldout
    ]
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10
    )


def test_residuals_fall_from_one_and_vanish_for_sampled_steps():
    A = drifting()
    found = heldout_residuals(gram(A), slice(0, 12), slice(0, 24), range(13))
    assert torch.equal(found[:, 0], torch.ones(24, dtype=torch.float64))
    assert (found.diff(dim=1) <= 1e-12).all()
    assert (found[:12, -1] < 1e-12).all()
    assert (found[12:, -1] > 0.05).all()


def test_components_that_are_rounding_explain_nothing():
    basis = noise(3, 4000).float()
    A = torch.cat([noise(10, 3).float() @ basis, noise(2, 4000, seed=5).float()])
    found = heldout_residuals(gram(A), slice(0, 10), [10, 11], [3, 10])
    assert torch.equal(found[:, 0], found[:, 1])
    assert (found > 0.99).all()


def test_an_isotropic_step_leaves_one_minus_k_over_p():
    A = torch.cat([torch.eye(50, 200).double(), noise(300, 200, seed=4)])
    found = heldout_residuals(gram(A), slice(0, 50), slice(50, None), [50])
    assert found.mean().item() == pytest.approx(1 - 50 / 200, abs=0.01)


@pytest.mark.parametrize("k", [-1, 4])
def test_impossible_numbers_of_components_are_refused(k: int):
    with pytest.raises(ValueError, match=rf"0 and the 3 sampled steps, but \[1, {k}\] arrived"):
        heldout_residuals(gram(drifting()), [0, 1, 2], [5], [1, k])


def test_a_heldout_step_without_norm_is_named():
    A = drifting()
    A[7] = 0
    with pytest.raises(ValueError, match="above zero after centring, but step 7 has none"):
        heldout_residuals(gram(A), [0, 1], [5, 7], [1])


@pytest.mark.parametrize("center", CENTERS)
def test_overlap_equals_that_of_explicit_subspaces(center: str):
    A = drifting()
    first, second = slice(0, 10), slice(10, None)
    found = subspace_overlap(gram(A), first, second, 4, center=center)
    a, b = reference.prepared(A[:10], center), reference.prepared(A[10:], center)
    assert found == pytest.approx(reference.overlap(a, b, 4), abs=1e-10)


def test_overlap_is_one_with_itself_and_zero_between_orthogonal_subspaces():
    A = torch.zeros(6, 100, dtype=torch.float64)
    A[:3, :50], A[3:, 50:] = noise(3, 50), noise(3, 50, seed=1)
    g = gram(A)
    assert subspace_overlap(g, [0, 1, 2], [2, 1, 0], 2) == pytest.approx(1, abs=1e-12)
    assert subspace_overlap(g, [0, 1, 2], [3, 4, 5], 3) == pytest.approx(0, abs=1e-12)


def test_overlap_refuses_directions_that_are_rounding():
    with pytest.raises(ValueError, match=r"between 1 and 2, .* but k=3 arrived"):
        subspace_overlap(gram(drifting()), slice(0, 10), [10, 11, 12], 3, center="steps")


def test_mean_alignment_equals_the_explicit_cosine():
    A = drifting()
    direction = reference.parameter_directions(A[5:], 1)[0]
    mean = A[5:].mean(0)
    expected = abs(float(direction @ mean / mean.norm()))
    assert mean_alignment(gram(A), slice(5, None)) == pytest.approx(expected, abs=1e-10)
    assert 0.05 < expected < 0.999


def test_a_mean_of_zero_aligns_with_nothing():
    half = noise(3, 50)
    with pytest.raises(ValueError, match="mean over the 6 steps must not vanish"):
        mean_alignment(gram(torch.cat([half, -half])))
