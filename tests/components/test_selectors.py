import re

import pytest
import torch
from torch import nn

import phasescope as ps
from components import toys
from phasescope.components import Components, Cut, Heads, Layer, Neurons, Structure, components
from phasescope.models import MLP, ConvNet, seeded
from phasescope.parameters import Component, ParameterTable


def columns(model: nn.Module, **indices: object) -> list[int]:
    """Columns of what is true in a mask that is set at `name=index`, dots written as __."""
    table = ParameterTable.from_module(model)
    masks = {
        n: torch.zeros(s, dtype=torch.bool) for n, s in zip(table.names, table.shapes, strict=True)
    }
    for name, index in indices.items():
        masks[name.replace("__", ".")][index] = True
    return table.flatten(masks).nonzero().flatten().tolist()


def nano_gpt(*, tied: bool = False) -> nn.Module:
    return seeded(lambda: toys.nano_gpt(tied=tied), 0)


def test_full_layers_blocks_and_embeddings_are_whole_tensors():
    model = nano_gpt()
    table = ParameterTable.from_module(model)
    parts = components(model, "full", "embed", "pos_embed", "unembed", "l1", "l1 attn", "l1 mlp")
    assert list(parts) == ["full", "embed", "pos_embed", "unembed", "l1", "l1 attn", "l1 mlp"]
    assert parts["full"].intervals == ((0, table.size),)
    assert parts["embed"].intervals == (table.interval("transformer.wte.weight"),)
    assert parts["pos_embed"].intervals == (table.interval("transformer.wpe.weight"),)
    assert parts["unembed"].intervals == (table.interval("lm_head.weight"),)
    for name, prefix in (("l1", ""), ("l1 attn", "attn."), ("l1 mlp", "mlp.")):
        inside = [n for n in table.names if n.startswith(f"transformer.h.1.{prefix}")]
        wanted = (table.interval(inside[0])[0], table.interval(inside[-1])[1])
        assert parts[name].intervals == (wanted,)


def test_a_head_of_a_fused_matrix_is_its_rows_and_its_columns_of_the_output_matrix():
    model = nano_gpt()
    rows = [p * 20 + 5 + i for p in range(3) for i in range(5)]  # head 1 of 4, 5 entries wide
    wanted = columns(
        model,
        transformer__h__0__attn__c_attn__weight=rows,
        transformer__h__0__attn__c_attn__bias=rows,
        transformer__h__0__attn__c_proj__weight=(slice(None), slice(5, 10)),
    )
    head = components(model, "l0h1")["l0h1"]
    assert head.columns.tolist() == wanted
    # Sorted, merged, disjoint: 3 of the matrix, 3 of the bias, 1 for each output.
    assert len(head.intervals) == 3 + 3 + toys.D_MODEL
    assert head.intervals == tuple(sorted(head.intervals))


def test_a_neuron_is_its_row_its_bias_and_its_column():
    model = nano_gpt()
    wanted = columns(
        model,
        transformer__h__1__mlp__c_fc__weight=3,
        transformer__h__1__mlp__c_fc__bias=3,
        transformer__h__1__mlp__c_proj__weight=(slice(None), 3),
    )
    assert components(model, "l1n3")["l1n3"].columns.tolist() == wanted


def test_grouped_queries_share_their_keys_and_values():
    parts = components(seeded(toys.FAMILIES["groups"], 0), "l0h* *", "l0g*")
    assert parts["l0h0 k"].intervals == parts["l0h1 k"].intervals != parts["l0h2 k"].intervals
    assert parts["l0h2 v"].intervals == parts["l0h3 v"].intervals
    assert list(parts)[-2:] == ["l0g0", "l0g1"]


def test_wildcards_and_collective_names_expand_in_order_and_once():
    model = nano_gpt()
    heads = [f"l{i}h{h}" for i in range(2) for h in range(4)]
    assert list(components(model, "heads")) == list(components(model, "l*h*")) == heads
    assert list(components(model, "groups")) == [f"l{i}g{h}" for i in range(2) for h in range(4)]
    assert list(components(model, "layers", "l*")) == ["l0", "l1"]
    assert list(components(model, "l1h*", "l*h2", "l1h2")) == [*heads[4:], "l0h2"]
    assert list(components(model, "l0h2 *")) == [f"l0h2 {part}" for part in "qkvo"]
    assert list(components(model, "l*h0 v")) == ["l0h0 v", "l1h0 v"]
    assert list(components(model, "l* mlp")) == ["l0 mlp", "l1 mlp"]
    assert list(components(model, "l0n1 *")) == ["l0n1 in", "l0n1 out"]
    assert len(components(model, "neurons")) == 2 * toys.D_MLP
    assert tuple(components(model, "tensors")) == ParameterTable.from_module(model).names
    assert list(components(model, "*.c_attn.*")) == [
        f"transformer.h.{i}.attn.c_attn.{kind}" for i in range(2) for kind in ("weight", "bias")
    ]


