"""Sparse features: their distribution, their embedding, and what is refused."""

import pytest
import torch

from phasescope.datasets import SparseFeatures, feature_directions, feature_frequencies


def test_a_power_law_has_the_asked_mean_until_it_is_clipped():
    p = feature_frequencies(512, 1 / 256, "power_law")
    assert p.mean().item() == pytest.approx(1 / 256, rel=1e-12)
    ratios = p[1:] / p[:-1]
    i = torch.arange(1, 512, dtype=torch.float64)
    torch.testing.assert_close(ratios, (i / (i + 1)) ** 1.1, rtol=1e-12, atol=0)
    clipped = feature_frequencies(64, 0.3, "power_law")
    assert clipped[0] == 1
    assert clipped.mean() < 0.3


def test_directions_are_unit_vectors_and_orthonormal_where_there_is_room():
    P = feature_directions(12, 12, seed=3)
    torch.testing.assert_close(P.T @ P, torch.eye(12), atol=1e-6, rtol=0)
    P = feature_directions(128, 32, seed=0)
    torch.testing.assert_close(P.norm(dim=0), torch.ones(128), atol=1e-6, rtol=0)
    # Rows of an orthonormal frame, rescaled: near a tight frame, P P^T = (N / d) I.
    torch.testing.assert_close(P @ P.T / 4, torch.eye(32), atol=0.2, rtol=0)
    assert torch.equal(P, feature_directions(128, 32, seed=0))
    assert not torch.equal(P, feature_directions(128, 32, seed=1))


def test_entries_are_active_with_their_frequencies_independently_and_uniform():
    p = torch.tensor([0.02, 0.3, 0.9, 0.1])
    features = SparseFeatures(p, n_models=3, batch_size=500, seed=0)
    v = torch.cat([features.draw().clone() for _ in range(40)], dim=1)  # 3 x 20,000 x 4
    active = v > 0
    n = v.shape[1]
    error = (p * (1 - p) / n).sqrt()
    assert ((active.double().mean(1) - p).abs() < 5 * error).all()
    # Independent: the covariance of two indicators vanishes, within and between rows.
    centred = active.double() - p
    covariance = torch.einsum("mri,mrj->mij", centred, centred) / n
    off = covariance - torch.diag_embed(torch.diagonal(covariance, dim1=1, dim2=2))
    assert off.abs().max() < 5 * 0.25 / n**0.5
    neighbours = (centred[:, 1:] * centred[:, :-1]).mean(1)
    assert neighbours.abs().max() < 5 * 0.25 / n**0.5
    for i in range(4):
        values = v[..., i][active[..., i]].double().sort().values
        uniform = torch.linspace(0, 1, len(values), dtype=torch.float64)
        assert (values - uniform).abs().max() < 2 / len(values) ** 0.5  # Kolmogorov-Smirnov


def test_models_of_frequent_features_only_are_written_in_one_piece_with_the_same_numbers():
    p = torch.full((3, 4), 0.6)
    p[1] = 0.1
    features, mixed = (SparseFeatures(p, n_models=3, batch_size=50, seed=0) for _ in range(2))
    mixed._whole = None  # one by one, as where only some features of a model are frequent
    for _ in range(3):
        assert torch.equal(features.draw(), mixed.draw())


def test_every_model_can_have_frequencies_of_its_own():
    p = torch.tensor([[0.01, 0.5], [0.5, 0.01], [1.0, 0.2]])
    features = SparseFeatures(p, n_models=3, batch_size=2000, seed=1)
    share = torch.stack([(features.draw() > 0).double().mean(1) for _ in range(20)]).mean(0)
    torch.testing.assert_close(share, p.double(), atol=0.02, rtol=0)
    assert share[2, 0] == 1


def test_the_draws_are_a_function_of_the_seed_and_go_on_from_a_state():
    p = torch.full((20,), 0.1)
    one, two = (SparseFeatures(p, n_models=2, batch_size=8, seed=5) for _ in range(2))
    assert torch.equal(one.draw(), two.draw())
    state = one.state_dict()
    after = one.draw().clone()
    one.draw()
    one.load_state_dict(state)
    assert torch.equal(one.draw(), after)
    assert not torch.equal(SparseFeatures(p, n_models=2, batch_size=8, seed=6).draw(), after)


def test_bad_features_are_refused(unchecked_types):
    with pytest.raises(
        ValueError, match=r"mean frequency in \(0, 1\] is required, but n_features=3 and mean=2"
    ):
        feature_frequencies(3, 2)
    with pytest.raises(ValueError, match="'uniform' or 'power_law', but 'zipf' arrived"):
        feature_frequencies(3, 0.1, "zipf")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="d must be between 1 and the 3 features, but it is 4"):
        feature_directions(3, 4, seed=0)
    with pytest.raises(ValueError, match=r"frequencies in \(0, 1\] are required, but n_models=1"):
        SparseFeatures(torch.tensor([0.0, 0.1]), n_models=1, batch_size=2, seed=0)
