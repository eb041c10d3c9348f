import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from phasescope.parameters import (
    Component,
    ParameterTable,
    named_modules,
    named_parameters,
    without_wrapper_prefixes,
)


class Module(nn.Module):
    """A model with a submodule called `module`, which no wrapper put there."""

    def __init__(self):
        super().__init__()
        self.module = nn.Linear(2, 3)
        self.scale = nn.Parameter(torch.ones(()))


def table():
    return ParameterTable.from_module(Module())


def test_the_table_follows_named_parameters():
    assert table().names == ("scale", "module.weight", "module.bias")
    assert table().shapes == ((), (3, 2), (3,))
    assert table().offsets == (0, 1, 7)
    assert table().size == 10


def test_prefixes_are_removed_only_where_a_wrapper_put_them():
    bare = Module()
    expected = list(named_parameters(bare))
    assert "module.weight" in expected  # the model's own attribute keeps its name
    compiled = torch.compile(bare, backend="eager")
    assert "_orig_mod.module.weight" in dict(compiled.named_parameters())
    for wrapped in (
        nn.DataParallel(bare),
        compiled,
        nn.DataParallel(nn.DataParallel(bare)),
        nn.DataParallel(compiled),
    ):
        assert list(named_parameters(wrapped)) == expected
    inside = nn.ModuleDict({"a": nn.DataParallel(bare)})
    assert list(named_parameters(inside)) == [f"a.{name}" for name in expected]


def test_prefixes_of_a_state_dict_are_removed_where_all_names_have_them():
    bare = nn.Sequential(nn.Linear(2, 3))
    compiled = torch.compile(nn.DataParallel(bare), backend="eager")
    lightning = nn.ModuleDict({"model": compiled})
    for module in (bare, nn.DataParallel(nn.DataParallel(bare)), compiled, lightning):
        assert list(without_wrapper_prefixes(module.state_dict())) == ["0.weight", "0.bias"]
    kept = Module().state_dict()  # one of its names does not begin with "module."
    assert list(without_wrapper_prefixes(kept)) == list(kept)
    assert without_wrapper_prefixes({}) == {}


def test_prefixes_of_activation_checkpointing_are_removed():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
        checkpoint_wrapper,
        offload_wrapper,
    )

    bare = Module()
    expected = list(named_parameters(bare))
    inside = nn.ModuleDict({"a": checkpoint_wrapper(Module())})
    assert "a._checkpoint_wrapped_module.module.weight" in dict(inside.named_parameters())
    assert list(named_parameters(inside)) == [f"a.{name}" for name in expected]
    assert list(named_modules(inside)) == list(named_modules(nn.ModuleDict({"a": Module()})))
    for wrapped in (
        checkpoint_wrapper(bare),
        offload_wrapper(nn.DataParallel(bare)),
        nn.DataParallel(checkpoint_wrapper(checkpoint_wrapper(bare))),
    ):
        assert list(named_parameters(wrapped)) == expected


def test_an_attribute_called_like_a_prefix_is_kept_inside_a_wrapper():
    inner = nn.ModuleDict({"module": nn.ModuleDict({"module": nn.Linear(1, 1, bias=False)})})
    assert list(named_parameters(nn.DataParallel(inner))) == ["module.module.weight"]


def test_tied_weights_count_once_under_their_first_name():
    model = nn.ModuleDict({"embed": nn.Embedding(5, 3), "unembed": nn.Linear(3, 5, bias=False)})
    model["unembed"].weight = model["embed"].weight
    assert ParameterTable.from_module(model).names == ("embed.weight",)
    assert ParameterTable.from_module(model).size == 15


def test_intervals_components_and_locate_agree_at_every_boundary():
    for name in table().names:
        start, stop = table().interval(name)
        assert table().locate(start) == table().locate(stop - 1) == name
        assert table().component(name) == Component(name, ((start, stop),))
    for column in (-1, 10):
        with pytest.raises(IndexError, match=f"go from 0 to 9, but {column} was asked for"):
            table().locate(column)


def test_tensors_without_entries_are_never_located():
    empty = ParameterTable(("a", "nothing", "b"), ((2,), (0, 3), (1,)))
    assert empty.interval("nothing") == (2, 2)
    assert [empty.locate(column) for column in range(3)] == ["a", "a", "b"]


