"""Turning points and bumps equal SciPy's, and planted contests are told from their control."""

import numpy as np
import pytest
import torch
from scipy.signal import find_peaks

import phasescope as ps

pytestmark = pytest.mark.usefixtures("float64_default")


@pytest.mark.parametrize("prominence", [0.05, 0.25, 2.0])
def test_bumps_are_the_peaks_that_scipy_finds(prominence):
    generator = np.random.default_rng(0)
    series = generator.standard_normal((300, 60)).cumsum(1) * 0.2
    series[:50] = generator.random((50, 60)) * 3
    cosines = torch.from_numpy(series).view(50, 6, 60, 1).transpose(1, 2)
    bumps = ps.find_bumps(cosines, prominence=prominence)
    counts = np.zeros((50, 6), dtype=int)
    np.add.at(counts, (bumps.seed.numpy(), bumps.column.numpy()), 1)
    expected = [len(find_peaks(row, prominence=prominence)[0]) for row in series]
    assert counts.flatten().tolist() == expected
    assert bumps.count().tolist() == counts.sum(1).tolist()
    assert (bumps.start < bumps.peak).all()
    assert (bumps.peak < bumps.end).all()
    assert (bumps.prominence >= prominence).all()


def test_turning_points_alternate_and_move_by_the_threshold():
    series = torch.randn(100, 80, generator=torch.Generator().manual_seed(0)).cumsum(1)
    turns = ps.turning_points(series, 1.5)
    same = turns.series[1:] == turns.series[:-1]
    assert (turns.is_trough[1:] != turns.is_trough[:-1])[same].all()
    assert (turns.value.diff().abs()[same] >= 1.5).all()
    assert (turns.time.diff()[same] > 0).all()
    torch.testing.assert_close(turns.value, series[turns.series, turns.time])


def test_a_series_that_hardly_moves_has_no_turning_points():
    turns = ps.turning_points(torch.tensor([[0.0, 0.1, 0.0], [1.0, 1.0, 1.0]]), 0.5)
    assert len(turns.series) == 0
    only_up = ps.turning_points(torch.tensor([[0.0, 1.0, 2.0]]), 0.5)
    assert (only_up.is_trough.tolist(), only_up.is_end.tolist()) == ([True, False], [False, True])


def test_equal_peaks_with_a_shallow_dip_between_them_are_one():
    turns = ps.turning_points(torch.tensor([[0.0, 1.0, 0.9, 1.0, 0.0], [0, 1, 0.2, 1, 0]]), 0.5)
    peaks = ~turns.is_trough
    assert turns.series[peaks].tolist() == [0, 1, 1]
    assert turns.time[peaks].tolist() == [1, 1, 3]


def planted(n_seeds, rival):
    """Column 0 turns to target 0 and backs off; column 1 takes the target if it is a rival."""
    t = torch.linspace(0, 1, 50)
    back_off = 0.1 + 0.7 * torch.exp(-(((t - 0.4) / 0.15) ** 2))
    take = 0.1 + 0.85 * torch.sigmoid((t - 0.5) * 20)
    flat = torch.full_like(t, 0.1)
    cosines = torch.full((n_seeds, 50, 3, 3), 0.1)
    cosines[:, :, 0, 0] = back_off
    cosines[:, :, 1, 0] = take if rival else flat
    return cosines


def test_a_planted_contest_is_seen_and_its_control_and_a_lone_bump_are_not():
    for rival in (True, False):
        cosines = planted(20, rival)
        bumps = ps.find_bumps(cosines)
        assert bumps.count().tolist() == [1] * 20
        assert ps.contested(cosines, bumps).all().item() is rival
        others = ps.other_targets(bumps, 3, generator=torch.Generator().manual_seed(0))
        assert (others != bumps.target).all()
        assert not ps.contested(cosines, bumps, target=others).any()


def test_a_column_that_ends_behind_has_not_taken_the_target():
    cosines = planted(1, True)
    cosines[0, :, 0, 0] += 0.9 * torch.linspace(0, 1, 50) ** 8  # it comes back and stays ahead
    bumps = ps.find_bumps(cosines)
    at_end = cosines[0, bumps.end[0], :, 0]
    assert ps.contested(cosines, bumps)[0].item() == (at_end[1] > at_end[0]).item()


def test_one_column_is_never_contested_and_counts_can_be_restricted():
    cosines = planted(3, True)[:, :, :1]
    bumps = ps.find_bumps(cosines)
    assert not ps.contested(cosines, bumps).any()
    assert bumps.count(bumps.seed == 1).tolist() == [0, 1, 0]


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="threshold must be positive"):
        ps.turning_points(torch.zeros(1, 3), 0.0)
    with pytest.raises(ValueError, match="must be finite"):
        ps.turning_points(torch.tensor([[0.0, float("nan")]]), 0.5)
    bumps = ps.find_bumps(planted(1, True))
    with pytest.raises(ValueError, match="n_targets is 1"):
        ps.other_targets(bumps, 1)


@pytest.mark.usefixtures("unchecked_types")
def test_a_series_without_its_axes_is_refused_with_what_to_write():
    with pytest.raises(
        ValueError, match=r"axes seed, time, column and target, .* x.view\(1, -1, 1, 1\)"
    ):
        ps.find_bumps(torch.rand(2, 50))