def test_spaces_in_selectors_do_not_matter_and_names_are_always_the_same():
    model = nano_gpt()
    assert list(components(model, "l0attn", "l0  h1v", "l0 n3")) == ["l0 attn", "l0h1 v", "l0n3"]


def test_the_tied_unembedding_is_the_embedding_and_counts_once():
    model = nano_gpt(tied=True)
    parts = components(model, "full", "embed", "unembed", "tensors", "lm_head.weight", "lm_*")
    assert "lm_head.weight" not in ParameterTable.from_module(model).names
    assert parts["unembed"].intervals == parts["embed"].intervals
    assert parts["lm_head.weight"].intervals == parts["transformer.wte.weight"].intervals
    assert parts["full"].size == sum(p.numel() for p in model.parameters())


def test_layers_that_share_their_parameters_are_the_same_columns():
    attention, mlp = toys.FusedAttention(), toys.LayerMLP(("c_fc",), "c_proj")
    model = toys.Transformer([attention, attention], [mlp, mlp])
    parts = components(model, "l*h1", "l*n2", "l* attn")
    assert parts["l0h1"].intervals == parts["l1h1"].intervals
    assert parts["l0n2"].intervals == parts["l1n2"].intervals
    assert parts["l0 attn"].intervals == parts["l1 attn"].intervals


def test_frozen_parameters_are_selected_like_any_other():
    model = nano_gpt()
    before = components(model, "heads", "layers", "embed")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert components(model, "heads", "layers", "embed") == before


def test_wrappers_change_neither_names_nor_columns():
    model = nano_gpt()
    wanted = components(model, "heads", "neurons", "tensors", "unembed")
    wrapped = nn.DataParallel(torch.compile(model, backend="eager"))
    assert components(wrapped, "heads", "neurons", "tensors", "unembed") == wanted


def test_components_of_a_gradient_matrix_are_what_gram_takes():
    model = nano_gpt()
    parts = components(model, "heads", "l0 mlp")
    A = torch.randn(3, parts["l0 mlp"].stop * 3, dtype=torch.float64)
    A = A[:, : ParameterTable.from_module(model).size]
    grams = ps.gram(A, components=parts).components
    for name, part in parts.items():
        inside = A[:, part.columns]
        torch.testing.assert_close(grams[name].K, inside @ inside.T, rtol=1e-12, atol=1e-12)


def test_an_unknown_selector_is_answered_with_what_there_is_and_the_closest():
    model = nano_gpt()
    message = (
        r"'l0 atn' selects nothing. This model has full, embed, pos_embed, unembed, tensors, "
        r"layers, l0 ... l1, l0 attn, l0 mlp, l0h0, l0g0, l0n0 and 25 tensors such as "
        r"'transformer.wte.weight'; the closest to what was asked for are \['l0 attn'"
    )
    with pytest.raises(KeyError, match=message):
        components(model, "l0 atn")
    with pytest.raises(KeyError, match=r"closest.* are \['transformer.wte.weight'"):
        components(model, "transformer.wte.wieght")
    with pytest.raises(KeyError, match=r"'\*.gain' selects nothing"):
        components(model, "*.gain")
    with pytest.raises(KeyError, match=r"'l0 cross' selects nothing"):
        components(model, "l0 cross")
    with pytest.raises(KeyError, match=r"'embed' selects nothing.*has full, tensors, layers, l0"):
        components(MLP((3, 2)), "embed")


def test_what_is_suggested_is_there():
    with pytest.raises(KeyError) as told:
        components(MLP(), "heads")
    suggested = str(told.value).rpartition("closest")[2]
    assert "'heads'" not in suggested
    assert "'layers'" in suggested
    with pytest.raises(KeyError, match=r"closest.* are \['neurons'"):
        components(MLP(), "neurns")


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("l2", r"'l2' asks for l2, but the model has l0 ... l1"),
        ("l2h0", r"'l2h0' asks for l2, but the model has l0 ... l1"),
        ("l0h4", r"'l0h4' asks for l0h4, but the model has l0h0 ... l0h3"),
        ("l*n7", r"'l\*n7' asks for l0n7, but the model has l0n0 ... l0n6"),
        ("l0h0 in", r"the parts of 'h' are \('q', 'k', 'v', 'o'\), but 'l0h0 in' arrived"),
        ("l0n0 q", r"the parts of 'n' are \('in', 'out'\), but 'l0n0 q' arrived"),
    ],
)
def test_numbers_and_parts_that_do_not_exist_are_refused(selector: str, message: str):
    with pytest.raises(KeyError, match=message):
        components(nano_gpt(), selector)


