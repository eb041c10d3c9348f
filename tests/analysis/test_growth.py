"""Closed forms against each other, against an integrator, and against trained factorizations."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import phasescope as ps
from phasescope.datasets import LowRankTargets, low_rank_targets
from phasescope.models import Factorization, initial_factors
from phasescope.training import EnsembleSGD, train_ensemble

pytestmark = pytest.mark.usefixtures("float64_default")

SEEDS, D = [0, 1, 2, 3], 30


def start_of(params, targets):
    return ps.rank_one_state(params["X"], params["Y"], targets.A, targets.B)


def trained(rate, t_end, *, decay=0.0, imbalance=1.0, rank=1, loss="squared_error", **options):
    """Targets, start and end of gradient descent, and its losses."""
    targets = low_rank_targets(SEEDS, d=D, rank=rank)
    params = initial_factors(SEEDS, d=D, rank=rank, imbalance=imbalance, **options)
    start = {name: value.clone() for name, value in params.items()}
    optimizer = EnsembleSGD(rate, weight_decay=decay)
    losses = train_ensemble(
        params, Factorization(targets.matrices, loss), optimizer, round(t_end / rate)
    )
    return targets, start, params, losses


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_four_equations_are_gradient_descent_from_an_unbalanced_start(decay):
    """The gap is O(learning rate): a tenth of the rate, a tenth of the gap."""
    gaps = []
    for rate in (1e-2, 1e-3):
        targets, start, end, losses = trained(rate, 3.0, decay=decay, imbalance=1.5)
        path = ps.rank_one_flow(start_of(start, targets), torch.tensor([0.0, 3.0]), decay=decay)
        state = start_of(end, targets)
        gaps.append(
            max(
                float((getattr(path, name)[:, 1] - getattr(state, name)).abs().max())
                for name in "uvpq"
            )
        )
        torch.testing.assert_close(path.loss[:, 0], losses[:, 0], rtol=1e-12, atol=0)
    assert gaps[0] < 0.05
    assert gaps[1] < 0.13 * gaps[0]


def test_four_equations_equal_a_general_integrator():
    s, decay = 1.3, 0.1
    y0 = [0.2, -0.05, 0.8, 1.7]

    def slope(_, y):
        u, v, p, q = y
        return [
            s * v - (v * v + q + decay) * u,
            s * u - (u * u + p + decay) * v,
            -2 * (v * v + q + decay) * p,
            -2 * (u * u + p + decay) * q,
        ]

    times = np.linspace(0, 12, 7)
    exact = solve_ivp(slope, (0, 12), y0, t_eval=times, rtol=1e-12, atol=1e-14).y
    start = ps.RankOneState(*(torch.tensor(value) for value in (*y0, s)))
    path = ps.rank_one_flow(start, torch.from_numpy(times), decay=decay)
    found = torch.stack([path.u, path.v, path.p, path.q]).numpy()
    np.testing.assert_allclose(found, exact, rtol=1e-7, atol=1e-9)


def test_growth_ends_on_the_branch_of_the_sign_of_u_plus_v():
    u, v = torch.tensor([0.1, -0.3]), torch.tensor([-0.05, 0.1])
    start = ps.RankOneState(u, v, torch.full((2,), 0.5), torch.full((2,), 0.5), torch.ones(2))
    path = ps.rank_one_flow(start, torch.tensor([40.0]))
    assert path.u.sign().flatten().tolist() == [1.0, -1.0]
    torch.testing.assert_close(path.u * path.v, torch.ones(2, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("decay", [0.0, 0.3, 1.0, 1.4])
@pytest.mark.parametrize("p0", [0.0, 0.99])
def test_the_closed_form_is_the_balanced_flow(decay, p0):
    times = torch.linspace(0, 15, 31)
    path = ps.balanced_growth(times, s=1.0, w0=0.01, p0=p0, decay=decay)
    start = ps.RankOneState(*(torch.tensor(x) for x in (0.1, 0.1, p0, p0, 1.0)))
    flow = ps.rank_one_flow(start, times, decay=decay)
    for name in "uvpq":
        torch.testing.assert_close(getattr(path, name), getattr(flow, name), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(path.loss, flow.loss, rtol=1e-7, atol=1e-9)


def test_aligned_and_irrelevant_part_keep_their_ratio_law_and_the_decay_is_algebraic():
    times = torch.linspace(0, 3, 13)
    for decay in (0.0, 0.25):
        path = ps.balanced_growth(times, s=1.0, w0=0.01, p0=0.99, decay=decay)
        ratio = path.u.square() / path.p
        torch.testing.assert_close(ratio, 0.01 / 0.99 * torch.exp(2 * times))
    nothing_grows = ps.balanced_growth(times, s=1.0, w0=0.0, p0=0.99)
    torch.testing.assert_close(nothing_grows.p, 1 / (1 / 0.99 + 2 * times))


def test_decay_lowers_the_end_as_the_closed_form_says():
    late = torch.tensor([400.0])
    for decay in (0.0, 0.3, 0.9):
        end = ps.balanced_growth(late, s=1.0, w0=1e-3, p0=1.0, decay=decay)
        assert end.u.square().item() == pytest.approx(1 - decay, rel=1e-9)
        assert end.loss.item() == pytest.approx(decay**2 / 2, abs=1e-12)
    assert ps.balanced_growth(late, s=1.0, w0=1e-3, p0=1.0, decay=1.2).u.item() < 1e-12
    assert math.isinf(ps.half_time(s=1.0, w0=1e-3, decay=1.0).item())


def test_nothing_overflows_long_after_the_growth():
    path = ps.balanced_growth(torch.tensor([1e4, 1e6]), s=3.0, w0=1e-8, p0=2.0)
    torch.testing.assert_close(path.u.square(), torch.tensor([3.0, 3.0]))
    assert path.p.tolist() == [0.0, 0.0]
    assert ps.balanced_growth(torch.tensor(1e6), s=3.0, w0=0.0, p0=2.0).p.item() > 0


def test_half_times_of_the_reference():
    assert ps.half_time(s=1.0, w0=1e-4).item() == pytest.approx(4.605, abs=5e-4)
    assert ps.half_time(s=1.0, w0=1e-6).item() == pytest.approx(6.908, abs=5e-4)
    assert ps.half_time(s=1.0, w0=0.01, p0=0.99).item() == pytest.approx(3.313, abs=5e-4)
    assert ps.half_time(s=1.0, w0=0.01).item() == pytest.approx(2.298, abs=5e-4)
    assert ps.half_time(s=1.0, w0=0.9).item() == 0.0


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_half_time_is_where_the_closed_form_crosses(share):
    s = torch.tensor([0.5, 1.0, 4.0])
    t = ps.half_time(s=s, w0=1e-3, p0=0.7, decay=0.1, share=share)
    path = ps.balanced_growth(t, s=s, w0=1e-3, p0=0.7, decay=0.1)
    torch.testing.assert_close(path.u.square(), share * (s - 0.1), rtol=1e-10, atol=0)


def test_orthogonal_modes_are_learned_one_by_one_as_saxe_says():
    """Each mode of a balanced aligned start follows its own logistic, in order of size."""
    S = torch.tensor([3.0, 1.5, 0.7])
    eye = torch.eye(6)[:, :3].expand(1, 6, 3)
    targets = LowRankTargets(eye * S.sqrt(), eye * S.sqrt())
    a0, rate = 1e-3, 1e-3
    params = {name: eye.clone() * a0**0.5 for name in "XY"}
    strengths = {}
    train_ensemble(
        params,
        Factorization(targets.matrices),
        EnsembleSGD(rate),
        6000,
        observe=lambda step, p: strengths.update(
            {step: ps.mode_strengths(p["X"], p["Y"], eye, eye)[0].clone()}
        ),
        observe_at=ps.every(500),
    )
    measured = torch.stack(list(strengths.values()))
    times = torch.tensor(list(strengths)).double().unsqueeze(1)
    expected = ps.saxe_mode(times, s=S, a0=a0, tau=1 / rate)
    assert (measured - expected).abs().max() < 5 * rate * S.max()
    halves = ps.first_crossing(measured.T.contiguous(), times[:, 0], S / 2)
    assert (halves.diff() > 0).all()


@pytest.mark.parametrize(
    ("loss", "rate", "bound"),
    [("squared_error", 1e-3, 1e-3), ("cross_entropy", 1e-1, 1e-3)],
)
def test_gradient_descent_keeps_the_conserved_matrix_but_for_the_rate(loss, rate, bound):
    drifts = []
    for factor in (1.0, 0.1):
        _, start, end, losses = trained(rate * factor, 200 * rate, rank=2, loss=loss)
        before = ps.conserved_matrix(start["X"], start["Y"])
        after = ps.conserved_matrix(end["X"], end["Y"])
        drifts.append(float((after - before).norm() / before.norm()))
        assert (losses[:, -1] < losses[:, 0]).all()
    assert drifts[0] < bound
    assert drifts[1] < 0.15 * drifts[0]


def test_decay_shrinks_the_conserved_matrix_exponentially():
    decay, t_end = 0.2, 2.0
    _, start, end, _ = trained(1e-3, t_end, rank=2, decay=decay)
    before = ps.conserved_matrix(start["X"], start["Y"])
    after = ps.conserved_matrix(end["X"], end["Y"])
    torch.testing.assert_close(after, before * math.exp(-2 * decay * t_end), rtol=0.02, atol=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: ps.rank_one_flow(s, torch.tensor([0.0, 0.0])), "times must increase"),
        (lambda s: ps.rank_one_flow(s, torch.tensor([-1.0])), "times must increase from 0"),
        (lambda s: ps.rank_one_flow(s, torch.ones(1), decay=-0.1), "decay must not be negative"),
        (lambda s: ps.balanced_growth(torch.ones(1), s=0.0, w0=0.1), "s must be positive"),
        (lambda s: ps.half_time(s=1.0, w0=0.0), "w0 and s must be positive"),
        (lambda s: ps.half_time(s=1.0, w0=0.1, share=1.0), "share is 1.0"),
    ],
)
def test_what_is_wrong_is_said(call, message):
    state = ps.RankOneState(*(torch.tensor(0.5),) * 4, torch.tensor(1.0))
    with pytest.raises(ValueError, match=message):
        call(state)
