"""The detector scored on planted series, and on series without spikes."""

import math

import numpy as np
import pytest
import torch

from phasescope.analysis.adam_scales import adam_scales
from phasescope.analysis.spikes import (
    Spikes,
    around_spikes,
    drift_after,
    falling_share,
    find_spikes,
    recovery,
)

N = 20_000
PLANTED = torch.arange(1_000, 19_000, 600)  # 30 of them, away from the grok


def trend(noise: float, seed: int) -> torch.Tensor:
    """Log10 of a loss that is memorised, waits, groks at 10,300 and creeps down, with noise."""
    t = np.arange(N)
    generator = np.random.default_rng(seed)
    log = -3 * (1 - np.exp(-t / 150)) - 4 / (1 + np.exp(-(t - 10_300) / 60)) - t / 1e4
    return torch.from_numpy(log + noise * generator.standard_normal(N))


def spiked(noise: float, seed: int, sign: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same with spikes of half a decade to two, which rise at once and decay."""
    generator = np.random.default_rng(seed + 1)
    log = trend(noise, seed)
    heights = torch.from_numpy(generator.uniform(0.5, 2.0, len(PLANTED)))
    decays = generator.uniform(3.0, 15.0, len(PLANTED))
    for at, height, decay in zip(PLANTED.tolist(), heights.tolist(), decays, strict=True):
        after = torch.arange(100)
        log[at : at + 100] += sign * height * torch.exp(-after / decay)
    return 10**log, heights


def score(spikes: Spikes) -> tuple[float, int]:
    """Share of the planted spikes that have one of ours within 3 steps, and how many do not."""
    near = (spikes.peak[:, None] - PLANTED).abs() <= 3
    return near.any(0).double().mean().item(), int((~near.any(1)).sum())


@pytest.mark.parametrize(("direction", "sign"), [("up", 1), ("down", -1)])
def test_planted_spikes_are_found_and_nothing_else_is(direction: str, sign: int):
    for seed in range(3):
        loss, heights = spiked(0.03, seed, sign)
        spikes = find_spikes(torch.arange(N), loss, direction)
        assert score(spikes) == (1.0, 0)
        torch.testing.assert_close(spikes.height, heights, atol=0.12, rtol=0)
        assert spikes.direction == direction
        assert len(find_spikes(torch.arange(N), loss, "down" if sign == 1 else "up")) == 0


def test_widths_are_those_at_half_height():
    t = torch.arange(2_000)
    loss = 10 ** (torch.exp(-((t - 700).double() ** 2) / (2 * 12.0**2)) - t / 1e4)
    spikes = find_spikes(t, loss)
    assert spikes.peak.tolist() == [700]
    full_width = 2 * 12 * math.sqrt(2 * math.log(2))
    assert spikes.width.item() == pytest.approx(full_width, abs=2)
    sparse = find_spikes(t[::4], loss[::4], window=51)
    assert sparse.width.item() == pytest.approx(full_width, abs=8)


def test_series_without_spikes_have_none():
    alarms = 0
    for seed in range(3):
        generator = np.random.default_rng(seed)
        quiet = trend(0.05, seed)
        walk = torch.from_numpy(np.cumsum(0.02 * generator.standard_normal(N)))
        steps = torch.cat([torch.zeros(N // 2), torch.full((N // 2,), -3.0)]).double()
        for log in (quiet, walk, steps + 0.02 * torch.from_numpy(generator.standard_normal(N))):
            for direction in ("up", "down"):
                alarms += len(find_spikes(torch.arange(N), 10**log, direction))
    assert alarms == 0  # of 18 series of 20,000 steps


def test_neighbours_that_overlap_at_half_height_are_one_spike():
    t = torch.arange(1_000)
    log = torch.zeros(1_000, dtype=torch.float64)
    for at, height in ((500, 1.0), (506, 1.5), (600, 1.0)):
        log += height * torch.exp(-((t - at).double() ** 2) / (2 * 3.0**2))
    spikes = find_spikes(t, 10**log)
    assert len(spikes) == 2
    assert (spikes.peak - torch.tensor([506, 600])).abs().max() <= 1


def test_three_that_overlap_at_half_height_are_one_spike():
    log = torch.zeros(2_000, dtype=torch.float64)
    log[1_000:1_015] = 0.28  # below the least height, above half of the last one's
    log[1_000:1_003] = log[1_006:1_009] = 2.0
    log[1_012:1_015] = 0.5
    spikes = find_spikes(torch.arange(2_000), 10**log)
    assert (spikes.start.tolist(), spikes.end.tolist()) == ([1_000], [1_014])


def test_no_spikes_are_an_empty_result():
    steps = torch.arange(300)
    spikes = find_spikes(steps, torch.ones(300))
    assert len(spikes) == 0
    assert spikes.width.shape == (0,)
    assert len(drift_after(steps, torch.ones(300), spikes).slopes) == 0
    assert len(recovery(steps, torch.ones(300), spikes).change) == 0
    assert around_spikes(steps, torch.ones(300), spikes, before=1, after=1).shape == (0, 3)


def test_a_planted_drift_behind_spikes_is_measured_and_its_control_is_not_touched():
    t = torch.arange(12_000)
    log = -t.double() / 4_000  # falls by .25 decades per 1,000 steps
    starts = range(1_000, 12_000, 1_000)
    for at in starts:
        log[at : at + 4] += 1
        log[at + 4 : at + 400] += torch.arange(396).double() / 1_000  # rises by 1 per 1,000 on top
    steps, loss = t, 10**log
    spikes = find_spikes(steps, loss, min_height=0.5)
    assert len(spikes) == len(starts)
    drift = drift_after(steps, loss, spikes, horizon=380)
    assert drift.slopes.median().item() == pytest.approx(0.75, abs=0.02)
    assert drift.control.median().item() == pytest.approx(-0.25, abs=0.02)
    assert len(drift.control) > 20


def test_recovery_tells_what_stays():
    steps = torch.arange(0, 1_000, 10)
    at = torch.tensor([200, 600])
    spikes = Spikes("up", at, at + 2, at + 9, torch.ones(2, dtype=torch.float64))
    values = torch.zeros(100, dtype=torch.float64)
    values[20:23] = 5.0  # comes back
    values[60:] = -2.0  # stays
    found = recovery(steps, values, spikes, horizon=200)
    assert found.change.tolist() == [5.0, -2.0]
    assert found.lasting.tolist() == [0.0, -2.0]
    assert found.steps.tolist() == [21.0, math.inf]
    cut = recovery(steps[:65], values[:65], spikes, horizon=200)
    assert math.isnan(cut.lasting[1])
    assert math.isnan(cut.steps[1])
    leaves = torch.where(steps >= 220, 3.0, 0.0)  # only behind the end, and stays
    wide = Spikes("up", at, at + 2, at + 15, torch.ones(2, dtype=torch.float64))
    found = recovery(steps[:60], leaves[:60], wide, horizon=200)
    assert (found.change[0], found.steps[0]) == (3, math.inf)
    first = Spikes("up", at[:1] * 0, at[:1] * 0, at[:1] * 0, torch.ones(1, dtype=torch.float64))
    assert math.isnan(recovery(steps, values, first).change[0])


def test_cut_outs_are_aligned_at_the_start_and_end_in_nan():
    at = torch.tensor([1, 8])
    spikes = Spikes("up", at, at, at, torch.ones(2, dtype=torch.float64))
    cut = around_spikes(torch.arange(0, 10, 1), torch.arange(10.0), spikes, before=2, after=1)
    torch.testing.assert_close(
        cut,
        torch.tensor([[math.nan, 0, 1, 2], [6, 7, 8, 9]], dtype=torch.float64),
        equal_nan=True,
    )


def test_falling_share_of_a_walk_is_a_half():
    walk = torch.randn(10_000, generator=torch.Generator().manual_seed(0)).cumsum(0)
    assert falling_share(walk) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_loss_without_logarithm_is_refused(bad: float):
    loss = torch.ones(10)
    loss[3] = bad
    with pytest.raises(ValueError, match=r"at step 3 it is .*use float64"):
        find_spikes(torch.arange(10), loss)


def test_an_excursion_that_has_not_come_back_at_the_end_is_none():
    loss = torch.full((1000,), 0.01)
    loss[998:] *= 30
    assert len(find_spikes(torch.arange(1000), loss)) == 0
    loss = torch.cat([loss, torch.full((2,), 0.01)])
    assert find_spikes(torch.arange(1002), loss).start.tolist() == [998]


def test_the_share_of_falling_steps_needs_finite_losses():
    with pytest.raises(ValueError, match="the loss must be finite, but at step 2 it is nan"):
        falling_share([3.0, 2.0, math.nan, 1.0])


def test_other_arguments_are_refused(unchecked_types: None):
    steps, loss = torch.arange(10), torch.ones(10)
    with pytest.raises(ValueError, match="'up' or 'down', but 'sideways'"):
        find_spikes(steps, loss, "sideways")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="odd number of evaluations from 3 up, not 10"):
        find_spikes(steps, loss, window=10)
    with pytest.raises(ValueError, match="10 values and 9 steps"):
        find_spikes(steps[1:], loss)


def test_scales_are_those_of_the_optimizer():
    generator = torch.Generator().manual_seed(0)
    w = torch.nn.Parameter(torch.randn(50, dtype=torch.float64, generator=generator))
    settings = {"lr": 0.01, "betas": (0.9, 0.98), "eps": 1e-3}
    optimizer = torch.optim.Adam([w], **settings)
    for step in range(1, 4):
        w.grad = torch.randn(50, dtype=torch.float64, generator=generator) * 10.0**-step
        before = w.detach().clone()
        optimizer.step()
        state = optimizer.state[w]
        scales = adam_scales(
            w.grad,
            state["exp_avg"],
            state["exp_avg_sq"],
            step=step,
            learning_rate=0.01,
            betas=(0.9, 0.98),
            epsilon=1e-3,
        )
        assert scales.step_norm == pytest.approx((w.detach() - before).norm().item(), rel=1e-10)
        assert scales.gradient_norm == pytest.approx(w.grad.norm().item())
        assert scales.normalised <= 1.5
    tiny = torch.full((4,), 1e-12, dtype=torch.float64)
    below = adam_scales(tiny, 0.1 * tiny, 0.001 * tiny**2, step=1, learning_rate=1.0)
    assert below.share_below_epsilon == 1.0
    assert below.normalised == pytest.approx(1e-4, rel=1e-3)


def test_impossible_states_are_refused():
    one = torch.ones(1)
    with pytest.raises(ValueError, match="from 1 up"):
        adam_scales(one, one, one, step=0, learning_rate=1.0)
    with pytest.raises(ValueError, match="cannot be negative"):
        adam_scales(one, one, -one, step=1, learning_rate=1.0)