def test_no_selector_is_refused():
    with pytest.raises(ValueError, match="at least one selector is required"):
        components(nano_gpt())


def test_layers_without_attention_are_skipped_by_wildcards_and_named_otherwise():
    model = toys.Transformer(
        [toys.FusedAttention(), nn.Sequential(nn.Linear(12, 12))],
        [toys.LayerMLP(("c_fc",), "c_proj"), nn.Identity()],
    )
    assert list(components(model, "heads")) == [f"l0h{h}" for h in range(4)]
    assert list(components(model, "l*", "l* attn", "l* mlp")) == [
        "l0",
        "l1",
        "l0 attn",
        "l1 attn",
        "l0 mlp",
    ]
    with pytest.raises(
        ValueError, match=r"attention heads of layer l1 \(transformer.h.1\).*shows no"
    ):
        components(model, "l1h0")
    with pytest.raises(KeyError, match="'heads' selects nothing"):
        components(ConvNet(), "heads")


def test_units_of_plain_networks_are_rows_and_columns_of_the_next_layer():
    model = MLP((4, 6, 5, 2))
    parts = components(model, "l0n3", "l2n1", "layers")
    wanted = columns(model, fc1__weight=3, fc1__bias=3, fc2__weight=(slice(None), 3))
    assert parts["l0n3"].columns.tolist() == wanted
    assert parts["l2n1"].columns.tolist() == columns(model, fc3__weight=1, fc3__bias=1)
    assert parts["l1"].columns.tolist() == columns(model, fc2__weight=..., fc2__bias=...)


def test_filters_are_neurons_and_a_flattened_image_lies_channel_by_channel():
    model = seeded(lambda: ConvNet(width=4, image_size=8), 0)
    parts = components(model, "l0n1 out", "l1n2 *")
    pixels = model.fc1.in_features // 8
    assert parts["l0n1 out"].columns.tolist() == columns(model, conv2__weight=(slice(None), 1))
    inside = columns(model, conv2__weight=2, conv2__bias=2)
    assert parts["l1n2 in"].columns.tolist() == inside
    outside = columns(model, fc1__weight=(slice(None), slice(2 * pixels, 3 * pixels)))
    assert parts["l1n2 out"].columns.tolist() == outside
    # By function: a filter that gives nothing leaves the same as one that nobody reads.
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model.eval()
    table, unchanged = ParameterTable.from_module(model), model(x)
    changes = []
    for j in range(8):
        found = []
        for part in components(model, f"l1n{j} *").values():
            vector = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
            vector[part.columns] = 0
            found.append(torch.func.functional_call(model, table.unflatten(vector), x))
        torch.testing.assert_close(found[0], found[1])
        changes.append((found[0] - unchanged).abs().max().item())
    assert sum(change > 1e-4 for change in changes) > 4  # some are dead


def test_sequences_tell_what_reads_a_layer_and_other_models_do_not():
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(27, 2),
    )
    parts = components(model, "l0n1", "l0n1 out")
    assert parts["l0n1 out"].size == 2 * 9
    assert parts.notes == ()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    parts = components(Net(), "l0n1")
    assert parts["l0n1"].size == 3 + 1
    assert parts.notes == (
        "neurons of l0 come without their column of the next layer: which layer reads them is not "
        "known",
    )
    assert repr(parts).endswith(parts.notes[0])
    with pytest.raises(
        ValueError, match=r"'l0n1 out' requires what reads the neurons of l0, but whi"
    ):
        components(Net(), "l0n1 out")
    with pytest.raises(
        ValueError, match=r"'l1n0 out' requires .* but they are the outputs of the mo"
    ):
        components(MLP((3, 4, 2)), "l1n0 out")


