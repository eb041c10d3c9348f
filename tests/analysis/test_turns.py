"""Angles and curvature against closed forms; turns against paths that have some, or none."""

import math

import pytest
import torch

from phasescope.analysis.gram import gram
from phasescope.analysis.turns import curvature, turning_angles, turning_test


def circle(radius: float, n: int = 40) -> torch.Tensor:
    t = torch.linspace(0, 3, n, dtype=torch.float64)
    return radius * torch.stack([t.cos(), t.sin()], dim=1)


@pytest.mark.parametrize("window", [1, 4])
def test_a_circle_has_one_curvature_and_turns_by_equal_angles(window: int):
    found = curvature(circle(5.0), window)[window:-window]
    torch.testing.assert_close(found, torch.full_like(found, 0.2), rtol=1e-10, atol=0)
    angles = turning_angles(circle(5.0), window)[window:-window]
    expected = torch.full_like(angles, 3 / 39 * window)
    torch.testing.assert_close(angles, expected, rtol=1e-9, atol=0)


def test_angles_of_a_path_that_goes_on_turns_and_comes_back():
    path = torch.tensor([[0.0, 0], [1, 0], [2, 0], [2, 1], [2, 0]])
    assert turning_angles(path, 1)[1:4].tolist() == pytest.approx([0, math.pi / 2, math.pi])
    assert turning_angles(path, 1)[[0, 4]].isnan().all()
    assert curvature(path, 1)[1].item() == 0
    assert math.isnan(turning_angles(torch.tensor([[0.0, 0], [0, 0], [1, 0]]), 1)[1])


def test_angles_and_curvature_do_not_depend_on_where_the_path_lies():
    generator = torch.Generator().manual_seed(0)
    path = torch.randn(30, 3, generator=generator, dtype=torch.float64).cumsum(0)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    moved = 2 * path @ rotation + 7
    inside = slice(3, -3)
    torch.testing.assert_close(turning_angles(moved, 3)[inside], turning_angles(path, 3)[inside])
    torch.testing.assert_close(2 * curvature(moved, 3)[inside], curvature(path, 3)[inside])
    both = turning_angles(torch.stack([path, moved]), 3)
    torch.testing.assert_close(both[1, inside], turning_angles(path, 3)[inside])


def bent(degrees: float, *, n: int = 60, noise: float = 0.1, seed: int = 0):
    """Half of the steps straight on, then at an angle; noise in 50 more dimensions."""
    t, a = torch.arange(float(n)), math.radians(degrees)
    later = (t - n // 2).clamp(min=0)
    plane = torch.stack([t.clamp(max=n // 2) + math.cos(a) * later, math.sin(a) * later], dim=1)
    walk = torch.randn(n, 50, generator=torch.Generator().manual_seed(seed)) * noise
    return gram(torch.cat([plane, walk.cumsum(0)], dim=1).double())


@pytest.mark.parametrize("seed", range(3))
def test_a_sharp_turn_is_found_where_it_is(seed: int):
    found = turning_test(bent(150, seed=seed), window=5, n_draws=99)
    assert found.turns == (30,)
    assert found.p <= 0.02
    assert float(found.angles[30]) == pytest.approx(math.radians(150), abs=0.15)


def test_a_straight_path_has_no_turn_though_its_components_bend():
    found = turning_test(bent(0), window=5, n_draws=99)
    assert found.turns == ()
    assert found.p > 0.5


def test_dimensions_are_those_of_the_noise_whatever_the_drift():
    found = turning_test(bent(0), window=5, n_draws=19)
    assert 35 < found.n_dimensions < 75
    assert turning_test(bent(0), window=5, n_draws=19, n_dimensions=7).n_dimensions == 7


def test_random_walks_seldom_turn():
    """At nominal .05, with steps that decay to a twentieth: at most 8 of 60."""
    turned = 0
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        steps = torch.randn(50, 200, generator=generator).double()
        steps = steps * torch.linspace(1, 0.05, 50, dtype=torch.float64)[:, None]
        found = turning_test(gram(steps.cumsum(0)), window=5, n_draws=59, seed=1000 + seed)
        turned += bool(found.turns)
    assert turned <= 8


def test_walks_have_the_shares_of_the_closed_form():
    generator = torch.Generator().manual_seed(0)
    walk = torch.randn(80, 4000, generator=generator).double().cumsum(0)
    found = turning_test(gram(walk), window=5, n_draws=19)
    expected = torch.tensor([6 / math.pi**2, 6 / (2 * math.pi) ** 2]).double()
    torch.testing.assert_close(found.null_shares.mean(0), expected, atol=0.02, rtol=0)
    torch.testing.assert_close(found.shares, expected, atol=0.05, rtol=0)


def test_what_cannot_be_tested_is_refused():
    with pytest.raises(ValueError, match=r"window of at least 1 point and at most 2 .* 5 points"):
        turning_angles(torch.ones(5, 2), 3)
    with pytest.raises(ValueError, match=r"at least 19 draws.*n_draws=5.*window=5 and 60 points"):
        turning_test(bent(0), window=5, n_draws=5)
    with pytest.raises(ValueError, match=r"2 . window . 3 points, but .*window=30 and 60 points"):
        turning_test(bent(0), window=30)
    still = torch.arange(30.0)[:, None].clamp(max=20) * torch.randn(1, 4)
    path = torch.cat([still, torch.arange(30.0).clamp(max=20)[:, None] ** 2], dim=1)
    with pytest.raises(ValueError, match=r"stands still after step 20. Leave out points"):
        turning_test(gram(path.double()), window=3)


@pytest.mark.parametrize("n_dimensions", [0, -5])
def test_noise_of_no_dimension_is_refused(n_dimensions: int):
    path = torch.randn(60, 10, generator=torch.Generator().manual_seed(0)).double().cumsum(0)
    with pytest.raises(ValueError, match=f"but n_dimensions={n_dimensions} arrived"):
        turning_test(gram(path), window=3, n_dimensions=n_dimensions, n_draws=19)
