import math

import pytest
import torch

from phasescope.analysis.log_blocks import log_blocks
from phasescope.analysis.smooth_fits import SLOWEST, fit_smooth
from phasescope.analysis.transitions import find_transitions

STEPS = torch.arange(4_000)
TAU = torch.log1p(STEPS.double())


def normal(seed: int) -> torch.Tensor:
    return torch.randn(4_000, generator=torch.Generator().manual_seed(seed)).double()


def planted(midpoint: float, sharpness: float, height: float, seed: int) -> torch.Tensor:
    """Power law, an S-curve and noise."""
    s = sharpness / (2 * math.log(9))
    drop = height * torch.sigmoid((TAU - math.log1p(midpoint)) / s)
    return 3 * (1 + STEPS / 20) ** -0.15 + drop + 0.1 * normal(seed)


def test_planted_transitions_lie_in_their_intervals():
    inside = 0
    for seed in range(7):
        (found,) = find_transitions(STEPS, planted(900, 0.8, -1.2, seed))
        inside += found.midpoint_low <= 900 <= found.midpoint_high
        onset = math.expm1(math.log1p(900) - 0.4)
        inside += found.onset_low <= onset <= found.onset_high
        assert abs(found.height + 1.2) < 5 * found.height_error < 0.5
        assert abs(found.sharpness - 0.8) < 0.25
        assert found.evidence > 100
        assert found.width == pytest.approx(found.end - found.onset)
    assert inside >= 10  # of 14 at 95 %: fewer with probability .001


def test_two_transitions_are_told_apart_and_known_changes_left_out():
    curve = planted(300, 0.6, -1.0, 0) + planted(1_500, 0.4, 0.8, 1)
    found = find_transitions(STEPS, curve)
    assert [round(t.midpoint, -2) for t in found] == [300, 1_500]
    assert [t.height < 0 for t in found] == [True, False]
    assert found.evidence > 100
    assert len(find_transitions(STEPS, curve, known=[310])) == 1


@pytest.mark.parametrize("kind", ["white", "walk", "power", "relaxation", "walk and noise"])
def test_nulls_have_no_transitions(kind: str):
    for seed in range(3):
        noise = normal(seed)
        curve = {
            "white": noise,
            "walk": noise.cumsum(0),
            "power": (1 + STEPS / 10**seed) ** -0.4 + 0.01 * noise,
            "relaxation": torch.exp(-STEPS / (100.0 * (1 + seed))) + 0.01 * noise,
            "walk and noise": 0.1 * noise.cumsum(0) + normal(seed + 100),
        }[kind]
        assert len(find_transitions(STEPS, curve)) == 0


def test_a_relaxation_resembles_the_widest_logistic_and_is_fitted_exactly():
    assert pytest.approx(3.0844, abs=1e-4) == 2 * math.log(9) * SLOWEST
    blocks = log_blocks(STEPS, torch.exp(-STEPS.double() / 500), 200)
    assert fit_smooth(blocks).squares / float(blocks.counts.sum()) < 1e-5
    exact = log_blocks(STEPS, 2 + 3 * (1 + STEPS.double() / 50) ** -0.7, 200)
    assert fit_smooth(exact).squares / float(exact.counts.sum()) < 1e-6


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="at least 20 blocks of logarithmic time, but the 8"):
        find_transitions(torch.arange(8), torch.ones(8))
    with pytest.raises(ValueError, match="at step 3 it is inf"):
        find_transitions(STEPS, torch.where(STEPS == 3, torch.inf, 1.0))


def test_a_constant_curve_has_none():
    found = find_transitions(STEPS, torch.ones(4_000))
    assert len(found) == 0
    assert found.evidence == -math.inf
