"""The local learning coefficient against models whose answer is known in closed form."""

import math

import pytest
import torch
from torch import Tensor

import phasescope as ps

State = dict[str, Tensor]


def test_quadratic_has_the_closed_form_of_the_discrete_chain() -> None:
    """The stationary variance of a step of size ε at stiffness a is 1 / (a (1 − ε a / 4))."""
    h = torch.tensor([0.0, 0.2, 1.0, 5.0], dtype=torch.float64)
    temperature, localization, step_size = 100.0, 20.0, 2e-3

    def loss(w: State) -> Tensor:
        return (h * w["x"].square()).sum() / 2 + 0.7

    found = ps.local_learning_coefficient(
        loss,
        {"x": torch.zeros(4, dtype=torch.float64)},
        n_examples=1000,
        inverse_temperature=temperature,
        localization=localization,
        step_size=step_size,
        n_chains=400,
        n_draws=600,
        n_burn_in=200,
    )
    a = temperature * h + localization
    expected = (temperature * h / (2 * a * (1 - step_size * a / 4))).sum().item()
    error = found.per_chain.std().item() / math.sqrt(400)
    assert abs(found.value - expected) < 4 * error
    assert error < 0.02 * expected
    assert found.initial_loss == pytest.approx(0.7)
    assert found.interval is not None
    assert found.interval.low < expected < found.interval.high


@pytest.mark.parametrize(("power", "coefficient"), [(2, 1 / 2), (4, 1 / 4), (6, 1 / 6)])
def test_singular_minima_count_less(power: int, coefficient: float) -> None:
    """Under exp(−nβ w^2k) the mean of nβ w^2k is 1/2k, at every temperature."""

    def loss(w: State) -> Tensor:
        return w["x"].pow(power).sum()

    found = ps.local_learning_coefficient(
        loss,
        {"x": torch.zeros(50, dtype=torch.float64)},
        n_examples=1000,
        inverse_temperature=10.0,
        localization=0.0,
        step_size=0.003,  # leaves 1.5 % at the curvature of w², nothing at the others
        n_chains=100,
        n_draws=1500,
        n_burn_in=500,
    )
    assert found.value / 50 == pytest.approx(coefficient, rel=0.03)


def test_a_product_of_parameters_counts_less_than_a_regular_minimum() -> None:
    def regular(w: State) -> Tensor:
        return (w["a"].square() + w["b"].square()).sum()

    def singular(w: State) -> Tensor:
        return (w["a"] * w["b"]).square().sum()

    start = {"a": torch.zeros(20), "b": torch.zeros(20)}
    settings = {"n_examples": 1000, "localization": 1.0, "step_size": 1e-3, "n_draws": 1000}
    full = ps.local_learning_coefficient(regular, start, **settings).value
    less = ps.local_learning_coefficient(singular, start, **settings).value
    assert full == pytest.approx(20, rel=0.1)
    assert 0 < less < full / 2


def test_a_component_moves_alone() -> None:
    def loss(w: State) -> Tensor:
        return w["x"].square().sum() / 2

    part = ps.Component("three", ((2, 5),))
    settings = {
        "n_examples": 10_000,
        "localization": 0.1,
        "step_size": 1e-4,
        "n_draws": 500,
        "n_chains": 16,
    }
    found = ps.local_learning_coefficient(loss, {"x": torch.zeros(9)}, component=part, **settings)
    assert found.value == pytest.approx(1.5, rel=0.15)


def test_same_seed_same_draws_and_nothing_changes() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    x, y = torch.randn(30, 3), torch.randn(30, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()

    def loss(w: State) -> Tensor:
        return (torch.func.functional_call(model, w, (x,)) - y).square().mean()

    one, two = (
        ps.local_learning_coefficient(
            loss, dict(model.named_parameters()), n_examples=30, n_draws=20, n_burn_in=5
        )
        for _ in range(2)
    )
    assert torch.equal(one.losses, two.losses)
    assert one.losses.shape == (4, 20)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_large_steps_show_in_the_acceptance() -> None:
    def loss(w: State) -> Tensor:
        return w["x"].square().sum() / 2

    start = {"x": torch.zeros(5, dtype=torch.float64)}
    small, large = (
        ps.local_learning_coefficient(
            loss, start, n_examples=1000, step_size=step
        ).acceptance.mean()
        for step in (1e-5, 1e-2)
    )
    assert small > 0.99
    assert large < 0.8


def test_batches_drawn_in_the_loss_give_the_same_answer() -> None:
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = x.sum(1) + 0.1 * torch.randn(200, generator=torch.Generator().manual_seed(1))
    best = {"w": torch.linalg.lstsq(x, y[:, None]).solution[:, 0]}

    def full(w: State) -> Tensor:
        return (x @ w["w"] - y).square().mean() / 2

    def drawn(w: State) -> Tensor:
        rows = torch.randint(len(x), (50,))
        return (x[rows] @ w["w"] - y[rows]).square().mean() / 2

    settings = {
        "n_examples": 200,
        "localization": 1.0,
        "step_size": 3e-3,
        "n_draws": 1000,
        "n_chains": 8,
    }
    torch.manual_seed(0)
    exact = ps.local_learning_coefficient(full, best, **settings).value
    noisy = ps.local_learning_coefficient(drawn, best, **settings).value
    assert exact == pytest.approx(2, rel=0.15)
    assert noisy == pytest.approx(exact, rel=0.2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_examples": 1}, "at least 2 examples"),
        ({"n_draws": 50, "n_burn_in": 50}, "more draws than burn-in"),
        ({"n_chains": 0}, "1 chain"),
        ({"step_size": 0.0}, "step_size must be positive"),
        ({"localization": -1.0}, "localization must be"),
        ({"inverse_temperature": 0.0}, "inverse_temperature must be positive"),
        ({"component": ps.Component("beyond", ((2, 9),))}, "'beyond' has 7"),
        ({"step_size": 1e3}, "diverged at draw"),
    ],
)
def test_bad_arguments_are_named(changed: dict[str, object], message: str) -> None:
    def loss(w: State) -> Tensor:
        return w["x"].square().sum()

    arguments = {"n_examples": 100, "n_draws": 300} | changed
    with pytest.raises(ValueError, match=message):
        ps.local_learning_coefficient(loss, {"x": torch.zeros(3)}, **arguments)


def test_a_buffer_of_integers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one floating-point dtype are required, but x: .*int64"):
        ps.local_learning_coefficient(
            lambda w: w["x"].sum(), {"x": torch.zeros(3, dtype=torch.long)}, n_examples=10
        )
