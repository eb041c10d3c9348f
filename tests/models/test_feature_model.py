"""The feature model: its gradients against autograd, its initial values, the zero predictor."""

import pytest
import torch
from torch import nn

from phasescope.datasets import SparseFeatures, feature_directions, feature_frequencies
from phasescope.models import (
    FeatureLoss,
    feature_outputs,
    initial_feature_model,
    single_feature_activations,
)

N, D, K, M, B = 12, 5, 9, 3, 40


def inputs(seed: int) -> torch.Tensor:
    features = SparseFeatures(torch.full((N,), 0.3), n_models=M, batch_size=B, seed=seed)
    return features.draw().double()


def embedding(seed: int = 0) -> torch.Tensor:
    return torch.stack([feature_directions(N, D, seed=seed + i) for i in range(M)]).double()


def parameters(n_outputs: int = N) -> dict[str, torch.Tensor]:
    drawn = initial_feature_model(range(M), d=D, n_neurons=K, n_outputs=n_outputs)
    return {name: 2 * p.double() for name, p in drawn.items()}


def slow_loss(params, x, target, *, activation, l1=0.0, importance=1.0, top_k=None):
    """The same by loops over models, with autograd; and the loss that is reported."""
    functions = {"relu": torch.relu, "gelu": nn.functional.gelu, "x_exp": lambda z: z * z.exp()}
    reported, total = [], torch.zeros((), dtype=torch.float64)
    for m in range(M):
        h = functions[activation](x[m] @ params["W_in"][m].T + params["b_in"][m])
        if top_k is not None:
            h = h * (h >= h.sort(1, descending=True).values[:, top_k - 1 : top_k])
        y = h @ params["W_out"][m].T
        loss = (importance * (y - target[m]) ** 2).sum(1).mean()
        reported.append(loss)
        total = total + loss + (l1 if isinstance(l1, float) else l1[m]) * h.abs().sum(1).mean()
    return torch.stack(reported), total


@pytest.mark.parametrize("task", ["decoder", "reprojector", "absolute"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "x_exp"])
def test_gradients_are_those_of_autograd(task, activation):
    v, w = inputs(0), inputs(1)
    draws = iter([v, w])
    P = embedding()
    P_out = embedding(10) if task == "reprojector" else None
    params = parameters(D if task == "reprojector" else N)
    loss = FeatureLoss(lambda: next(draws), P, task=task, P_out=P_out, activation=activation)
    value, grads = loss(params, 0)
    x = (v - w if task == "absolute" else v) @ P.mT
    target = {"decoder": v, "absolute": (v - w).abs()}.get(task)
    target = v @ P_out.mT if P_out is not None else target
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    expected, total = slow_loss(leaves, x, target, activation=activation)
    total.backward()
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
    for name, leaf in leaves.items():
        torch.testing.assert_close(grads[name], leaf.grad, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("top_k", [None, 3])
def test_penalty_importance_and_top_k_have_their_gradients(top_k):
    v, P, params = inputs(2), embedding(), parameters()
    l1 = torch.tensor([0.0, 0.1, 0.7], dtype=torch.float64)
    importance = torch.linspace(0.1, 2, N, dtype=torch.float64)
    loss = FeatureLoss(lambda: v, P, l1=l1, importance=importance, top_k=top_k)
    value, grads = loss(params, 0)
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    options = {"activation": "relu", "l1": l1, "importance": importance, "top_k": top_k}
    expected, total = slow_loss(leaves, v @ P.mT, v, **options)
    total.backward()
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
    for name, leaf in leaves.items():
        torch.testing.assert_close(grads[name], leaf.grad, rtol=1e-11, atol=1e-14)


def test_the_zero_predictor_loses_a_third_of_the_mean_number_of_active_features():
    frequencies = feature_frequencies(512, 1 / 64)
    features = SparseFeatures(frequencies, n_models=2, batch_size=4000, seed=0)
    P = torch.stack([feature_directions(512, 64, seed=0)] * 2)
    params = initial_feature_model([0, 1], d=64, n_neurons=8, n_outputs=512)
    params["W_out"].zero_()
    losses = FeatureLoss(features.draw, P)(params, 0)[0]
    # E|v|^2 = N p / 3 = 8/3; a row's variance is N (p / 5 - p^2 / 9).
    error = (512 * (1 / 64 / 5 - 1 / 64**2 / 9) / 4000) ** 0.5
    assert ((losses - 8 / 3).abs() < 4 * error).all()


def test_initial_values_are_those_of_linear_layers_around_the_offset():
    offsets = torch.tensor([0.0, -1.0])
    params = initial_feature_model([0, 1], d=4, n_neurons=2000, n_outputs=3, bias_offset=offsets)
    assert params["W_in"].abs().max() <= 0.5
    assert params["W_in"].std().item() == pytest.approx(0.5 / 3**0.5, rel=0.05)
    assert params["W_out"].abs().max() <= 2000**-0.5
    torch.testing.assert_close(params["b_in"].mean(1), offsets, atol=0.03, rtol=0)
    moved = initial_feature_model([0, 1], d=4, n_neurons=2000, n_outputs=3)
    torch.testing.assert_close(params["b_in"][1] + 1, moved["b_in"][1], atol=1e-6, rtol=0)
    assert torch.equal(params["W_out"], moved["W_out"])


def test_outputs_and_single_feature_activations_are_those_of_each_model():
    params, P = parameters(), embedding()
    x = inputs(4) @ P.mT
    y = feature_outputs(params, x)
    S = single_feature_activations(params, P)
    for m in range(M):
        h = torch.relu(x[m] @ params["W_in"][m].T + params["b_in"][m])
        torch.testing.assert_close(y[m], h @ params["W_out"][m].T)
        for i in range(N):
            alone = torch.relu(params["W_in"][m] @ P[m, :, i] + params["b_in"][m])
            torch.testing.assert_close(S[m, :, i], alone)


def test_what_does_not_fit_is_refused(unchecked_types):
    P = embedding()
    with pytest.raises(ValueError, match="needs a second embedding P_out, but task='reprojector'"):
        FeatureLoss(lambda: inputs(0), P, task="reprojector")
    with pytest.raises(ValueError, match="one of relu, gelu, x_exp, but 'tanh' arrived"):
        FeatureLoss(lambda: inputs(0), P, activation="tanh")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="top_k must lie between 1 and the 9 neurons"):
        feature_outputs(parameters(), inputs(0) @ P.mT, top_k=10)
    with pytest.raises(ValueError, match="at least one seed is needed"):
        initial_feature_model([], d=2, n_neurons=2, n_outputs=2)