def test_an_unknown_name_is_answered_with_the_closest():
    with pytest.raises(KeyError, match=r"'module.wieght'; the closest.*\['module.weight', "):
        table().interval("module.wieght")
    with pytest.raises(KeyError, match=r"of the 3 names are \['scale', 'module.weight'"):
        table().component("zzzz")


def test_flatten_and_unflatten_undo_each_other():
    model = Module()
    named = {name: p.detach() for name, p in named_parameters(model).items()}
    vector = table().flatten(dict(reversed(named.items())))  # the table decides the order
    assert torch.equal(vector, nn.utils.parameters_to_vector(model.parameters()))
    parts = table().unflatten(vector)
    assert list(parts) == list(named)
    assert all(torch.equal(parts[name], named[name]) for name in named)
    parts["scale"].fill_(5)
    assert vector[0] == 5  # views, no copies


def test_flatten_and_unflatten_say_what_is_missing(unchecked_types):
    with pytest.raises(ValueError, match=r"shape \(10,\) is required.*of shape \(9,\) arrived"):
        table().unflatten(torch.zeros(9))
    with pytest.raises(KeyError, match=r"\['module.weight', 'module.bias'\] are missing"):
        table().flatten({"scale": torch.ones(())})
    turned = {"weight": torch.ones(2, 3).T, "bias": torch.ones(2)}
    with pytest.raises(ValueError, match=r"'weight' must have the shape \(2, 3\) .* \(3, 2\)"):
        ParameterTable.from_module(nn.Linear(3, 2)).flatten(turned)


def test_the_table_survives_json():
    rows = json.loads(json.dumps(table().to_json()))
    assert rows[1] == {"name": "module.weight", "shape": [3, 2], "offset": 1}
    assert ParameterTable.from_json(rows) == table()


@pytest.mark.parametrize(
    "intervals",
    [((2, 4), (0, 1)), ((0, 3), (2, 4)), ((1, 1),), ((3, 2),), ((-1, 2),)],
    ids=["unsorted", "overlapping", "empty", "reversed", "negative"],
)
def test_components_must_be_sorted_disjoint_ranges(intervals):
    with pytest.raises(ValueError, match=r"'part' has .*Sort and merge"):
        Component("part", intervals)


def test_touching_ranges_are_disjoint_and_counted_once():
    assert Component("part", ((0, 2), (2, 5))).size == 5
    assert Component("nothing", ()).size == 0


def test_modules_are_named_without_wrappers_and_in_every_place_where_they_stand():
    shared = nn.Linear(1, 1)
    bare = nn.ModuleDict({"a": nn.Sequential(shared, shared)})
    assert list(named_modules(bare)) == ["", "a", "a.0", "a.1"]
    wrapped = named_modules(nn.DataParallel(torch.compile(bare, backend="eager")))
    assert list(wrapped) == ["", "a", "a.0", "a.1"]
    assert wrapped[""] is bare
    assert wrapped["a.1"] is shared


def test_tied_tensors_can_be_asked_for_under_every_name():
    model = nn.ModuleDict({"embed": nn.Embedding(5, 3), "unembed": nn.Linear(3, 5, bias=False)})
    model["unembed"].weight = model["embed"].weight
    found = named_parameters(nn.DataParallel(model), tied=True)
    assert list(found) == ["embed.weight", "unembed.weight"]
    assert found["embed.weight"] is found["unembed.weight"]


def test_masks_are_flattened_like_tensors():
    masks = {
        n: torch.zeros(s, dtype=torch.bool)
        for n, s in zip(table().names, table().shapes, strict=True)
    }
    masks["module.weight"][:, 1] = True
    part = Component.from_mask("column", table().flatten(masks))
    assert part.columns.tolist() == [2, 4, 6]
    assert table().unflatten(part.mask(10))["module.weight"].sum() == 3


rows = st.lists(st.booleans(), max_size=30)
# Masks with regular stretches, where ranges are grouped into blocks.
masks = st.one_of(
    rows,
    st.lists(
        st.tuples(st.lists(st.booleans(), min_size=1, max_size=6), st.integers(1, 6)), max_size=4
    ).map(lambda parts: [bit for row, n in parts for bit in row * n]),
)