@pytest.mark.parametrize(
    "between",
    [nn.GLU(), nn.PixelShuffle(1), nn.Linear(9, 9, bias=False), nn.Unflatten(1, (3, 1))],
    ids=lambda module: type(module).__name__,
)
def test_what_mixes_channels_breaks_the_chain(between: nn.Module):
    chain = nn.Sequential(nn.Conv2d(1, 3, 3), between, nn.Flatten(), nn.Linear(27, 2))
    if isinstance(between, nn.Linear):
        chain = nn.Sequential(nn.Conv1d(1, 3, 3), between)  # it reads positions, not channels
    assert components(chain, "l0n1").notes


def test_a_structure_written_by_hand_is_taken_at_its_word():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Parameter(torch.zeros(7, 6))
            self.wqkv, self.wo = nn.Parameter(torch.zeros(6, 18)), nn.Parameter(torch.zeros(6, 6))
            self.w1, self.w2 = nn.Parameter(torch.zeros(6, 8)), nn.Parameter(torch.zeros(8, 6))

    heads = Heads(
        2,
        2,
        q=(Cut("wqkv", 1, range(0, 6, 3), 3),),
        k=(Cut("wqkv", 1, range(6, 12, 3), 3),),
        v=(Cut("wqkv", 1, range(12, 18, 3), 3),),
        o=(Cut("wo", 0),),
    )
    neurons = Neurons(8, (Cut("w1", 1),), (Cut("w2", 0),))
    layer = Layer(
        ("wqkv", "wo", "w1", "w2"), ("wqkv", "wo"), ("w1", "w2"), heads=heads, neurons=neurons
    )
    own, model = Structure((layer,), embed="tokens"), Own()
    parts = components(model, "embed", "l0", "l0 mlp", "l0h1", "l0n5", structure=own)
    assert parts["embed"].columns.tolist() == columns(model, tokens=...)
    assert parts["l0"].size == 6 * 18 + 36 + 2 * 48
    assert parts["l0 mlp"].columns.tolist() == columns(model, w1=..., w2=...)
    chosen = [3, 4, 5, 9, 10, 11, 15, 16, 17]
    wanted = columns(model, wqkv=(slice(None), chosen), wo=slice(3, 6))
    assert parts["l0h1"].columns.tolist() == wanted
    assert parts["l0n5"].columns.tolist() == columns(model, w1=(slice(None), 5), w2=5)


@pytest.mark.parametrize(
    ("layer", "selector", "error", "message"),
    [
        (Layer("fc9"), "l0", KeyError, r"names 'fc9', but .*closest are \[.*'fc1'"),
        (
            Layer("fc1", neurons=Neurons(6, (Cut("fc1.wieght", 0),))),
            "l0n0",
            KeyError,
            r"cuts 'fc1.wieght', but the model has no .*closest are \['fc1.weight'",
        ),
        (
            Layer("fc1", neurons=Neurons(4, (Cut("fc1.weight", 0),))),
            "l0n0",
            ValueError,
            r"'fc1.weight' of shape \(6, 3\) along axis 0 into 4 equal pieces, but 6 is no",
        ),
        (
            Layer("fc1", neurons=Neurons(6, (Cut("fc1.weight", 2),))),
            "l0n0",
            ValueError,
            r"'fc1.weight' of shape \(6, 3\) along axis 2, which it does not have",
        ),
        (
            Layer("fc1", neurons=Neurons(2, (Cut("fc1.weight", 0, (0, 5), 3),))),
            "l0n0",
            ValueError,
            r"pieces of width 3 at 0, 5: 2 starts are required, and all pieces within 0 ... 6",
        ),
        (
            Layer("fc1", neurons=Neurons(3, (Cut("fc1.weight", 0, range(0, 6, 3), 3),))),
            "l0n0",
            ValueError,
            r"at 0, 3: 3 starts are required",
        ),
    ],
)
def test_a_structure_that_does_not_fit_the_model_is_refused(
    layer: Layer, selector: str, error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        components(MLP((3, 6, 2)), selector, structure=Structure((layer,)))


def test_heads_that_do_not_fill_their_groups_are_refused():
    with pytest.raises(ValueError, match=r"multiple .* n_heads=4 and n_groups=3"):
        Heads(4, 3, (), (), (), ())


def test_components_are_a_dictionary_that_prints_as_a_tree():
    parts = components(nano_gpt(), "l0h0") | {"mine": Component("mine", ((0, 2),))}
    assert isinstance(parts, Components)
    assert isinstance(parts, dict)
    assert list(parts) == ["l0h0", "mine"]
    assert re.search(r"mine\s+2 parameters\s+4 B\n2 components, 8 B", repr(parts))
