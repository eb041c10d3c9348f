import itertools
import math
import time

import numpy as np
import pytest
import torch

from phasescope.analysis.changepoints import (
    SegmentCosts,
    Shape,
    change_points,
    critical_penalty,
    optimal_partition,
    penalty_for,
    simulate_penalties,
)
from phasescope.analysis.log_blocks import LogBlocks, log_blocks


def blocks_of(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> LogBlocks:
    places = torch.arange(len(x))
    return LogBlocks(
        torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(counts), places, places
    )


def residuals(x: np.ndarray, y: np.ndarray, w: np.ndarray, shape: Shape) -> float:
    """Squared residuals of one segment, by the textbook."""
    columns = [np.ones_like(x)] + ([x] if shape == "linear" else [])
    X = np.sqrt(w)[:, None] * np.stack(columns, 1)
    beta = np.linalg.lstsq(X, np.sqrt(w) * y, rcond=None)[0]
    return float(np.square(np.sqrt(w) * y - X @ beta).sum())


@pytest.mark.parametrize("shape", ["constant", "linear"])
@pytest.mark.parametrize("n", [7, 12])
def test_the_partition_equals_brute_force(shape: Shape, n: int):
    generator = np.random.default_rng(n)
    for seed in range(2):
        x, w = np.sort(generator.normal(size=n)), generator.integers(1, 9, size=n)
        y = generator.normal(size=n) + 3.0 * (np.arange(n) > n // 2)
        penalty = (1.0, 8.0)[seed]
        costs = SegmentCosts(blocks_of(x, y, w), shape)
        smallest = costs.smallest
        best, best_ends = math.inf, []
        for k in range(n):
            for cuts in itertools.combinations(range(1, n), k):
                ends = [*cuts, n]
                pieces = list(zip([0, *cuts], ends, strict=True))
                if min(b - a for a, b in pieces) < smallest:
                    continue
                total = sum(residuals(x[a:b], y[a:b], w[a:b], shape) + penalty for a, b in pieces)
                if total < best - 1e-9:
                    best, best_ends = total, ends
        assert optimal_partition(costs, penalty) == best_ends


def test_costs_of_segments_equal_least_squares():
    generator = np.random.default_rng(0)
    x, y = np.linspace(3, 9, 30), 1e3 + generator.normal(size=30)
    w = generator.integers(1, 100, size=30)
    for shape in ("constant", "linear"):
        costs = SegmentCosts(blocks_of(x, y, w), shape)
        for a, b in ((0, 30), (4, 9), (11, 29)):
            expected = residuals(x[a:b], y[a:b], w[a:b].astype(float), shape)
            assert float(costs(a, b)[0]) == pytest.approx(expected, rel=1e-8)


def test_the_critical_penalty_is_where_the_last_change_goes():
    generator = np.random.default_rng(0)
    y = generator.normal(size=40) + 2.0 * (np.arange(40) > 25)
    costs = SegmentCosts(blocks_of(np.arange(40.0), y, np.ones(40, np.int64)), "constant")
    critical = critical_penalty(costs)
    assert len(optimal_partition(costs, critical * 0.999)) > 1
    assert len(optimal_partition(costs, critical * 1.001)) == 1


def test_planted_changes_lie_in_their_intervals():
    steps = torch.arange(20_000)
    tau = torch.log1p(steps.double())
    kinks = math.log(500), math.log(5_000)
    curve = curve_at(tau, kinks)
    inside = extra = 0
    for seed in range(5):
        noise = 0.3 * torch.randn(20_000, generator=torch.Generator().manual_seed(seed))
        found = change_points(steps, curve + noise)
        assert len(found) >= 2
        extra += len(found) - 2
        for place, slope in ((500, -1.5), (5_000, 1.6)):
            i = int((found.steps.log() - math.log(place)).abs().argmin())
            inside += int(found.low[i] <= place <= found.high[i])
            assert abs(float(found.slope_changes[i]) - slope) < 0.35
        assert abs(found.blocks.noise - 0.3) < 0.1
        assert float((found.fitted - curve_at(found.blocks.tau, kinks)).abs().max()) < 0.4
    assert extra <= 2  # 5 % each: three or more with probability .001
    assert inside >= 7  # of 10 at 95 %: fewer with probability .001


def curve_at(x: torch.Tensor, kinks: tuple[float, float]) -> torch.Tensor:
    """Three lines in logarithmic time."""
    return 4 - 0.2 * x - 1.5 * (x - kinks[0]).clamp(min=0) + 1.6 * (x - kinks[1]).clamp(min=0)


def test_a_jump_is_placed_to_the_block_and_curves_without_noise_are_cut_exactly():
    steps = torch.arange(0, 2_000, 2)
    found = change_points(steps, (steps >= 700).double(), shape="constant", n_blocks=300)
    assert len(found) == 1
    assert found.low[0] <= 700 <= found.high[0]
    assert found.steps[0] == 700
    assert float(found.jumps[0]) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("late", [False, True])
def test_a_curve_that_stands_still_for_most_of_the_time_has_the_noise_of_the_rest(late: bool):
    generator = torch.Generator().manual_seed(0)
    steps = torch.arange(0, 20_000, 5)
    noisy = 0.6 + 0.03 * torch.randn(4_000, generator=generator, dtype=torch.float64)
    values = torch.where(steps >= 3_000 if late else steps < 300, noisy, 0.0 if late else 1.0)
    assert log_blocks(steps, values, 400).noise == pytest.approx(0.03, rel=0.25)
    found = change_points(steps, values, shape="constant")
    assert len(found) == 1
    assert abs(int(found.steps[0]) - (3_000 if late else 300)) <= 30
    assert log_blocks(steps, (steps >= 300).double(), 400).noise == 0


def test_blocks_are_means_over_logarithmic_time():
    steps = torch.arange(5_000)
    values = torch.randn(5_000, generator=torch.Generator().manual_seed(0)).double()
    blocks = log_blocks(steps, values, 50)
    i = 30
    a, b = int(blocks.first[i]), int(blocks.last[i])
    assert int(blocks.counts[i]) == b - a + 1
    torch.testing.assert_close(blocks.values[i], values[a : b + 1].mean())
    torch.testing.assert_close(blocks.tau[i], torch.log1p(steps[a : b + 1].double()).mean())
    assert int(blocks.first[i + 1]) == b + 1
    draws = torch.randn(20, 5_000, generator=torch.Generator().manual_seed(1))
    noise = [log_blocks(steps, draw, 400).noise for draw in draws]
    assert abs(sum(noise) / 20 - 1) < 0.07  # four standard errors


def test_false_alarms_are_as_frequent_as_promised():
    """A fresh seed against the table: 5 % of 100 curves, 99.9 % of binomials below 14."""
    for shape in ("constant", "linear"):
        found = simulate_penalties(50, shape, n_draws=100, seed=99)
        false = int((found > penalty_for(50, shape, 0.05)).sum())
        assert false <= 13


def test_a_hundred_thousand_points_take_less_than_two_seconds():
    steps = torch.arange(100_000)
    curve = torch.randn(100_000, generator=torch.Generator().manual_seed(0)) - 2 * (steps > 30_000)
    start = time.process_time()
    found = change_points(steps, curve, shape="constant")
    assert time.process_time() - start < 2
    assert len(found) == 1
    assert abs(float(found.steps[0]) - 30_000) < 300
    assert float(found.jumps[0]) == pytest.approx(-2, abs=0.1)


def test_bad_input_is_named(unchecked_types: None):
    steps = torch.arange(100)
    flat = torch.zeros(100)
    with pytest.raises(ValueError, match="at step 7 it is nan"):
        change_points(steps, torch.where(steps == 7, torch.nan, 0.0))
    with pytest.raises(ValueError, match="'constant' or 'linear', but 'cubic'"):
        change_points(steps, flat, shape="cubic")  # pyright: ignore
    with pytest.raises(ValueError, match=r"false_alarms must be one of \[0\.01, 0\.05\]"):
        penalty_for(100, "linear", 0.5)
    with pytest.raises(ValueError, match="at least 6 blocks"):
        change_points(steps[:4], flat[:4])
    with pytest.raises(ValueError, match="steps must not be negative"):
        log_blocks(steps - 5, flat)
