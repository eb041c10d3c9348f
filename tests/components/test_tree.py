import torch

from components import toys
from phasescope.components import Subspace, component_lines, components
from phasescope.models import seeded
from phasescope.parameters import Component


def named(*names: str, size: int = 3) -> dict[str, Component]:
    return {name: Component(name, ((0, size),)) for name in names}


def test_components_of_one_size_and_pattern_share_a_line():
    model = seeded(toys.FAMILIES["nanoGPT"], 0)
    parts = components(model, "full", "heads", "l* mlp", "l1n*", "*.attn.*.bias")
    assert component_lines(parts) == [
        "full                                     2,846 parameters    4 B",
        "l0...l1 h0...h3                        8 x 255 parameters   32 B",
        "l0...l1 mlp                            2 x 187 parameters    8 B",
        "l1n0...n6                               7 x 25 parameters   28 B",
        "transformer.h.0...1.attn.c_attn.bias    2 x 60 parameters    8 B",
        "transformer.h.0...1.attn.c_proj.bias    2 x 12 parameters    8 B",
        "22 components, 88 B for a row of norms",
    ]
    assert repr(parts) == "\n".join(component_lines(parts))


def test_gaps_and_other_sizes_open_lines_of_their_own():
    parts = named("l0h0", "l0h1", "l0h3", "l1h0", "l1h1", "layers.0.weight", "layers.2.weight")
    parts |= named("l2h0", size=5) | named("linear1.weight", "linear2.weight")
    assert [line.split("  ")[0] for line in component_lines(parts)] == [
        "l0h0",
        "l0h1",
        "l0h3",
        "l1h0...h1",
        "layers.0.weight",
        "layers.2.weight",
        "l2h0",
        "linear1.weight",
        "linear2.weight",
        "10 components, 40 B for a row of norms",
    ]


def test_parts_of_heads_and_subspaces_are_named():
    parts = {
        **named("l0h0 q", "l0h1 q", "l1h0 q", "l1h1 q"),
        "plane": Subspace("p", torch.eye(2, 5)),
    }
    assert component_lines(parts) == [
        "l0...l1 h0...h1 q   4 x 3 parameters   16 B",
        "plane                   2 directions    4 B",
        "5 components, 20 B for a row of norms",
    ]


def test_nothing_selected_is_said():
    assert component_lines({}) == ["0 components, 0 B for a row of norms"]
