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
    skip_bias_phase,
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


def slow_gates(W_gate, x, n_active):
    """Gate of every neuron by a loop over rows and groups; 0 where its group does not act."""
    rows = []
    for row in x:
        gates = [torch.sigmoid(w @ row) for w in W_gate]
        order = sorted(range(len(gates)), key=lambda g: -gates[g].item())[:n_active]
        each = [gates[g] if g in order else torch.zeros(()).double() for g in range(len(gates))]
        rows.append(torch.stack([gate for gate in each for _ in range(K // len(gates))]))
    return torch.stack(rows)


def slow_loss(
    params, x, target, *, activation, l1=0.0, importance=1.0, top_k=None, n_active_groups=None
):
    """The same by loops over models, with autograd; and the loss that is reported."""
    functions = {"relu": torch.relu, "gelu": nn.functional.gelu, "x_exp": lambda z: z * z.exp()}
    reported, total = [], torch.zeros((), dtype=torch.float64)
    for m in range(M):
        h = functions[activation](x[m] @ params["W_in"][m].T + params["b_in"][m])
        if top_k is not None:
            h = h * (h >= h.sort(1, descending=True).values[:, top_k - 1 : top_k])
        if n_active_groups is not None:
            h = h * slow_gates(params["W_gate"][m], x[m], n_active_groups)
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


@pytest.mark.parametrize(
    "choice", [{}, {"top_k": 3}, {"n_active_groups": 1}, {"n_active_groups": 2}]
)
def test_penalty_importance_and_the_choice_of_neurons_have_their_gradients(choice):
    v, P, params = inputs(2), embedding(), parameters()
    v[(v == 0).all(-1)] = 0.5  # without a feature all gates are equal
    if "n_active_groups" in choice:
        drawn = initial_feature_model(range(M), d=D, n_neurons=K, n_outputs=N, n_groups=3)
        params["W_gate"] = 4 * drawn["W_gate"].double()
    l1 = torch.tensor([0.0, 0.1, 0.7], dtype=torch.float64)
    importance = torch.linspace(0.1, 2, N, dtype=torch.float64)
    loss = FeatureLoss(lambda: v, P, l1=l1, importance=importance, **choice)
    value, grads = loss(params, 0)
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    options = {"activation": "relu", "l1": l1, "importance": importance, **choice}
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


def test_an_importance_of_each_model_is_its_own():
    v, P, params = inputs(2), embedding(), parameters()
    importance = torch.rand(M, N).double()
    together = FeatureLoss(lambda: v, P, importance=importance)(params, 0)[0]
    for m in range(M):
        alone = FeatureLoss(lambda m=m: v[m : m + 1], P[m : m + 1], importance=importance[m])(
            {name: p[m : m + 1] for name, p in params.items()}, 0
        )[0]
        torch.testing.assert_close(alone[0], together[m])


def test_neurons_that_do_not_act_on_a_feature_have_no_response_to_it():
    P = embedding()
    params = parameters() | {"W_gate": torch.randn(M, 3, D).double()}
    S = single_feature_activations(params, P, n_active_groups=1)
    acting = (S.unflatten(1, (3, -1)) != 0).any(2)  # model, group, feature
    assert int(acting.sum(1).max()) == 1
    assert ((single_feature_activations(params, P, top_k=2) > 0).sum(1) <= 2).all()
    outputs = feature_outputs(params, P.mT, n_active_groups=1)
    torch.testing.assert_close(outputs, S.mT @ params["W_out"].mT)


def test_skipped_biases_fire_on_as_many_rows_as_their_rule_says():
    params = parameters()
    features = SparseFeatures(torch.full((N,), 0.3), n_models=M, batch_size=500, seed=0)
    x = features.draw().double() @ embedding().mT

    def firing(rule, **options):
        skipped = skip_bias_phase(params, x, rule, **options)
        assert skipped["W_in"] is params["W_in"]
        z = x @ skipped["W_in"].mT + skipped["b_in"].unsqueeze(1)
        return (z > 0).sum(1)  # model, neuron

    assert (firing("quantile", firing_rate=0.02) == 10).all()
    assert (firing("per_neuron") >= 1).all()
    assert (firing("per_neuron") <= 3).all()
    strongest = firing("max")
    assert (strongest.amax(1) >= 1).all()
    assert (strongest.sum(1) <= 4).all()
    with pytest.raises(ValueError, match="firing_rate must lie between 0 and 1, but it is 0"):
        skip_bias_phase(params, x, firing_rate=0.0)


def test_the_rule_of_a_skip_is_one_of_three(unchecked_types):
    with pytest.raises(ValueError, match="'max', 'per_neuron' or 'quantile', but 'mean' arrived"):
        skip_bias_phase(parameters(), torch.zeros(M, 2, D).double(), "mean")  # type: ignore[arg-type]


def test_what_does_not_fit_is_refused(unchecked_types):
    P = embedding()
    with pytest.raises(ValueError, match="needs a second embedding P_out, but task='reprojector'"):
        FeatureLoss(lambda: inputs(0), P, task="reprojector")
    with pytest.raises(ValueError, match=r"task must be one of .* but 'abs' arrived"):
        FeatureLoss(lambda: inputs(0), P, task="abs")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="but both top_k and n_active_groups arrived"):
        FeatureLoss(lambda: inputs(0), P, top_k=2, n_active_groups=1)
    with pytest.raises(ValueError, match="one of relu, gelu, x_exp, but 'tanh' arrived"):
        FeatureLoss(lambda: inputs(0), P, activation="tanh")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="top_k must lie between 1 and the 9 there are"):
        feature_outputs(parameters(), inputs(0) @ P.mT, top_k=10)
    with pytest.raises(ValueError, match="at least one seed is needed"):
        initial_feature_model([], d=2, n_neurons=2, n_outputs=2)
    with pytest.raises(ValueError, match="9 neurons must divide into groups of equal size"):
        initial_feature_model([0], d=2, n_neurons=9, n_outputs=2, n_groups=4)