@given(masks)
def test_a_mask_a_component_and_its_intervals_are_the_same(mask: list[bool]):
    wanted = torch.tensor(mask, dtype=torch.bool)
    part = Component.from_mask("part", wanted)
    assert torch.equal(part.mask(len(mask)), wanted)
    assert torch.equal(part.columns, wanted.nonzero().flatten())
    assert part.size == wanted.sum()
    assert part.stop == (0 if part.size == 0 else int(part.columns[-1]) + 1)
    assert all(a < b for a, b in part.intervals)
    assert all(b < a for (_, b), (a, _) in zip(part.intervals, part.intervals[1:], strict=False))
    same = Component("part", part.intervals)
    assert part == same
    assert hash(part) == hash(same)
    assert Component.from_json(json.loads(json.dumps(part.to_json()))) == part
    assert pickle.loads(pickle.dumps(part)) == part


block = st.tuples(st.integers(0, 30), st.integers(1, 4), st.integers(0, 5), st.integers(1, 6))


@given(st.lists(block, max_size=5))
def test_blocks_in_any_order_are_their_union(drawn: list[tuple[int, int, int, int]]):
    blocks = np.array([(a, n, n + gap, count) for a, n, gap, count in drawn], dtype=np.int64)
    wanted = torch.zeros(100, dtype=torch.bool)
    for start, length, stride, count in blocks.reshape(-1, 4).tolist():
        for i in range(count):
            wanted[start + i * stride : start + i * stride + length] = True
    part = Component("part", blocks=blocks.reshape(-1, 4))
    assert torch.equal(part.mask(100), wanted)
    assert part.size == wanted.sum()


def test_a_regular_component_is_one_block_however_many_ranges_it_has():
    ranges = [(7 + 100 * i, 10 + 100 * i) for i in range(5000)]
    part = Component("columns", ranges)
    assert part.blocks.tolist() == [[7, 3, 100, 5000]]
    assert part.intervals == tuple(ranges)


def test_components_differ_by_name_and_by_columns():
    part = Component("part", ((0, 2), (4, 5)))
    assert part != Component("other", ((0, 2), (4, 5)))
    assert part != Component("part", ((0, 2), (5, 6)))
    assert part != Component("part", ((0, 3), (4, 5)))
    assert part != "part"


def test_a_component_prints_its_ranges_or_how_many_there_are():
    assert repr(Component("part", ((0, 2), (4, 5)))) == "Component('part', ((0, 2), (4, 5)))"
    many = Component("many", [(2 * i, 2 * i + 1) for i in range(2000)])
    assert repr(many) == "Component('many', 2,000 columns in 2,000 ranges)"


def test_a_component_cannot_be_changed():
    part = Component("part", ((0, 2),))
    with pytest.raises(AttributeError):
        part.name = "other"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="read-only"):
        part.blocks[0, 0] = 5


def test_blocks_that_make_no_sense_and_masks_that_are_too_short_are_refused():
    for wrong in ([-1, 1, 1, 1], [0, 0, 1, 1], [0, 3, 2, 4], [0, 1, 1, 0]):
        with pytest.raises(ValueError, match=r"blocks must be rows.*'part' has"):
            Component("part", blocks=np.array([wrong]))
    with pytest.raises(ValueError, match=r"at least 5 columns is required for 'part'.*n_columns=4"):
        Component("part", ((2, 5),)).mask(4)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.tensor([0.3, 0.0, -1.0]), r"dtype torch.bool is required for 'x'.*float32"),
        (torch.ones(2, 2, dtype=torch.bool), r"\(2, 2\) of torch.bool"),
    ],
)
def test_a_mask_must_be_boolean_and_flat(unchecked_types, mask, message):
    with pytest.raises(ValueError, match=message):
        Component.from_mask("x", mask)


def test_a_part_made_from_a_mask_fits_vectors_of_its_length_only():
    part = Component.from_mask("x", torch.ones(3, dtype=torch.bool))
    assert part.fits(3)
    assert not part.fits(4)
    assert Component("x", ((0, 3),)).fits(4)
