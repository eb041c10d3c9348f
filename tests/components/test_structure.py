"""What is derived from a model, and what is refused with a reason."""

import pytest
import torch
from torch import nn

from components import toys
from phasescope.components import Cut, components, structure, verify
from phasescope.models import seeded


def toy(attention: nn.Module, mlp: nn.Module | None = None) -> nn.Module:
    return toys.Transformer([attention], [mlp or toys.LayerMLP(("c_fc",), "c_proj")])


class Configured(nn.Module):
    """An attention that keeps its numbers in a configuration."""

    def __init__(self, rows: tuple[int, int, int], inputs: int, **numbers: object):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(12, n) for n in rows)
        self.o_proj = nn.Linear(inputs, 12)
        self.config = type("Config", (), numbers)()


def reason(model: nn.Module, selector: str = "l0h0") -> str:
    with pytest.raises(ValueError, match=r"l0h0|l0n0") as caught:
        components(model, selector)
    return str(caught.value)


def test_an_explicit_width_is_trusted_before_the_width_of_the_model():
    # Four heads of 8 in a model of width 12: 12 // 4 would cut the rows at 3.
    attention = Configured((32, 16, 16), 32, num_attention_heads=4, head_dim=8, hidden_size=12)
    heads = structure(toy(attention)).layers[0].heads
    assert (heads.n_heads, heads.n_groups) == (4, 2)
    assert heads.q[0].pieces((32, 12), 4) == (range(0, 32, 8), 8)


def test_a_missing_width_follows_from_the_shape_and_a_missing_count_from_the_width():
    without_width = Configured((32, 16, 16), 32, num_attention_heads=4, hidden_size=12)
    assert structure(toy(without_width)).layers[0].heads.n_groups == 2
    without_count = Configured((32, 8, 8), 32, head_dim=8)
    heads = structure(toy(without_count)).layers[0].heads
    assert (heads.n_heads, heads.n_groups) == (4, 1)


def test_values_may_have_another_width_than_queries():
    attention = Configured((32, 16, 12), 24, num_heads=4, head_dim=8)
    parts = components(toy(attention), "l0h0 v", "l0h3 o")
    assert parts["l0h0 v"].size == 6 * 12 + 6
    assert parts["l0h3 o"].size == 6 * 12


def test_configurations_of_ancestors_are_read_and_the_nearest_counts():
    attention = Configured((20, 20, 20), 20)
    del attention.config
    model = toy(attention)
    model.config = {"n_head": 2, "n_embd": 12}
    assert structure(model).layers[0].heads.n_heads == 2
    model.transformer["h"][0].cfg = type("Config", (), {"n_heads": 4})()
    assert structure(model).layers[0].heads.n_heads == 4
    attention.num_heads = 5
    assert structure(model).layers[0].heads.n_heads == 5


def test_a_configuration_that_refuses_to_answer_is_passed_over():
    class Refusing:
        num_attention_heads = 4

        @property
        def head_dim(self) -> int:
            raise ValueError("differs between layers")

    attention = Configured((20, 20, 20), 20)
    attention.config = Refusing()
    assert structure(toy(attention)).layers[0].heads.n_heads == 4


def test_missing_counts_are_asked_for_and_can_be_stated():
    attention = Configured((20, 10, 10), 20)
    model = toy(attention)
    message = reason(model)
    assert "'l0h0' requires the attention heads of layer l0 (transformer.h.0)" in message
    assert "number of heads of 'transformer.h.0.attn' must be known, but neither" in message
    assert "structure=phasescope.structure(model, n_heads=...)" in message
    assert list(components(model, "l0 attn", "l0 mlp", "l0n1")) == ["l0 attn", "l0 mlp", "l0n1"]
    stated = structure(model, n_heads=4)
    assert len(components(model, "heads", structure=stated)) == 4
    assert len(components(model, "groups", structure=stated)) == 2
    assert len(components(model, "heads", structure=structure(model, d_head=10))) == 2


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        (
            Configured((64, 32, 32), 64, num_heads=4, head_dim=32),
            r"4 heads (transformer.h.0.attn.config.num_heads) of width 32 "
            r"(transformer.h.0.attn.config.head_dim) need 128 outputs of the queries in "
            r"'transformer.h.0.attn.q_proj.weight', but there are 64",
        ),
        (Configured((20, 20, 20), 20, num_heads=3), "20 outputs in 'transformer.h.0.attn.q_proj"),
        (
            Configured((20, 10, 10), 20, num_heads=4, num_key_value_heads=4),
            "makes 2 key/value heads of width 5 (its shape), but 4 (transformer.h.0.attn.config.",
        ),
        (
            Configured((20, 15, 15), 20, num_heads=4),
            "makes 3 key/value heads of width 5 (its shape), but a divisor of 4",
        ),
        (
            Configured((20, 10, 10), 25, num_heads=4),
            "must have 20 inputs for 4 heads, but it has 25",
        ),
    ],
)
def test_numbers_that_contradict_the_shapes_are_refused(attention: nn.Module, message: str):
    assert message in reason(toy(attention))


