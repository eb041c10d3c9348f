"""ResNets have torchvision's names and sizes, and its residual blocks."""

import pytest
import torch
from torch.nn import functional

import phasescope as ps
from phasescope.models import ResNet, seeded


def test_resnet_18_has_the_parameters_of_torchvision():
    with torch.device("meta"):
        model = ResNet()
    state = model.state_dict()
    assert sum(p.numel() for p in model.parameters()) == 11_689_512
    assert len(state) == 122
    assert state["conv1.weight"].shape == (64, 3, 7, 7)
    assert state["layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1)
    assert state["layer4.1.bn2.running_var"].shape == (512,)
    assert "layer1.0.downsample.0.weight" not in state
    with torch.device("meta"):
        deeper = ResNet(n_blocks=(3, 4, 6, 3))
    assert sum(p.numel() for p in deeper.parameters()) == 21_797_672


def test_a_block_adds_its_input():
    model = seeded(lambda: ResNet(n_blocks=(1,), width=4, n_classes=2, small_images=True), 0).eval()
    x = torch.randn(2, 3, 5, 5)
    h = functional.relu(model.bn1(model.conv1(x)))
    block = model.layer1[0]
    inside = block.bn2(block.conv2(functional.relu(block.bn1(block.conv1(h)))))
    expected = model.fc(functional.relu(h + inside).mean((2, 3)))
    torch.testing.assert_close(model(x), expected)


def test_its_channels_are_one_group_per_stage_and_one_per_block():
    model = ResNet(n_blocks=(1, 1), width=4, n_classes=2, small_images=True)
    symmetry = ps.permutation_symmetry(model, (torch.randn(2, 3, 8, 8),))
    assert [g.size for g in symmetry.groups.values()] == [4, 4, 8, 8]


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="one to four stages and positive sizes are required"):
        ResNet(n_blocks=())
