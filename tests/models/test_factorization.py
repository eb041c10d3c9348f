"""Gradients of the factorization equal autograd's, and its symmetries hold."""

import pytest
import torch

from phasescope.datasets import low_rank_targets
from phasescope.models import Factorization, initial_factors
from phasescope.training import EnsembleSGD, train_ensemble

SEEDS, D, RANK = [3, 5, 11], 8, 3
LOSSES = ("squared_error", "cross_entropy", "softmax_squared_error")


def slow_loss(X, Y, C, loss, temperature):
    """One seed, as the formulas say it."""
    Z = X @ Y.T
    if loss == "squared_error":
        return 0.5 * ((C - Z) ** 2).sum()
    P = torch.softmax(C.flatten() / temperature, 0)
    if loss == "cross_entropy":
        log_q = torch.log_softmax(Z.flatten() / temperature, 0)
        return -(P * log_q).sum() + (P * P.log()).sum()
    return 0.5 * ((torch.softmax(Z.flatten() / temperature, 0) - P) ** 2).sum()


def problem(scale=3.0):
    targets = low_rank_targets(SEEDS, d=D, rank=RANK, scale=scale)
    return targets.matrices, initial_factors(SEEDS, d=D, rank=RANK, scale=scale)


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_gradients_are_those_of_autograd(loss):
    temperature = 1.0 if loss == "squared_error" else 1.7
    C, params = problem()
    ours, grads = Factorization(C, loss, temperature=temperature)(params)
    for i in range(len(SEEDS)):
        X, Y = (params[name][i].clone().requires_grad_() for name in "XY")
        expected = slow_loss(X, Y, C[i], loss, temperature)
        by_x, by_y = torch.autograd.grad(expected, (X, Y))
        assert ours[i].item() == pytest.approx(expected.item(), rel=1e-12)
        torch.testing.assert_close(grads["X"][i], by_x, rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(grads["Y"][i], by_y, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("loss", LOSSES)
def test_float32_is_float64_to_its_precision(loss):
    C, params = problem()
    exact, exact_grads = Factorization(C, loss)(params)
    single, grads = Factorization(C.float(), loss)({k: v.float() for k, v in params.items()})
    torch.testing.assert_close(single.double(), exact, rtol=3e-6, atol=0)
    for name in "XY":
        scale = exact_grads[name].abs().max()
        assert (grads[name] - exact_grads[name]).abs().max() < 3e-6 * scale


def test_cross_entropy_near_its_minimum_is_known_to_1e_7_in_float32():
    generator = torch.Generator().manual_seed(0)
    C = 3 * torch.randn(20, 40, 40, dtype=torch.float64, generator=generator)
    Z = C + 1e-3 * torch.randn(20, 40, 40, dtype=torch.float64, generator=generator)
    eye = torch.eye(40, dtype=torch.float64).expand(20, 40, 40).contiguous()
    exact, _ = Factorization(C, "cross_entropy")({"X": Z, "Y": eye})
    single, _ = Factorization(C.float(), "cross_entropy")({"X": Z.float(), "Y": eye.float()})
    assert 1e-7 < exact.min() < exact.max() < 1e-6
    error = (single.double() - exact).abs().max()
    plain = -torch.log_softmax(Z.float().flatten(1), 1) * torch.softmax(C.float().flatten(1), 1)
    entropy = -torch.log_softmax(C.float().flatten(1), 1) * torch.softmax(C.float().flatten(1), 1)
    assert error < 1e-7
    assert error < ((plain.sum(1) - entropy.sum(1)).double() - exact).abs().max() / 5


@pytest.mark.parametrize("loss", ["cross_entropy", "softmax_squared_error"])
def test_a_constant_added_to_everything_changes_nothing_behind_a_softmax(loss):
    C, _ = problem()
    eye = torch.eye(D, dtype=torch.float64).expand(len(SEEDS), D, D).contiguous()
    value, grads = Factorization(C, loss)({"X": C + 3.0, "Y": eye})
    assert value.abs().max() < 1e-14
    assert grads["X"].abs().max() < 1e-14


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_does_not_see_an_invertible_change_of_basis(loss):
    """GL(r): X G and Y G^-T have the product X Yᵀ."""
    C, params = problem()
    G = torch.randn(
        len(SEEDS), RANK, RANK, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    changed = {"X": params["X"] @ G, "Y": params["Y"] @ torch.linalg.inv(G).mT}
    factorization = Factorization(C, loss)
    before = factorization(params)[0].clone()
    torch.testing.assert_close(factorization(changed)[0], before, rtol=1e-9, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_descent_commutes_with_rotations_of_the_columns_only(loss):
    """O(r): trained from X Q, Y Q the end is (X' Q, Y' Q); a general G does not commute."""
    C, _ = problem(1.0)
    params = initial_factors(SEEDS, d=D, rank=RANK)
    rate = 0.1 if loss == "squared_error" else 5.0
    generator = torch.Generator().manual_seed(2)
    G = torch.randn(len(SEEDS), RANK, RANK, dtype=torch.float64, generator=generator)
    Q = torch.linalg.qr(G)[0]

    def trained(transform, inverse):
        moved = {"X": params["X"] @ transform, "Y": params["Y"] @ inverse.mT}
        train_ensemble(moved, Factorization(C, loss), EnsembleSGD(rate), 60)
        return moved

    eye = torch.eye(RANK, dtype=torch.float64).expand_as(Q)
    plain, rotated = trained(eye, eye), trained(Q, Q.mT)
    for name in "XY":
        torch.testing.assert_close(rotated[name], plain[name] @ Q, rtol=1e-9, atol=1e-11)
    G = eye + 0.3 * G
    skewed = trained(G, torch.linalg.inv(G))
    Z, Z_skewed = (p["X"] @ p["Y"].mT for p in (plain, skewed))
    assert (Z - Z_skewed).abs().max() > 1e-4


def test_seeds_draw_the_same_whatever_is_beside_them_and_settings_only_rescale():
    params = initial_factors(SEEDS, d=D, rank=RANK, scale=0.5, imbalance=4.0)
    alone = initial_factors(SEEDS[1:2], d=D, rank=RANK)
    torch.testing.assert_close(params["X"][1], alone["X"][0] * 2)
    torch.testing.assert_close(params["Y"][1], alone["Y"][0] / 8)
    wide = initial_factors(range(400), d=50, rank=2)["X"]
    assert wide.square().sum(1).mean().item() == pytest.approx(1, abs=0.03)
    target = low_rank_targets(SEEDS, d=D, rank=RANK)
    assert not torch.allclose(target.A, initial_factors(SEEDS, d=D, rank=RANK)["X"])


def test_a_balanced_start_has_no_conserved_matrix():
    params = initial_factors(SEEDS, d=D, rank=RANK, balance="balanced", scale=0.3)
    X, Y = params["X"], params["Y"]
    torch.testing.assert_close(X.mT @ X, Y.mT @ Y, rtol=1e-10, atol=1e-13)
    assert not torch.allclose(X, Y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: initial_factors([], d=4, rank=2), "at least one seed"),
        (lambda: initial_factors([0], d=4, rank=5), "between 1 and 4, not 5"),
        (lambda: initial_factors([0], d=4, rank=2, scale=0.0), "scale must be positive"),
        (lambda: initial_factors([0], d=4, rank=2, imbalance=-1.0), "imbalance must be positive"),
        (lambda: Factorization(torch.ones(1, 2, 2), temperature=2.0), "has no temperature"),
        (
            lambda: Factorization(torch.ones(1, 2, 2), "cross-entropy"),
            r"loss must be one of .* but 'cross-entropy' arrived",
        ),
        (
            lambda: initial_factors([0], d=4, rank=2, balance="even"),
            r"balance must be one of .* but 'even' arrived",
        ),
        (
            lambda: Factorization(torch.ones(1, 2, 2), "cross_entropy", temperature=0.0),
            "temperature must be positive",
        ),
    ],
)
def test_what_is_wrong_is_said(call, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.usefixtures("unchecked_types")
def test_targets_and_factors_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"axes seed, rows and columns .* shape is \(3, 3\)"):
        Factorization(torch.eye(3))
    loss = Factorization(torch.eye(3).expand(2, 3, 3))
    factors = initial_factors([0, 1], d=3, rank=2)
    with pytest.raises(ValueError, match=r"type torch.float32 of the targets are required, but"):
        loss(factors, 0)
    with pytest.raises(
        ValueError, match=r"the shape \(2, 3, 3\) .* have \(2, 3, 1\) and \(2, 4, 1\)"
    ):
        loss({"X": torch.ones(2, 3, 1), "Y": torch.ones(2, 4, 1)}, 0)