def test_stated_numbers_that_contradict_the_model_are_refused():
    model = seeded(toys.FAMILIES["lens"], 0)
    stated = structure(model, n_heads=3)
    with pytest.raises(ValueError, match=r"are 4 and 4 in .*against n_heads=3"):
        components(model, "heads", structure=stated)


def test_another_word_for_the_division_is_refused(unchecked_types: None):
    with pytest.raises(ValueError, match="fused must be 'concatenated' or 'interleaved', but"):
        structure(nn.Linear(1, 1), fused="mixed")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("interleaved", [False, True])
def test_the_division_of_an_unknown_fused_matrix_is_asked_for_and_can_be_stated(
    interleaved: bool, float64_default: None
):
    names = ("qkv_proj", "o_proj")
    attention = seeded(lambda: toys.FusedAttention(names=names, interleaved=interleaved), 0)
    model = toy(attention)
    message = reason(model)
    assert "how the outputs of 'qkv_proj' in 'transformer.h.0.attn' are divided" in message
    assert "FusedAttention is not one of the classes" in message
    right, wrong = ("interleaved", "concatenated")[:: 1 if interleaved else -1]
    verify(model, toys.cube_loss, structure=structure(model, fused=right))
    with pytest.raises(ValueError, match="do not belong together"):
        verify(model, toys.cube_loss, structure=structure(model, fused=wrong))


def test_layers_of_unknown_kind_are_named():
    attention = toys.SplitAttention()
    attention.v_proj = nn.Bilinear(12, 2, 10)
    message = reason(toy(attention))
    assert "'transformer.h.0.attn.v_proj' must be an nn.Linear or GPT-2's Conv1D" in message
    assert "but it is a Bilinear" in message
    attention = toys.SplitAttention()
    attention.last, attention.o_proj = attention.o_proj, None
    assert "must have an output layer called one of ('o_proj'" in reason(toy(attention))


def test_an_output_matrix_whose_axis_does_not_show_is_refused():
    attention = toys.TransposedAttention()
    for name in ("W_Q", "W_K", "W_V"):
        setattr(attention, name, toys.parameter(1, 12, 12))
    attention.W_O = toys.parameter(12, 12)
    assert "the axis of 'transformer.h.0.attn.W_O' that holds the heads must show" in reason(
        toy(attention)
    )


def test_neurons_of_ambiguous_or_several_mlps_are_refused_with_the_reason():
    square = toys.LensMLP()
    square.W_in, square.W_out = toys.parameter(12, 12), toys.parameter(12, 12)
    square.b_in = toys.parameter(12)
    assert "do not tell" in reason(toy(toys.FusedAttention(), square), "l0n0")
    experts = nn.ModuleDict(
        {"experts": nn.ModuleList(toys.LayerMLP(("w1", "w3"), "w2") for _ in range(2))}
    )
    model = toy(toys.FusedAttention(), experts)
    assert "this one has several, perhaps experts" in reason(model, "l0n0")
    assert components(model, "l0 mlp")["l0 mlp"].size == sum(
        p.numel() for p in experts.parameters()
    )
    uneven = toys.LayerMLP(("c_fc",), "c_proj")
    uneven.c_fc = nn.Linear(12, 14)
    assert "must have 7 outputs" in reason(toy(toys.FusedAttention(), uneven), "l0n0")


def encoder_layer(**options: object) -> nn.Module:
    return nn.TransformerEncoderLayer(12, 4, 7, dropout=0.0, batch_first=True, **options)


def states(n: int = 5) -> torch.Tensor:
    return torch.linspace(-2, 2, 2 * n * 12).view(2, n, 12).sin()


def test_pytorch_encoder_layers_are_verified_by_function(float64_default: None):
    model = seeded(lambda: nn.TransformerEncoder(encoder_layer(), 2, enable_nested_tensor=False), 0)
    for parameter in model.parameters():
        parameter.data += 0.1  # biases start at zero
    found = structure(model)
    assert [(x.heads.n_heads, x.neurons.n) for x in found.layers] == [(4, 7), (4, 7)]
    verify(model, lambda model: model(states()).pow(3).sum())
    parts = components(model, "l1 attn", "l1 mlp", "l1h2")
    assert parts["l1 attn"].size == 4 * 12 * 12 + 4 * 12
    assert parts["l1 mlp"].size == 2 * 12 * 7 + 7 + 12
    assert parts["l1h2"].size == 4 * 3 * 12 + 3 * 3


