"""Variances of parameters against the whole matrix, and the edges that follow from them."""

import pytest
import torch

from analysis import reference
from phasescope.analysis.edges import noise_edges
from phasescope.analysis.gram import gram
from phasescope.analysis.spectrum import spectrum
from phasescope.analysis.variances import parameter_variances


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("center", ["none", "steps"])
def test_variances_are_those_of_the_prepared_matrix(center: str, normalize: bool):
    A = noise(12, 9000) + noise(1, 9000, seed=1)
    found = spectrum(gram(A), center=center, normalize=normalize, steps=slice(2, 10))
    expected = reference.prepared(A[2:10], center, normalize).square().sum(0)
    expected = expected / (7 if center == "steps" else 8)
    torch.testing.assert_close(parameter_variances(A, found), expected.float())
    mapped = A.numpy()[:, :]
    mapped.flags.writeable = False
    torch.testing.assert_close(
        parameter_variances(mapped, found, memory=2_000_000), expected.float()
    )


def test_noise_stays_below_the_edge_of_its_own_variances():
    sigma = torch.exp(0.5 * noise(4000, seed=2))
    A = noise(120, 4000, seed=3) * sigma * torch.linspace(3, 1, 120)[:, None]
    found = spectrum(gram(A), center="steps", normalize=True)
    edges = noise_edges(parameter_variances(A, found), 119)
    assert float(found.S[0]) == pytest.approx(edges.upper, rel=0.05)
    assert float(found.S[118]) == pytest.approx(edges.lower, rel=0.03)


def test_another_matrix_and_a_single_step_are_refused():
    A = noise(5, 40)
    with pytest.raises(ValueError, match="with 40 columns, but it has 30"):
        parameter_variances(A[:, :30], spectrum(gram(A)))
    with pytest.raises(ValueError, match="must have been recorded"):
        parameter_variances(A[:3], spectrum(gram(A)))
    with pytest.raises(ValueError, match="at least two steps"):
        parameter_variances(A[:1], spectrum(gram(A), center="steps", steps=[0]))
