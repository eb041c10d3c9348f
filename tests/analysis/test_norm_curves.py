import math

import pytest
import torch

from phasescope.analysis.norm_curves import norm_shapes

STEPS = torch.arange(2000.0)


def fall(depth: float, scale: float) -> torch.Tensor:
    """log₂ of a norm that falls by `depth`, exponentially within `scale` steps."""
    return -depth * (1 - torch.exp(-STEPS / scale))


def bump(height: float, at: float, width: float) -> torch.Tensor:
    return height * torch.exp(-((STEPS - at) ** 2) / (2 * width**2))


def shapes(*curves: torch.Tensor, noise: float = 0.0):
    y = torch.stack(curves)
    y = y + noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    return norm_shapes(2.0**y)


def test_planted_drops_rises_and_second_falls_are_found():
    found = shapes(
        fall(4, 30),
        fall(4, 30) + 1.5 * STEPS / 2000,  # rises until the end
        fall(4, 30) + bump(2, 1000, 150),  # rises and falls again
        noise=0.3,
    )
    # a block of 100 steps leaves a tenth of the noise
    # and the mean of the first five values lies .26 below the first
    assert found.drop.tolist() == pytest.approx([3.74, 3.72, 3.74], abs=0.25)
    assert found.rise.tolist() == pytest.approx([0.1, 1.35, 1.95], abs=0.2)
    assert found.double_descent.tolist() == pytest.approx([0.0, 0.0, 1.95], abs=0.2)
    assert found.second_fall[2].item() == pytest.approx(1.95, abs=0.2)
    assert found.noise.tolist() == pytest.approx([0.3] * 3, rel=0.1)


def test_the_time_of_the_drop_is_half_way_down():
    times = (40.0, 160.0)
    found = shapes(*(fall(4, t) for t in times))
    # half of the drop is over after ln 2 time scales; the average lags 11.5 samples behind
    expected = [t * math.log(2) + 11.5 for t in times]
    assert found.half_drop.tolist() == pytest.approx(expected, abs=8)
    rising = shapes(STEPS / 500)
    assert math.isnan(rising.half_drop.item())
    assert rising.drop.item() < 0


def test_monotonic_curves_have_no_reversal():
    found = shapes(fall(4, 100), fall(4, 100) + bump(1, 1200, 150), STEPS / 1000)
    assert found.reversal[0].item() == 0
    assert found.reversal[1].item() == pytest.approx(0.25, abs=0.03)
    assert found.reversal[2].item() == math.inf


def test_movement_is_that_of_the_curve_and_not_of_its_noise():
    flat = shapes(torch.zeros(2000), torch.zeros(2000), noise=0.5)
    drifting = shapes(fall(4, 20) + STEPS / 1000, noise=0.5)
    assert flat.movement(100).max().item() < 0.06  # √2 · .5/10 without the subtraction
    assert drifting.movement(100).item() == pytest.approx(0.1, abs=0.03)


def test_scaling_a_norm_changes_no_shape():
    y = fall(4, 30) + bump(2, 1000, 150)
    a, b = norm_shapes(2.0 ** y[None]), norm_shapes(1000 * 2.0 ** y[None])
    for name in ("drop", "rise", "double_descent", "reversal", "noise", "half_drop"):
        assert getattr(a, name).item() == pytest.approx(getattr(b, name).item(), abs=1e-6)


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match="30 values for n_blocks=20"):
        norm_shapes(torch.ones(1, 30))
    with pytest.raises(ValueError, match="four blocks"):
        norm_shapes(torch.ones(1, 30), n_blocks=2)
    with pytest.raises(ValueError, match="positive and finite"):
        norm_shapes(torch.zeros(1, 100))
