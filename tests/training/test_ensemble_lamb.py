"""LAMB against a slow float64 reference, learning-rate cycles, biases that decay, and states."""

import math

import pytest
import torch

from phasescope.training import (
    DecayingBiases,
    EnsembleAdam,
    EnsembleLAMB,
    EnsembleSGD,
    cosine_cycles,
    ensemble_gradients,
    train_ensemble,
)

pytestmark = pytest.mark.usefixtures("float64_default")

N_STEPS = 30
RATES = torch.tensor([0.01, 0.03, 0.2], dtype=torch.float64)
DECAYS = torch.tensor([0.0, 0.1, 0.3], dtype=torch.float64)


def start():
    generator = torch.Generator().manual_seed(0)
    draw = {"W": (3, 4, 3), "b": (3, 4)}
    params = {name: torch.randn(shape, generator=generator) for name, shape in draw.items()}
    params["W"][2] *= 20  # its norm is above 10
    params["b"][1] = 0  # without a norm: the ratio is 1
    return params


def loss_fn(params, step=0):
    x = torch.tensor([0.3, -1.0, 0.5]) * (1 + 0.1 * step)
    return (torch.einsum("sij,j->si", params["W"], x) + params["b"]).tanh().sub(0.2).square().sum(1)


def slow_lamb(lr, *, decay=0.0, largest=10.0, correct=False, factor=lambda step: 1.0):
    """Algorithm 2 of the paper, number by number, for each tensor of each seed."""
    params = start()
    beta1, beta2, eps = 0.9, 0.999, 1e-6
    m = {name: [0.0] * p.numel() for name, p in params.items()}
    v = {name: [0.0] * p.numel() for name, p in params.items()}
    for step in range(N_STEPS):
        leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
        loss_fn(leaves, step).sum().backward()
        for name, p in params.items():
            size = p[0].numel()
            grads = leaves[name].grad.flatten().tolist()
            theta = p.flatten().tolist()
            for seed in range(3):
                r = []
                places = range(seed * size, (seed + 1) * size)
                for i in places:
                    m[name][i] = beta1 * m[name][i] + (1 - beta1) * grads[i]
                    v[name][i] = beta2 * v[name][i] + (1 - beta2) * grads[i] ** 2
                    m_hat, v_hat = m[name][i], v[name][i]
                    if correct:
                        m_hat /= 1 - beta1 ** (step + 1)
                        v_hat /= 1 - beta2 ** (step + 1)
                    r.append(m_hat / (math.sqrt(v_hat) + eps) + float(decay[seed]) * theta[i])
                weights = math.sqrt(sum(theta[i] ** 2 for i in places))
                length = math.sqrt(sum(value**2 for value in r))
                ratio = min(weights, largest) / length if weights > 0 and length > 0 else 1.0
                for i, value in zip(places, r, strict=True):
                    theta[i] -= float(lr[seed]) * factor(step) * ratio * value
            params[name] = torch.tensor(theta).view_as(p)
    return params


@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("decay", [torch.zeros(3).double(), DECAYS])
def test_lamb_is_that_of_its_paper(correct, decay):
    params = start()
    factor = cosine_cycles(7)
    optimizer = EnsembleLAMB(RATES, weight_decay=decay, correct_bias=correct, schedule=factor)
    train_ensemble(params, ensemble_gradients(loss_fn), optimizer, N_STEPS)
    expected = slow_lamb(RATES, decay=decay, correct=correct, factor=factor)
    for name, value in expected.items():
        torch.testing.assert_close(params[name], value, rtol=1e-11, atol=1e-12)


def test_a_step_is_as_long_as_the_rate_times_the_weights_up_to_ten():
    params = start()
    grads = {name: torch.randn(p.shape) for name, p in params.items()}
    before = {name: p.clone() for name, p in params.items()}
    EnsembleLAMB(0.1).update(params, grads)
    moved = {name: (params[name] - before[name]).flatten(1).norm(dim=1) for name in params}
    sizes = before["W"].flatten(1).norm(dim=1).clamp(max=10)
    torch.testing.assert_close(moved["W"], 0.1 * sizes)
    assert moved["W"][2].item() == pytest.approx(1.0)


def test_cycles_are_those_of_cosine_annealing_that_is_stepped_on():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8, eta_min=0)
    factor = cosine_cycles(8)
    for step in range(70):
        assert factor(step) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        scheduler.step()


def test_biases_decay_by_the_nominal_rate_for_a_while():
    params = {"b_in": torch.full((3, 2), -1.0), "W": torch.ones(3, 1)}
    still = {name: torch.zeros_like(p) for name, p in params.items()}
    optimizer = DecayingBiases(
        EnsembleLAMB(RATES, schedule=cosine_cycles(2)), DECAYS, lr=RATES, until=5
    )
    for _ in range(9):
        optimizer.update(params, still)
    torch.testing.assert_close(params["b_in"][:, 0], -((1 - DECAYS * RATES) ** 5))
    assert torch.equal(params["W"], torch.ones(3, 1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: EnsembleLAMB(RATES, schedule=cosine_cycles(6)),
        lambda: EnsembleAdam(RATES, weight_decay=0.1),
        lambda: EnsembleSGD(RATES, momentum=0.9),
        lambda: DecayingBiases(EnsembleLAMB(0.1), 0.5, lr=0.1, until=12, name="b"),
    ],
)
def test_training_goes_on_from_a_state_as_if_it_had_not_stopped(make):
    through, stopped = start(), start()
    gradients = ensemble_gradients(lambda params, step: loss_fn(params))
    train_ensemble(through, gradients, make(), 20)
    first, second = make(), make()
    train_ensemble(stopped, gradients, first, 9)
    second.load_state_dict(first.state_dict())
    train_ensemble(stopped, gradients, second, 11)
    for name, value in through.items():
        assert torch.equal(stopped[name], value)


@pytest.mark.parametrize("make", [EnsembleLAMB, EnsembleAdam, EnsembleSGD])
def test_a_state_of_before_the_first_step_has_no_moments(make):
    params, again = start(), start()
    optimizer = make(0.1)
    fresh = optimizer.state_dict()
    optimizer.update(params, {name: -5 * torch.ones_like(p) for name, p in params.items()})
    optimizer.load_state_dict(fresh)
    params = start()
    for rule, theta in ((optimizer, params), (make(0.1), again)):
        rule.update(theta, {name: torch.ones_like(p) for name, p in theta.items()})
    for name, value in again.items():
        assert torch.equal(params[name], value)


def test_what_is_wrong_is_said(unchecked_types):
    with pytest.raises(ValueError, match="largest_norm must be finite and not negative"):
        EnsembleLAMB(0.1, largest_norm=-1.0)
    with pytest.raises(ValueError, match=r"betas must lie in \[0, 1\)"):
        EnsembleLAMB(0.1, betas=(1.0, 0.9))
    with pytest.raises(ValueError, match="half_period must be at least one step, but it is 0"):
        cosine_cycles(0)
    with pytest.raises(ValueError, match="decay must be finite and not negative, but it is -1"):
        DecayingBiases(EnsembleLAMB(0.1), -1.0, lr=0.1, until=3)
