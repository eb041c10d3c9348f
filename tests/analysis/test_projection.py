import numpy as np
import pytest
import torch

import phasescope as ps
from phasescope.analysis.projection import project
from phasescope.components import Subspace


def trajectory(T: int = 6, P: int = 10_000, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(T, P, generator=torch.Generator().manual_seed(0), dtype=dtype)


def subspace(k: int = 3, P: int = 10_000, dtype: torch.dtype = torch.float64) -> Subspace:
    drawn = torch.Generator().manual_seed(1)
    return Subspace.spanned_by(
        "s", torch.randn(k, P, generator=drawn, dtype=torch.float64).to(dtype)
    )


class Recorded:
    """A matrix that knows its steps."""

    def __init__(self, values: np.ndarray):
        self.values, self.steps = values, np.arange(len(values)) * 10
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, key):
        return self.values[key]


@pytest.mark.parametrize("memory", [400_000_000, 100_000])
def test_coordinates_are_inner_products_with_the_basis_in_any_memory(memory: int):
    A, B = trajectory(), subspace()
    found = project(Recorded(A.numpy()), B, memory=memory)
    torch.testing.assert_close(found.values, A @ B.basis.T, rtol=1e-12, atol=1e-12)
    assert found.shape == (6, 3)
    assert found.steps.tolist() == [0, 10, 20, 30, 40, 50]
    assert project(A, B).steps.tolist() == [0, 1, 2, 3, 4, 5]


def test_float32_products_stay_near_float64():
    A, B = trajectory(dtype=torch.float32), subspace(dtype=torch.float32)
    found = project(A, B).values
    exact = A.double() @ B.basis.double().T
    # Sums of 4096 products of entries of size 1 and 0.01, rounded at every addition.
    assert (found - exact).abs().max() < 1e-5
    assert (project(A, B, dtype=torch.float64).values - exact).abs().max() < 1e-12


def test_the_gram_matrix_of_a_projection_is_that_of_the_projected_rows_with_their_steps():
    A, B = trajectory(), subspace()
    inside = ps.gram(project(Recorded(A.numpy()), B))
    projected = A @ B.basis.T @ B.basis
    torch.testing.assert_close(inside.K, projected @ projected.T, rtol=1e-12, atol=1e-10)
    assert inside.steps.tolist() == [0, 10, 20, 30, 40, 50]


def test_a_component_as_a_subspace_gives_its_columns():
    basis = torch.eye(7, dtype=torch.float64)[[1, 4]]
    A = trajectory(4, 7)
    assert torch.equal(project(A, Subspace("coordinates", basis)).values, A[:, [1, 4]])


def test_progress_ends_at_one():
    done: list[float] = []
    project(Recorded(trajectory().numpy()), subspace(), memory=100_000, progress=done.append)
    assert done == sorted(done)
    assert len(done) > 1
    assert done[-1] == 1.0


def test_another_number_of_columns_and_bad_values_are_refused():
    with pytest.raises(ValueError, match=r"the 10000 columns of the basis of 's', but it has 9999"):
        project(trajectory(P=9_999), subspace())
    A = trajectory()
    A[2, 5] = torch.inf
    with pytest.raises(ValueError, match=r"those of step 20 \(row 2\) are not"):
        project(Recorded(A.numpy()), subspace())