def test_pytorch_decoder_layers_have_heads_that_look_at_the_encoder(float64_default: None):
    decoder = nn.TransformerDecoderLayer(12, 4, 7, dropout=0.0, batch_first=True)
    model = seeded(lambda: nn.TransformerDecoder(decoder, 2), 0)
    verify(model, lambda model: model(states(4), states(5).cos()).pow(3).sum())
    parts = components(model, "l0 cross", "l0x*", "l0h*", "l0x1 v")
    assert [name for name in parts if "x" in name] == ["l0x0", "l0x1", "l0x2", "l0x3", "l0x1 v"]
    assert not set(parts["l0x1"].columns.tolist()) & set(parts["l0h1"].columns.tolist())
    assert set(parts["l0x1 v"].columns.tolist()) <= set(parts["l0 cross"].columns.tolist())


def test_an_encoder_and_a_decoder_are_counted_through(float64_default: None):
    model = nn.Transformer(12, 4, 2, 1, 7, dropout=0.0, batch_first=True)
    found = structure(model)
    assert [x.tensors for x in found.layers] == [
        ("encoder.layers.0",),
        ("encoder.layers.1",),
        ("decoder.layers.0",),
    ]
    assert [bool(x.cross) for x in found.layers] == [False, False, True]
    verify(model, lambda model: model(states(5), states(4).cos()).pow(3).sum())


@pytest.mark.parametrize(
    "options", [{}, {"bias": False}, {"kdim": 12, "vdim": 10}, {"add_bias_kv": True}]
)
def test_pytorch_attention_alone_is_verified_by_function(
    options: dict[str, object], float64_default: None
):
    model = seeded(lambda: nn.MultiheadAttention(12, 4, batch_first=True, **options), 0)

    def loss(model: nn.Module) -> torch.Tensor:
        x = states()
        return model(x, x.cos(), x[..., : model.vdim].exp(), need_weights=False)[0].pow(3).sum()

    verify(model, loss)
    parts = components(model, "heads")
    assert len(parts) == 4
    total = sum(p.numel() for n, p in model.named_parameters() if n != "out_proj.bias")
    assert sum(part.size for part in parts.values()) == total


def test_a_model_of_one_layer_has_its_embeddings_beside_it():
    class OneLayer(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.unembed = nn.Embedding(7, 12), nn.Linear(12, 7)
            self.attn, self.mlp = toys.FusedAttention(), toys.LayerMLP(("c_fc",), "c_proj")

    parts = components(OneLayer(), "l0", "embed", "unembed", "l0h3", "full")
    assert parts["l0"].size == parts["full"].size - parts["embed"].size - parts["unembed"].size
    assert parts["unembed"].size == 12 * 7 + 7


def test_a_sequence_of_embedding_blocks_and_head_numbers_only_the_blocks():
    block = toys.Block(toys.FusedAttention(), toys.LayerMLP(("c_fc",), "c_proj"))
    model = nn.Sequential(nn.Embedding(11, 12), block, nn.Linear(12, 11))
    found = structure(model)
    assert [layer.tensors for layer in found.layers] == [("1",)]
    assert found.embed == ("0.weight",)
    nested = nn.Sequential(nn.Embedding(11, 12), nn.Sequential(block, block), nn.Linear(12, 11))
    assert [layer.tensors for layer in structure(nested).layers] == [("1.0",), ("1.1",)]


def test_recurrent_networks_and_bare_matrices_have_layers_but_no_known_units():
    model = nn.Sequential(nn.LSTM(3, 4))
    assert components(model, "l0")["l0"].size == sum(p.numel() for p in model.parameters())
    assert "the outputs of a LSTM are not known" in reason(model, "l0n0")

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.W, self.b = nn.Parameter(torch.zeros(2, 5)), nn.Parameter(torch.zeros(5))

    assert components(Bare(), "l0")["l0"].size == 15


def test_blocks_in_a_list_are_layers_even_if_their_attention_is_unknown():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.self_attn = nn.ModuleDict({"latent": nn.Linear(12, 4), "up": nn.Linear(4, 12)})
            self.mlp = toys.LayerMLP(("up_proj",), "down_proj")

    model = nn.ModuleDict(
        {"embed": nn.Embedding(5, 12), "layers": nn.ModuleList([Block(), Block()])}
    )
    parts = components(model, "layers", "l* attn", "l* mlp", "l1n3", "embed")
    assert list(parts) == ["l0", "l1", "l0 attn", "l1 attn", "l0 mlp", "l1 mlp", "l1n3", "embed"]
    assert parts["l0"].size == parts["l0 attn"].size + parts["l0 mlp"].size
    assert "layers.0 shows no attention heads" in reason(model)
    leaves = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 2)])})
    assert list(components(leaves, "layers", "l0n2")) == ["l0", "l1", "l0n2"]


def test_starts_and_width_of_a_cut_go_together():
    for given in ({"starts": range(64, 128, 16)}, {"width": 16}):
        with pytest.raises(ValueError, match=r"starts and the width .* go together, but only"):
            Cut("wqkv.weight", axis=0, **given)
