import json

import pytest
import torch
from torch import nn

from phasescope.parameters import Component, ParameterTable, named_parameters


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
