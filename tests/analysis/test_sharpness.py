"""Eigenvalues of the Hessian and Keskar's sharpness, against written-out ones."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import phasescope as ps

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def network() -> tuple[dict[str, Tensor], Callable[[State], Tensor], Tensor]:
    """Parameters of a small network, its loss, and its Hessian by torch.func, in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 3)).double()
    x, y = torch.randn(40, 5, dtype=torch.float64), torch.randint(3, (40,))
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def loss(w: State) -> Tensor:
        return nn.functional.cross_entropy(torch.func.functional_call(model, w, (x,)), y)

    table = ps.ParameterTable.from_module(model)
    H = torch.autograd.functional.hessian(
        lambda v: loss(table.unflatten(v)), table.flatten(parameters)
    )
    return parameters, loss, H


def test_eigenvalues_are_those_of_the_hessian(network) -> None:
    parameters, loss, H = network
    assert len(H) > 64  # by Lanczos
    expected = torch.linalg.eigvalsh(H)
    largest = ps.hessian_eigenvalues(loss, parameters, 3)
    smallest = ps.hessian_eigenvalues(loss, parameters, 2, smallest=True)
    torch.testing.assert_close(largest, expected.flip(0)[:3], rtol=1e-6, atol=0)
    torch.testing.assert_close(smallest, expected[:2], rtol=1e-5, atol=1e-9)


def test_a_component_has_its_own_block(network) -> None:
    parameters, loss, H = network
    part = ps.Component("part", ((3, 8), (20, 40)))
    block = H[part.columns][:, part.columns]
    expected = torch.linalg.eigvalsh(block).flip(0)[:2]
    found = ps.hessian_eigenvalues(loss, parameters, 2, component=part)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    everything = ps.Component("all", ((0, len(H)),))
    torch.testing.assert_close(
        ps.hessian_eigenvalues(loss, parameters, 1, component=everything),
        ps.hessian_eigenvalues(loss, parameters, 1),
    )


def test_gradient_descent_is_stable_up_to_two_over_the_sharpness() -> None:
    h = torch.tensor([4.0, 1.0, 0.1])

    def loss(w: State) -> Tensor:
        return (h * w["x"].square()).sum() / 2

    (top,) = ps.hessian_eigenvalues(loss, {"x": torch.ones(3)}).tolist()
    for factor, grows in ((0.99, False), (1.01, True)):
        x = torch.ones(3)
        for _ in range(200):
            x = x - factor * 2 / top * h * x
        assert (x[0].abs() > 1) == grows


def test_a_linear_loss_has_no_curvature() -> None:
    values = ps.hessian_eigenvalues(lambda w: w["x"].sum(), {"x": torch.ones(3)}, 2)
    assert values.tolist() == [0, 0]


def test_box_sharpness_of_a_quadratic_is_at_the_corner() -> None:
    h = torch.tensor([3.0, 1.0, 0.5], dtype=torch.float64)
    x = torch.tensor([0.2, -0.1, 0.0], dtype=torch.float64)

    def loss(w: State) -> Tensor:
        return (h * w["x"].square()).sum() / 2

    found = ps.box_sharpness(loss, {"x": x}, radius=0.05, n_directions=None, n_starts=10)
    here = (h * x.square()).sum() / 2
    half = 0.05 * (x.abs() + 1)
    best = (h * (x.abs() + half).square()).sum() / 2
    assert found == pytest.approx((100 * (best - here) / (1 + here)).item(), rel=1e-9)


def test_box_sharpness_in_random_directions_is_that_of_their_projection() -> None:
    """Of a round bowl every orthonormal set of directions gives the same: p ε² / 2."""
    x = torch.zeros(200, dtype=torch.float64)
    for seed in range(3):
        found = ps.box_sharpness(
            lambda w: w["x"].square().sum() / 2, {"x": x}, radius=0.1, n_directions=4, seed=seed
        )
        assert found == pytest.approx(100 * 4 * 0.1**2 / 2, rel=1e-6)


def test_box_sharpness_is_reproducible_and_grows_with_the_radius(network) -> None:
    parameters, loss, _ = network
    near, again, far = (
        ps.box_sharpness(loss, parameters, radius=radius) for radius in (1e-3, 1e-3, 1e-2)
    )
    assert near == again
    assert 0 < near < far


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, w: ps.hessian_eigenvalues(f, w, 4), "between 1 and the 3 parameters"),
        (lambda f, w: ps.hessian_eigenvalues(f, {}), "but none arrived"),
        (lambda f, w: ps.box_sharpness(f, w, radius=0.0), "radius=0.0"),
        (lambda f, w: ps.box_sharpness(f, w, n_directions=4), "n_directions=4"),
        (lambda f, w: ps.box_sharpness(f, w, n_directions=2, n_starts=0), "n_starts=0"),
    ],
)
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(lambda w: w["x"].square().sum(), {"x": torch.zeros(3)})
