import pytest
import torch

from phasescope.components import Subspace


def random_vectors(k: int, P: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(k, P, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spanned_by_gives_an_orthonormal_basis_of_the_same_vectors(dtype: torch.dtype):
    vectors = (
        random_vectors(4, 50, dtype) * torch.tensor([1e-8, 1.0, 1e8, 3.0], dtype=dtype)[:, None]
    )
    basis = Subspace.spanned_by("s", vectors).basis
    assert basis.dtype == dtype
    eps = torch.finfo(dtype).eps
    gap = basis.double() @ basis.double().T - torch.eye(4)
    assert gap.abs().max() < 8 * eps
    # The first j directions span the first j vectors, each on the side of its vector.
    coordinates = vectors @ basis.T
    assert (coordinates.triu(1).abs() < 50 * eps * vectors.norm(dim=1, keepdim=True)).all()
    assert (coordinates.diagonal() > 0).all()


def test_a_basis_that_is_not_orthonormal_is_refused_with_advice():
    tilted = torch.tensor([[1.0, 0.0, 0.0], [0.001, 1.0, 0.0]])
    with pytest.raises(ValueError, match=r"in 's' an inner product is off by 0.001.*spanned_by"):
        Subspace("s", tilted)
    with pytest.raises(ValueError, match=r"off by 3, more than .* for torch.float32"):
        Subspace("s", torch.tensor([[2.0, 0.0]]))
    with pytest.raises(ValueError, match="off by nan"):
        Subspace("s", torch.tensor([[torch.nan, 0.0]]))
    Subspace("s", Subspace.spanned_by("s", tilted).basis)


@pytest.mark.parametrize("shape", [(0, 3), (4, 3)])
def test_a_basis_of_no_or_too_many_rows_is_refused(shape: tuple[int, int]):
    with pytest.raises(ValueError, match=r"1 to 3 rows over 3 parameters.*shape \(\d, 3\)"):
        Subspace("s", torch.zeros(shape))


def test_dependent_vectors_are_refused_with_their_number():
    vectors = random_vectors(3, 20)
    vectors[2] = vectors[0] - 2 * vectors[1]
    with pytest.raises(ValueError, match="number 2 lies in the span of those before it"):
        Subspace.spanned_by("s", vectors)
    with pytest.raises(ValueError, match=r"but 3 of lengths \[.*, 0.0\] arrived"):
        Subspace.spanned_by("s", torch.cat([vectors[:2], torch.zeros(1, 20)]))
    with pytest.raises(ValueError, match=r"at most 1 of them.*but 2 of lengths"):
        Subspace.spanned_by("s", torch.ones(2, 1))
