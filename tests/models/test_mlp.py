import pytest
import torch
from torch import nn

from phasescope.models import MLP, seeded


def test_an_mlp_is_affine_maps_with_the_activation_between_them():
    model = seeded(lambda: MLP((6, 5, 4, 3), nn.Tanh), 0).double()
    parameters = dict(model.named_parameters())
    x = torch.randn(7, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    hidden = x.reshape(7, 6)
    for number in (1, 2, 3):
        hidden = hidden @ parameters[f"fc{number}.weight"].T + parameters[f"fc{number}.bias"]
        if number < 3:
            hidden = hidden.tanh()
    torch.testing.assert_close(model(x), hidden)


def test_the_default_mlp_has_the_size_of_the_experiments():
    model = MLP()
    assert sum(parameter.numel() for parameter in model.parameters()) == 101_770
    assert [name for name, _ in model.named_parameters()] == [
        "fc1.weight",
        "fc1.bias",
        "fc2.weight",
        "fc2.bias",
    ]


def test_two_sizes_are_a_linear_model():
    model = MLP((3, 2))
    x = torch.eye(3)
    torch.testing.assert_close(model(x) - model(-x), 2 * model.get_parameter("fc1.weight").T)


@pytest.mark.parametrize("sizes", [(), (3,), (3, 0, 2)])
def test_sizes_that_make_no_network_are_refused(sizes: tuple[int, ...]):
    with pytest.raises(ValueError, match="at least two positive widths"):
        MLP(sizes)


def test_a_seed_decides_the_model_whatever_was_drawn_before():
    torch.manual_seed(1)
    first = seeded(MLP, 7)
    torch.manual_seed(2)
    second = seeded(MLP, 7)
    third = seeded(MLP, 8)
    for name, value in first.named_parameters():
        assert torch.equal(value, second.get_parameter(name))
        assert not torch.equal(value, third.get_parameter(name))


def test_building_from_a_seed_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    seeded(MLP, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_random_state_is_put_back_when_building_fails():
    def fail() -> nn.Module:
        torch.rand(1)
        raise KeyError("no model")

    before = torch.get_rng_state()
    with pytest.raises(KeyError, match="no model"):
        seeded(fail, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seed_gives_what_seeding_globally_would_give():
    torch.manual_seed(3)
    expected = MLP((4, 3, 2))
    for name, value in seeded(lambda: MLP((4, 3, 2)), 3).named_parameters():
        assert torch.equal(value, expected.get_parameter(name))
