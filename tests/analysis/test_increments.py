"""Increments of a trajectory from its Gram matrix alone."""

import pytest
import torch

from phasescope.analysis.gram import gram
from phasescope.analysis.increments import increments
from phasescope.analysis.ranks import count_above
from phasescope.analysis.spectrum import spectrum


def test_products_are_those_of_the_explicit_differences():
    A = torch.randn(12, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, explicit = increments(gram(A)), gram(A.diff(dim=0))
    torch.testing.assert_close(found.K, explicit.K, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.row_sums, explicit.row_sums, rtol=0, atol=1e-12)
    assert found.steps.tolist() == list(range(11))
    assert found.n_columns == 50


def test_a_walk_has_five_large_values_and_its_increments_all():
    steps = torch.randn(100, 20_000, generator=torch.Generator().manual_seed(0))
    walk = gram(steps.cumsum(0).double())
    assert count_above(spectrum(walk).S) == 5
    assert count_above(spectrum(increments(walk)).S) == 99


def test_rounding_of_far_points_is_known_to_the_spectrum_of_their_differences():
    direction = torch.ones(1, 3000)
    far = 1000 * direction + torch.arange(6.0)[:, None] * 1e-3
    near = spectrum(increments(gram(far.double() - 1000)))
    lost = spectrum(increments(gram(far)))
    assert near.resolution < 1e-3 * float(near.S[0])
    assert lost.resolution > float(near.S[0])  # nothing of it can be trusted, and it says so


def test_one_point_has_no_increments():
    with pytest.raises(ValueError, match=r"at least two points, but 1 arrived. Record"):
        increments(gram(torch.ones(1, 3)))
