"""Ensembles take the steps that each model alone would take with torch.optim and autograd."""

import pytest
import torch

import phasescope as ps
from phasescope.training import (
    EnsembleAdam,
    EnsembleSGD,
    ensemble_gradients,
    per_seed,
    train_ensemble,
)

pytestmark = pytest.mark.usefixtures("float64_default")

N_SEEDS, N_STEPS = 3, 25


def start():
    generator = torch.Generator().manual_seed(0)
    return {
        "W": torch.randn(N_SEEDS, 4, 3, generator=generator),
        "b": torch.randn(N_SEEDS, 4, generator=generator),
    }


def loss_fn(params, step=0):
    """A loss with curvature that changes with the step, as data that are drawn anew would."""
    x = torch.tensor([0.3, -1.0, 0.5]) * (1 + 0.1 * step)
    return (torch.einsum("sij,j->si", params["W"], x) + params["b"]).tanh().sub(0.2).square().sum(1)


def alone(make, n_steps=N_STEPS):
    """Every seed trained by itself; losses and final parameters."""
    losses, ends = [], []
    for seed in range(N_SEEDS):
        params = {k: v[seed : seed + 1].clone().requires_grad_() for k, v in start().items()}
        optimizer = make(list(params.values()), seed)
        curve = []
        for step in range(n_steps + 1):
            optimizer.zero_grad()
            loss = loss_fn(params, step).sum()
            curve.append(loss.item())
            loss.backward()
            if step < n_steps:
                optimizer.step()
        losses.append(curve)
        ends.append({k: v.detach() for k, v in params.items()})
    return torch.tensor(losses), {k: torch.cat([e[k] for e in ends]) for k in ends[0]}


RATES = torch.tensor([0.01, 0.05, 0.1])
DECAYS = torch.tensor([0.0, 0.1, 0.3])
CASES = {
    "sgd": (
        lambda: EnsembleSGD(0.05),
        lambda p, s: torch.optim.SGD(p, lr=0.05),
    ),
    "momentum, coupled decay": (
        lambda: EnsembleSGD(0.02, momentum=0.9, weight_decay=0.1),
        lambda p, s: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=0.1),
    ),
    "a learning rate and decay per seed": (
        lambda: EnsembleSGD(RATES, momentum=0.5, weight_decay=DECAYS),
        lambda p, s: torch.optim.SGD(
            p, lr=RATES[s].item(), momentum=0.5, weight_decay=DECAYS[s].item()
        ),
    ),
    "adam": (
        lambda: EnsembleAdam(0.02),
        lambda p, s: torch.optim.Adam(p, lr=0.02),
    ),
    "adam, coupled decay, other betas": (
        lambda: EnsembleAdam(0.02, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.2),
        lambda p, s: torch.optim.Adam(p, lr=0.02, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.2),
    ),
    "adamw per seed": (
        lambda: EnsembleAdam(RATES, weight_decay=DECAYS, decoupled=True),
        lambda p, s: torch.optim.AdamW(p, lr=RATES[s].item(), weight_decay=DECAYS[s].item()),
    ),
    "adamw": (
        lambda: EnsembleAdam(0.02, weight_decay=0.3, decoupled=True),
        lambda p, s: torch.optim.AdamW(p, lr=0.02, weight_decay=0.3),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_batch_takes_the_steps_that_torch_takes_with_each_seed_alone(name):
    ours, theirs = CASES[name]
    params = start()
    losses = train_ensemble(params, ensemble_gradients(loss_fn), ours(), N_STEPS)
    expected, ends = alone(theirs)
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-14)
    for key in ends:
        torch.testing.assert_close(params[key], ends[key], rtol=1e-11, atol=1e-13)


def test_decoupled_decay_of_sgd_is_coupled_decay_without_momentum():
    ends = []
    for decoupled in (False, True):
        params = start()
        optimizer = EnsembleSGD(0.05, weight_decay=0.4, decoupled=decoupled)
        train_ensemble(params, ensemble_gradients(loss_fn), optimizer, 10)
        ends.append(params["W"])
    torch.testing.assert_close(*ends, rtol=1e-13, atol=1e-13)


