import pytest
import torch
from torch import nn

from phasescope.interventions import match_channels, train_stitch


def test_a_planted_linear_map_is_found_exactly():
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(20, 5, 3, 3, generator=generator).double()
    weight = torch.randn(4, 5, generator=generator).double()
    target = torch.einsum("ba,nahw->nbhw", weight, h) + 0.7
    stitch = match_channels(h, target)
    assert torch.allclose(stitch(h), target, atol=1e-12)
    assert torch.allclose(stitch.weight[:, :, 0, 0], weight, atol=1e-12)


def test_silent_channels_do_not_break_the_match():
    h = torch.randn(20, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    h[:, 1] = 0
    stitch = match_channels(h, h)
    assert torch.allclose(stitch(h), h, atol=1e-5)
    assert stitch.weight[:, 1].abs().max() < 1e-5


def test_least_squares_leave_nothing_that_a_linear_map_could_take():
    generator = torch.Generator().manual_seed(1)
    h, target = (torch.randn(50, c, 2, 2, generator=generator).double() for c in (3, 2))
    rest = (target - match_channels(h, target)(h)).movedim(1, -1).reshape(-1, 2)
    inputs = h.movedim(1, -1).reshape(-1, 3)
    assert (inputs.T @ rest).abs().max() < 1e-10
    assert rest.sum(0).abs().max() < 1e-10


def test_training_learns_what_the_rest_needs_and_leaves_the_rest_alone():
    generator = torch.Generator().manual_seed(2)
    y = torch.randint(0, 3, (300,), generator=generator)
    h = torch.rand(300, 4, 2, 2, generator=generator)
    h[torch.arange(300), (y + 1) % 3] += 1.0  # classes lie in other channels than the rest reads
    rest = nn.Linear(4, 3)

    def back(z: torch.Tensor) -> torch.Tensor:
        return rest(z.mean((2, 3)))

    torch.nn.init.eye_(rest.weight)
    torch.nn.init.zeros_(rest.bias)
    fixed = rest.weight.clone()
    stitch = match_channels(h, h)
    assert (back(torch.relu(stitch(h))).argmax(1) == y).double().mean() < 0.5
    train_stitch(stitch, back, h, y, n_epochs=30, learning_rate=0.03)
    found = back(torch.relu(stitch(h))).argmax(1)
    assert (found == y).double().mean() > 0.95
    assert torch.equal(rest.weight, fixed)
    assert rest.weight.grad is None


@pytest.mark.usefixtures("unchecked_types")
def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="same images and of the same height"):
        match_channels(torch.ones(2, 3, 4, 4), torch.ones(2, 3, 2, 2))
    with pytest.raises(ValueError, match="must be finite"):
        match_channels(torch.ones(2, 3, 4, 4), torch.full((2, 3, 4, 4), torch.nan))
    with pytest.raises(ValueError, match="2 labels and 3 images"):
        train_stitch(
            nn.Conv2d(1, 1, 1), nn.Flatten(), torch.ones(3, 1, 1, 1), torch.zeros(2).long()
        )
