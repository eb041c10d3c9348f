"""`verify` finds every kind of wrong division, and does not change the model."""

import dataclasses

import pytest
import torch
from torch import nn

from components import toys
from phasescope.components import Cut, Layer, Neurons, Structure, structure, verify
from phasescope.models import seeded


@pytest.fixture
def model(float64_default: None) -> nn.Module:
    return seeded(toys.FAMILIES["groups"], 0)


def changed(model: nn.Module, **fields: object) -> Structure:
    """The structure with other fields in the heads or neurons of its first layer."""
    own = structure(model)
    first = own.layers[0]
    neurons = {name: fields.pop(name) for name in ("into", "out") if name in fields}
    first = dataclasses.replace(
        first,
        heads=dataclasses.replace(first.heads, **fields),
        neurons=dataclasses.replace(first.neurons, **neurons),
    )
    return dataclasses.replace(own, layers=(first, *own.layers[1:]))


def reversed_cuts(cuts: tuple[Cut, ...]) -> tuple[Cut, ...]:
    return tuple(
        dataclasses.replace(cut, starts=tuple(cut.starts)[::-1]) for cut in cuts if cut.starts
    )


@pytest.mark.parametrize("part", ["q", "k", "v", "o"])
def test_heads_in_another_order_are_found(model: nn.Module, part: str):
    cuts = getattr(structure(model).layers[0].heads, part)
    wrong = changed(model, **{part: reversed_cuts(cuts)})
    with pytest.raises(
        ValueError, match=r"with l0h\d v.* at zero the gradient of 'l0h\d [oqk]' must"
    ):
        verify(model, toys.cube_loss, structure=wrong)


def test_another_number_of_heads_is_found(model: nn.Module):
    heads = structure(model).layers[0].heads
    halves = {p: tuple(Cut(c.tensor, c.axis) for c in getattr(heads, p)) for p in "qkvo"}
    wrong = changed(model, n_heads=2, n_groups=1, **halves)
    verify(model, toys.cube_loss, structure=wrong)  # coarser than the truth, but not wrong
    wrong = changed(model, n_heads=10, n_groups=5, **halves)
    with pytest.raises(ValueError, match="do not belong together"):
        verify(model, toys.cube_loss, structure=wrong)


def test_values_without_their_bias_are_found(model: nn.Module):
    heads = structure(model).layers[0].heads
    assert len(heads.v) == 2
    with pytest.raises(ValueError, match="must vanish, but it does not"):
        verify(model, toys.cube_loss, structure=changed(model, v=heads.v[:1]))


def test_neurons_with_another_column_or_without_their_bias_are_found(model: nn.Module):
    neurons = structure(model).layers[0].neurons
    with pytest.raises(ValueError, match=r"with l0n\d in.* the gradient of 'l0n\d out' must"):
        verify(model, toys.cube_loss, structure=changed(model, out=reversed_cuts(neurons.out)))
    bias_left = tuple(cut for cut in neurons.into if not cut.tensor.endswith("bias"))
    biasless = changed(model, into=tuple(c for c in bias_left if "gate" not in c.tensor))
    with pytest.raises(ValueError, match="must vanish, but it does not"):
        verify(model, toys.cube_loss, structure=biasless)


def test_the_model_its_gradients_and_its_mode_stay_as_they_were(model: nn.Module):
    frozen = next(model.parameters()).requires_grad_(False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    verify(model.train(), toys.cube_loss)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())
    assert not frozen.requires_grad
    assert model.training


def test_verify_works_where_gradients_are_switched_off(model: nn.Module):
    with torch.no_grad():
        verify(model, toys.cube_loss)


def test_a_structure_without_heads_or_columns_has_nothing_to_verify():
    layer = Layer("fc1", neurons=Neurons(3, (Cut("fc1.weight", 0),)))
    empty = Structure((layer, Layer("fc2")))
    model = nn.ModuleDict({"fc1": nn.Linear(2, 3), "fc2": nn.Linear(3, 2)})
    verify(model, lambda model: model["fc2"](model["fc1"](torch.ones(2))).sum(), structure=empty)