def test_a_schedule_multiplies_the_learning_rate_of_each_step():
    halves = [1.0, 0.5, 0.25]
    params = {"w": torch.zeros(1, 1)}
    ones = ensemble_gradients(lambda p, step: -p["w"].sum(1))
    for optimizer in (
        EnsembleSGD(1.0, schedule=lambda step: halves[step]),
        EnsembleAdam(1.0, eps=0.0, schedule=lambda step: halves[step]),
    ):
        params = {"w": torch.zeros(1, 1)}
        train_ensemble(params, ones, optimizer, 3)
        assert params["w"].item() == pytest.approx(1.75)


def test_a_seed_that_diverges_leaves_the_others_alone():
    def quartic(params, step):
        return params["w"].pow(4).sum(1)

    def run(values):
        params = {"w": torch.tensor(values).view(-1, 1)}
        losses = train_ensemble(params, ensemble_gradients(quartic), EnsembleSGD(0.1), 12)
        return losses, params["w"]

    losses, ends = run([1.0, 50.0, 0.5])
    assert not losses[1].isfinite().all()
    good, good_ends = run([1.0, 0.5])
    assert torch.equal(losses[[0, 2]], good)
    assert torch.equal(ends[[0, 2]], good_ends)


def test_what_is_observed_is_the_state_after_so_many_updates():
    seen = {}
    params = {"w": torch.ones(2, 1)}
    losses = train_ensemble(
        params,
        ensemble_gradients(lambda p, step: p["w"].square().sum(1) / 2),
        EnsembleSGD(0.5),
        4,
        observe=lambda step, p: seen.update({step: p["w"][0, 0].item()}),
        observe_at=ps.every(2),
    )
    assert seen == {0: 1.0, 2: 0.25, 4: 0.0625}
    assert losses[0].tolist() == [0.5 * 0.25**t for t in range(5)]


def test_progress_ends_at_one_and_zero_steps_give_the_first_loss():
    shares = []
    gradients = ensemble_gradients(lambda p, step: p["w"].square().sum(1))
    params = {"w": torch.ones(2, 1)}
    train_ensemble(params, gradients, EnsembleSGD(0.1), 7, progress=shares.append)
    assert shares[-1] == 1.0
    assert len(train_ensemble(params, gradients, EnsembleSGD(0.1), 0)[0]) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EnsembleSGD(-0.1), "lr must be finite and not negative, but it is -0.1"),
        (lambda: EnsembleSGD(0.1, weight_decay=float("nan")), "weight_decay must be finite"),
        (lambda: EnsembleAdam(torch.tensor([0.1, -1.0])), "lr must be finite and not negative"),
        (lambda: EnsembleAdam(0.1, betas=(0.9, 1.0)), r"betas must lie in \[0, 1\)"),
        (lambda: per_seed(torch.ones(3), torch.ones(2, 5)), "each of the 2 seeds"),
        (
            lambda: train_ensemble(
                {"a": torch.ones(2, 1), "b": torch.ones(3, 1)}, lambda p, s: p, EnsembleSGD(0.1), 1
            ),
            "same number of seeds",
        ),
        (
            lambda: train_ensemble({}, lambda p, s: p, EnsembleSGD(0.1), 1),
            "no parameters",
        ),
        (
            lambda: train_ensemble({"a": torch.ones(2, 1)}, lambda p, s: p, EnsembleSGD(0.1), -1),
            "n_steps must not be negative",
        ),
        (
            lambda: train_ensemble(
                {"w": torch.ones(2, 1)},
                ensemble_gradients(lambda p, s: p["w"].square().mean()),
                EnsembleSGD(0.1),
                1,
            ),
            r"a tensor of shape \(2,\), but its shape is \(\)",
        ),
    ],
)
def test_what_is_wrong_is_said(call, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.gpu
def test_the_same_on_a_gpu():
    on_cpu, on_gpu = start(), {k: v.cuda() for k, v in start().items()}
    for params in (on_cpu, on_gpu):
        gradients = ensemble_gradients(
            lambda p, step: (p["W"].square().sum((1, 2)) + p["b"].square().sum(1)).sqrt()
        )
        train_ensemble(params, gradients, EnsembleAdam(RATES), N_STEPS)
    torch.testing.assert_close(on_gpu["W"].cpu(), on_cpu["W"], rtol=1e-9, atol=1e-9)
