"""Capacity on known geometry, monosemanticity and states of features on planted responses."""

import itertools
import math

import pytest
import torch

import phasescope as ps


def ring(n: int) -> torch.Tensor:
    angles = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    return torch.stack([angles.cos(), angles.sin()], 1)


def tetrahedron() -> torch.Tensor:
    return torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)


def square_antiprism() -> torch.Tensor:
    # Height for which all eight have the same dimensionality 3/8: a tight frame.
    h = 0.5**0.5
    turned = math.pi / 4
    top = [(math.cos(a), math.sin(a), h) for a in (0, math.pi / 2, math.pi, 3 * math.pi / 2)]
    angles = [k * math.pi / 2 for k in range(4)]
    low = [(math.cos(a + turned), math.sin(a + turned), -h) for a in angles]
    return torch.tensor(top + low, dtype=torch.float64)


@pytest.mark.parametrize(
    ("W", "expected"),
    [
        (torch.eye(5, dtype=torch.float64), 1.0),
        (tetrahedron(), 3 / 4),
        (ring(3), 2 / 3),
        (torch.tensor([[1.0], [-1.0]], dtype=torch.float64), 1 / 2),
        (ring(5), 2 / 5),
        (square_antiprism(), 3 / 8),
        (torch.ones(7, 1, dtype=torch.float64), 1 / 7),
    ],
    ids=["orthogonal", "tetrahedron", "triangle", "pair", "pentagon", "antiprism", "line"],
)
def test_polytopes_have_their_dimensionality(W, expected):
    D = ps.feature_dimensionality(W)
    torch.testing.assert_close(D, torch.full_like(D, expected), atol=1e-12, rtol=0)


def test_a_tegum_product_keeps_the_dimensionalities_of_its_parts():
    parts = [tetrahedron(), ring(3), torch.tensor([[1.0], [-1.0]], dtype=torch.float64), ring(5)]
    W = torch.block_diag(*parts)
    D = ps.feature_dimensionality(W)
    apart = torch.cat([ps.feature_dimensionality(part) for part in parts])
    torch.testing.assert_close(D, apart, atol=1e-12, rtol=0)
    assert D.sum().item() == pytest.approx(3 + 2 + 1 + 2, abs=1e-12)


def test_dimensionality_is_the_obvious_sum_bounded_and_invariant():
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(3, 9, 4, generator=generator, dtype=torch.float64)
    D = ps.feature_dimensionality(W)
    for m, i in itertools.product(range(3), range(9)):
        w = W[m, i]
        total = sum(float((w / w.norm()) @ W[m, j]) ** 2 for j in range(9))
        assert D[m, i].item() == pytest.approx(float(w @ w) / total, rel=1e-12)
    assert (D.sum(1) <= 4 + 1e-12).all()
    Q = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    torch.testing.assert_close(ps.feature_dimensionality(7 * W @ Q), D)
    W[1, 2] = 0
    assert ps.feature_dimensionality(W)[1, 2] == 0


def test_dimensions_per_feature_and_interference_on_known_geometry():
    assert ps.dimensions_per_feature(ring(5)).item() == pytest.approx(2 / 5)
    # A unit feature's dimensionality is 1 / (1 + interference).
    W = ring(5)
    torch.testing.assert_close(
        1 / (1 + ps.interference(W)), ps.feature_dimensionality(W), atol=1e-12, rtol=0
    )
    assert ps.interference(torch.zeros(2, 3)).tolist() == [0, 0]


def test_selectivity_counts_positive_responses_only_and_dead_neurons_have_none():
    S = torch.tensor([[2.0, -5.0, 0.0], [1.0, 1.0, 2.0], [0.0, -1.0, 0.0]])
    torch.testing.assert_close(ps.neuron_selectivity(S), torch.tensor([1.0, 0.5, 0.0]))
    assert ps.dead_neurons(S).tolist() == [False, False, True]
    assert ps.mono_fraction(S).item() == pytest.approx(1 / 3)
    assert ps.mono_fraction(S, 0.4).item() == pytest.approx(2 / 3)
    at_threshold = torch.tensor([[9.0, 1.0]], dtype=torch.float64)
    assert ps.mono_fraction(at_threshold, 0.9 + 1e-9) == 0  # strict, up to the 1e-10 below


def test_states_name_mono_poly_and_ignored_features_over_models():
    # Model 0: feature 0 has two neurons of its own, 1 and 2 share one, 3 has none.
    S = torch.zeros(2, 3, 4)
    S[0, 0, 0] = S[0, 1, 0] = 1
    S[0, 2, 1] = S[0, 2, 2] = 1
    S[1, :, 3] = 1
    explained = torch.tensor([[0.9, 0.7, 0.7, 0.02], [0.5, 0.0, 0.0, 0.9]])
    found = ps.feature_states(S, explained)
    assert found.states.tolist() == [[0, 1, 1, 2], [1, 2, 2, 0]]
    assert found.n_mono_neurons.tolist() == [[2, 0, 0, 0], [0, 0, 0, 3]]
    assert found.share(2).tolist() == [0.25, 0.5]


def test_the_zero_predictor_explains_nothing_and_the_identity_everything():
    v = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    v[v < 0.5] = 0
    v[:, 2] = 0
    assert ps.explained_share(v, torch.zeros_like(v))[:2].tolist() == [0, 0]
    found = ps.explained_share(v, v)
    assert found[:2].tolist() == [1, 1]
    assert found[2].isnan()


def test_thresholds_and_shapes_that_make_no_sense_are_refused(unchecked_types):
    with pytest.raises(ValueError, match=r"between 0 and 1, such as \.999, not 1\.5"):
        ps.mono_fraction(torch.eye(2), 1.5)
    with pytest.raises(ValueError, match=r"required, \(4,\), but the shape \(3,\) arrived"):
        ps.feature_states(torch.zeros(2, 4), torch.zeros(3))


def test_a_feature_that_was_never_active_is_ignored():
    S = torch.tensor([[1.0, 0.0], [0.4, 0.4]])
    found = ps.feature_states(S, torch.tensor([0.9, math.nan]))
    expected = ps.feature_states(S, torch.tensor([0.9, 0.0]))
    assert torch.equal(found.states, expected.states)
