"""Alignments, angles and strengths against SciPy and planted answers."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

import phasescope as ps

pytestmark = pytest.mark.usefixtures("float64_default")


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_alignments_are_cosines_column_by_column():
    X, A = random(2, 7, 3), random(2, 7, 4, seed=1)
    found = ps.alignments(X, A)
    for s in range(2):
        for i in range(3):
            for j in range(4):
                x, a = X[s, :, i], A[s, :, j]
                assert found[s, i, j].item() == pytest.approx(
                    abs(float(x @ a)) / float(x.norm() * a.norm()), rel=1e-12
                )
    assert (ps.alignments(-3 * X, A) - found).abs().max() < 1e-15
    assert ps.alignments(torch.zeros(4, 1), torch.ones(4, 1)).item() == 0


@pytest.mark.parametrize(("m", "n"), [(3, 3), (2, 4), (4, 2)])
def test_angles_are_those_of_scipy_and_of_any_basis(m, n):
    X, A = random(5, 9, m), random(5, 9, n, seed=1)
    found = ps.principal_angles(X, A)
    expected = [np.sort(subspace_angles(x, a)) for x, a in zip(X.numpy(), A.numpy(), strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)
    moved = ps.principal_angles(X @ random(5, m, m, seed=2), A @ random(5, n, n, seed=3))
    torch.testing.assert_close(moved, found, rtol=1e-8, atol=1e-10)


def test_tiny_angles_are_not_lost_in_rounding():
    for angle in (1e-3, 1e-7, 1e-11):
        x = torch.tensor([[1.0], [0.0]])
        a = torch.tensor([[math.cos(angle)], [math.sin(angle)]])
        assert ps.principal_angles(x, a).item() == pytest.approx(angle, rel=1e-4)


def test_strengths_reach_the_singular_values_of_what_is_learned():
    X, Y = random(2, 8, 3), random(2, 6, 3, seed=1)
    U, S, Vh = torch.linalg.svd(X @ Y.mT, full_matrices=False)
    found = ps.mode_strengths(X, Y, U[..., :3], Vh.mT[..., :3])
    torch.testing.assert_close(found, S[:, :3])


def test_spread_of_equal_columns_is_zero():
    assert ps.relative_spread(torch.ones(4, 5)).tolist() == [0.0] * 4
    with pytest.raises(ValueError, match="at least two values, but there is 1"):
        ps.relative_spread(torch.ones(4, 1))


@pytest.mark.usefixtures("unchecked_types")
def test_columns_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match=r"one length d, .* but X has 3 and A has 4"):
        ps.alignments(torch.rand(3, 2), torch.rand(4, 2))
