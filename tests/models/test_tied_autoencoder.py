"""The tied autoencoder: its gradients against autograd, its start, its losses in closed form."""

import pytest
import torch

from phasescope.models import TiedLoss, initial_tied_autoencoder, tied_outputs


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_are_those_of_autograd(weighted):
    generator = torch.Generator().manual_seed(0)
    v = torch.rand(3, 20, 7, generator=generator).double()
    v *= torch.rand(3, 20, 7, generator=generator) < 0.3
    drawn = initial_tied_autoencoder([0, 1, 2], n_features=7, d=3)
    params = {name: p.double() for name, p in drawn.items()}
    params["b"] += torch.linspace(-0.2, 0.2, 7)
    importance = torch.rand(3, 7, generator=generator).double() if weighted else None
    value, grads = TiedLoss(lambda: v, importance=importance)(params, 0)
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    losses = []
    for m in range(3):
        W, b = leaves["W"][m], leaves["b"][m]
        y = torch.relu(torch.einsum("bj,jd,id->bi", v[m], W, W) + b)
        scale = 1 if importance is None else importance[m]
        losses.append((scale * (v[m] - y) ** 2).mean())
        torch.testing.assert_close(tied_outputs(params, v)[m], y.detach())
    torch.stack(losses).sum().backward()
    torch.testing.assert_close(value, torch.stack(losses).detach(), rtol=1e-13, atol=0)
    for name, leaf in leaves.items():
        torch.testing.assert_close(grads[name], leaf.grad, rtol=1e-11, atol=1e-15)


def test_the_start_is_xaviers_and_a_function_of_the_seed():
    params = initial_tied_autoencoder([3, 3, 4], n_features=300, d=100)
    assert torch.equal(params["W"][0], params["W"][1])
    assert not torch.equal(params["W"][0], params["W"][2])
    assert params["W"].std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert not params["b"].any()


def test_an_antipodal_pair_reconstructs_single_features_exactly():
    """Two features on one line, of opposite sign: ReLU removes what each sees of the other."""
    params = {"W": torch.tensor([[[1.0], [-1.0]]]), "b": torch.zeros(1, 2)}
    v = torch.tensor([[[0.7, 0.0], [0.0, 0.4]]])
    torch.testing.assert_close(tied_outputs(params, v), v)
    assert TiedLoss(lambda: v)(params, 0)[0].item() == pytest.approx(0, abs=1e-14)


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match="at least one seed, one feature and one dimension"):
        initial_tied_autoencoder([], n_features=3, d=2)
