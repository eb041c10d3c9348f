import pytest
import torch

from phasescope.analysis.movers import movers

STEPS = torch.arange(0, 4_000, 4)


def test_the_part_that_moves_in_the_phase_is_told_from_those_that_always_move():
    generator = torch.Generator().manual_seed(0)
    squares = torch.rand(3, len(STEPS), generator=generator) + 0.5
    inside = (STEPS >= 800) & (STEPS <= 1_200)
    squares[0] *= 50  # moves much, always
    squares[1, inside] *= 4
    found = movers(STEPS, squares, 800, 1_200)
    assert found.ratio[1] == pytest.approx(4, rel=0.1)
    assert found.ratio[[0, 2]].tolist() == pytest.approx([1, 1], rel=0.1)
    assert found.p_value[1] == pytest.approx(1 / (found.n_windows + 1))
    assert found.p_value[0] > 0.05


def test_means_are_over_the_recorded_changes_of_a_window():
    steps = torch.tensor([0, 10, 20, 30, 40, 50])
    squares = torch.tensor([[1.0, 1.0, 6.0, 8.0, 1.0, 1.0]])
    assert movers(steps, squares, 20, 30).ratio.item() == pytest.approx(7)


def test_bad_input_is_named():
    squares = torch.ones(1, len(STEPS))
    with pytest.raises(ValueError, match="it goes from 5 to 5"):
        movers(STEPS, squares, 5, 5)
    with pytest.raises(ValueError, match="no window outside of the phase from 0 to 4000"):
        movers(STEPS, squares, 0, 4_000)
    for steps, bad in ((STEPS.flip(0), squares), (STEPS, -squares - 1)):
        with pytest.raises(ValueError, match=r"each of increasing steps, but .* Sort steps and sq"):
            movers(steps, bad, 100, 200)
