import pytest
import torch
from torch import nn

from phasescope.models import ConvNet, seeded


def test_the_default_network_has_the_parameters_of_the_example():
    shapes = {name: tuple(value.shape) for name, value in ConvNet().named_parameters()}
    assert shapes == {
        "conv1.weight": (32, 1, 3, 3),
        "conv1.bias": (32,),
        "conv2.weight": (64, 32, 3, 3),
        "conv2.bias": (64,),
        "fc1.weight": (128, 9216),
        "fc1.bias": (128,),
        "fc2.weight": (10, 128),
        "fc2.bias": (10,),
    }
    assert sum(value.numel() for value in ConvNet().parameters()) == 1_199_882


@pytest.mark.parametrize("training", [False, True])
def test_the_network_equals_the_same_layers_in_a_row(training: bool):
    model = seeded(lambda: ConvNet(image_size=9, in_channels=2, width=3, n_classes=5), 0).double()
    row = nn.Sequential(
        model.conv1,
        nn.ReLU(),
        model.conv2,
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        model.fc1,
        nn.ReLU(),
        nn.Dropout(0.5),
        model.fc2,
    )
    model.train(training)
    row.train(training)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 2, 9, 9, dtype=torch.float64, generator=generator)
    torch.manual_seed(1)
    expected = row(x)
    torch.manual_seed(1)
    torch.testing.assert_close(model(x), expected)


def test_the_smallest_network_takes_images_of_six_pixels():
    assert ConvNet(image_size=6, width=1)(torch.zeros(2, 1, 6, 6)).shape == (2, 10)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match=r"image_size must be at least 6 pixels.* but it is 5"):
        ConvNet(image_size=5)


@pytest.mark.parametrize("argument", ["in_channels", "width", "n_classes"])
def test_widths_that_are_not_positive_are_refused(argument: str):
    with pytest.raises(ValueError, match="in_channels, width and n_classes must be positive"):
        ConvNet(**{argument: 0})
