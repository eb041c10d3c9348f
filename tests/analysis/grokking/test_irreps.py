"""Representations of groups whose characters are known, and logits made of them."""

import math

import pytest
import torch

from phasescope.analysis.grokking import irrep_similarities, real_irreps, trace_cube
from phasescope.datasets import cyclic_group, symmetric_group


@pytest.mark.parametrize(
    ("group", "dimensions"),
    [
        (symmetric_group(3), [1, 1, 2]),
        (symmetric_group(4), [1, 1, 2, 3, 3]),
        (cyclic_group(6), [1, 1, 2, 2]),
        (cyclic_group(7), [1, 2, 2, 2]),
    ],
)
def test_they_are_representations_and_all_of_them(group, dimensions):
    found = real_irreps(group)
    assert [rho.dimension for rho in found] == dimensions
    assert found[0].character.tolist() == pytest.approx([1.0] * len(group))
    n = len(group)
    for rho in found:
        eye = torch.eye(rho.dimension, dtype=torch.float64)
        products = torch.einsum("xab,ybc->xyac", rho.matrices, rho.matrices)
        torch.testing.assert_close(products, rho.matrices[group.table], rtol=0, atol=1e-10)
        torch.testing.assert_close(rho.matrices @ rho.matrices.mT, eye.expand(n, -1, -1))
    # Characters of different ones are orthogonal; <χ, χ> is 1, or 2 for a conjugate pair.
    gram = torch.stack([rho.character for rho in found])
    gram = gram @ gram.T / n
    torch.testing.assert_close(gram, gram.diagonal().diag(), rtol=0, atol=1e-10)
    assert all(round(x, 8) in (1.0, 2.0) for x in gram.diagonal().tolist())


def test_those_of_a_cyclic_group_are_its_frequencies():
    found = real_irreps(cyclic_group(7))
    x = torch.arange(7, dtype=torch.float64)
    waves = [2 * (2 * math.pi * k * x / 7).cos() for k in (1, 2, 3)]
    for rho in found[1:]:
        assert min(float((rho.character - wave).abs().max()) for wave in waves) < 1e-10


def test_logits_hold_the_representations_that_they_were_made_of():
    group = symmetric_group(4)
    found = real_irreps(group)
    cubes = [trace_cube(group, rho) for rho in found]
    units = [cube / cube.norm() for cube in cubes]
    logits = 3 * units[2] + 4 * units[4] + torch.randn(24, 24, 1).double()
    similar = irrep_similarities(group, logits, found)
    assert similar.tolist() == pytest.approx([0.0, 0.0, 0.6, 0.0, 0.8], abs=1e-8)
    assert float(similar.square().sum()) == pytest.approx(1.0)
    assert bool((cubes[3].argmax(-1) == group.table).all())
    other = irrep_similarities(group, logits, real_irreps(group, seed=5))
    torch.testing.assert_close(other, similar)  # whatever the bases


@pytest.mark.usefixtures("unchecked_types")
def test_logits_of_other_elements_are_refused():
    with pytest.raises(ValueError, match=r"of the 6 elements are required.*\(6, 6, 7\)"):
        irrep_similarities(symmetric_group(3), torch.zeros(6, 6, 7))


@pytest.mark.parametrize(("n", "seed"), [(141, 0), (113, 25)])
def test_eigenvalues_that_lie_close_are_told_apart(n: int, seed: int):
    # Two frequencies of these draws differ by less than 1e-6.
    dimensions = [rho.dimension for rho in real_irreps(cyclic_group(n), seed=seed)]
    assert dimensions == [1] + [2] * ((n - 1) // 2)
