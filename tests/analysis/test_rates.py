"""Plateaus and S-curves of losses whose answers are known."""

import math

import pytest
import torch

import phasescope as ps

pytestmark = pytest.mark.usefixtures("float64_default")

TIMES = torch.linspace(0, 20, 2001, dtype=torch.float64)


def staged(*rates):
    """A loss whose rate is piecewise constant over equal stretches of time."""
    stretch = len(TIMES) // len(rates) + 1
    rate = torch.tensor(rates).repeat_interleave(stretch)[: len(TIMES) - 1]
    logs = -(rate * TIMES.diff()).cumsum(0)
    return torch.cat([torch.zeros(1), logs]).exp()


def test_an_exponential_has_no_plateau():
    curve = ps.s_curves(torch.exp(-0.3 * TIMES), TIMES)
    assert curve.s_ratio.item() == pytest.approx(1, abs=1e-9)
    assert curve.plateau_length.item() == 0
    assert curve.n_rises.item() == 0


def test_ratio_length_and_number_of_plateaus_are_those_that_were_planted():
    losses = torch.stack([staged(0.02, 0.02, 0.4, 0.4), staged(0.3, 0.01, 0.4, 0.02)])
    curves = ps.s_curves(losses, TIMES, floor=1e-9)
    torch.testing.assert_close(curves.s_ratio, torch.tensor([20.0, 40.0]))
    torch.testing.assert_close(curves.plateau_length, torch.tensor([10.0, 5.0]), rtol=0, atol=0.06)
    assert curves.n_rises.tolist() == [1, 1]
    twice = ps.s_curves(staged(0.3, 0.01, 0.3, 0.01, 0.4, 0.4), TIMES, floor=1e-9)
    assert twice.n_rises.item() == 2
    # The second stretch of the first curve: inside; its last one: outside.
    assert curves.plateau[0, 500].item()
    assert not curves.plateau[0, 1500].item()


def test_a_fast_start_hides_no_plateau():
    curves = ps.s_curves(
        torch.stack([staged(0.5, 0.01, 0.4), staged(0.5, 0.3, 0.1)]), TIMES, floor=1e-9
    )
    torch.testing.assert_close(curves.s_ratio, torch.tensor([40.0, 1.0]))
    assert curves.n_rises.tolist() == [1, 0]


def test_what_happens_below_the_floor_does_not_count():
    loss = staged(0.4, 0.4, 0.4, 40.0)
    assert ps.s_curves(loss, TIMES, floor=0.1).s_ratio.item() == pytest.approx(1)
    assert ps.s_curves(loss, TIMES, floor=1e-30).s_ratio.item() == pytest.approx(100)
    noisy = loss.clone()
    noisy[-100:] = math.nan  # rounding has eaten it
    assert ps.s_curves(noisy, TIMES, floor=0.1).s_ratio.item() == pytest.approx(1)


def test_the_logistic_growth_has_the_ratio_of_its_closed_form():
    """L = (s - w)²/2: the rate is 4 w, from w0 on up to s."""
    w = ps.saxe_mode(TIMES, s=1.0, a0=1e-3)
    curve = ps.s_curves((1 - w) ** 2 / 2, TIMES, floor=1e-4)
    assert curve.s_ratio.item() == pytest.approx(0.99 / 1e-3, rel=0.03)


def test_a_diverged_curve_is_nan_and_the_others_are_not():
    losses = torch.stack([staged(0.02, 0.4), torch.full_like(TIMES, math.nan)])
    curves = ps.s_curves(losses, TIMES, floor=1e-9)
    assert curves.s_ratio.isnan().tolist() == [False, True]


def test_a_rise_of_the_loss_counts_as_standing_still_and_a_window_smooths_it():
    loss = staged(0.4, 0.4)
    loss[300:302] *= 1.05
    assert ps.s_curves(loss, TIMES, floor=1e-9).s_ratio.item() == pytest.approx(1e6)
    assert ps.s_curves(loss, TIMES, floor=1e-9, window=100).s_ratio.item() < 2


def test_crossings_are_interpolated():
    values = torch.tensor([[0.0, 1.0, 3.0, 2.0], [5.0, 1.0, 0.5, 0.25], [0.0, 0.1, 0.2, 0.3]])
    times = torch.tensor([0.0, 1.0, 2.0, 4.0])
    assert ps.first_crossing(values, times, 2.0).nan_to_num(-1).tolist() == [1.5, 0.0, -1.0]
    fallen = ps.first_crossing(values, times, torch.tensor([-1.0, 0.75, -1.0]), falling=True)
    assert fallen.nan_to_num(-1).tolist() == [-1.0, 1.5, -1.0]


def test_what_is_wrong_is_said(unchecked_types):
    with pytest.raises(ValueError, match="there are 3 losses, 2 times and a window of 1"):
        ps.s_curves(torch.ones(3), torch.arange(2.0))
    with pytest.raises(ValueError, match="a window of 3"):
        ps.s_curves(torch.ones(3), torch.arange(3.0), window=3)
    with pytest.raises(ValueError, match="3 values and 2 times"):
        ps.first_crossing(torch.ones(3), torch.arange(2.0), 1.0)


def test_a_loss_that_stands_still_or_ends_at_zero_has_no_rise():
    t = torch.arange(6.0)
    still = ps.s_curves(torch.ones(6), t)
    assert (still.s_ratio.item(), still.plateau_length.item(), still.n_rises.item()) == (1, 0, 0)
    zero = ps.s_curves(torch.tensor([1, 0.8, 0.5, 0.1, 0.0, 0.0]), t)
    small = ps.s_curves(torch.tensor([1, 0.8, 0.5, 0.1, 0.1, 0.1]), t[:6])
    assert math.isfinite(zero.s_ratio.item())
    assert zero.n_rises.item() == 1
    # Rates up to the last one above zero: ln 5 over the first, ln 1.25.
    assert zero.s_ratio.item() == pytest.approx(math.log(5) / math.log(1.25), rel=1e-5)
    assert small.s_ratio.item() == pytest.approx(zero.s_ratio.item(), rel=1e-5)
