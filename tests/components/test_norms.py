import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from components import toys
from phasescope.components import ComponentNorms, Subspace, components
from phasescope.components.grids import MAX_RUN, cells
from phasescope.models import MLP, ConvNet, seeded
from phasescope.parameters import Component, ParameterTable


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(table: ParameterTable, seed: int = 0) -> list[Tensor]:
    drawn = generator(seed)
    return [torch.randn(shape, generator=drawn) for shape in table.shapes]


def reference(parts: dict[str, Component], tensors: list[Tensor]) -> Tensor:
    vector = torch.cat([tensor.double().reshape(-1) for tensor in tensors])
    return torch.stack([vector[part.columns].norm() for part in parts.values()])


def largest_error(
    parts: dict[str, Component], table: ParameterTable, tensors: list[Tensor]
) -> float:
    found, wanted = ComponentNorms(parts, table)(tensors), reference(parts, tensors)
    assert found.dtype == torch.float32
    zero = wanted == 0
    assert not found[zero].any()
    return ((found.double() - wanted).abs() / wanted)[~zero].max().item()


def everything(model: nn.Module) -> tuple[dict[str, Component], ParameterTable]:
    selectors = ["full", "layers", "neurons", "tensors"]
    if not isinstance(model, MLP | ConvNet):
        selectors += ["heads", "groups", "l*h* *", "l* attn", "l* mlp"]
    return components(model, *selectors), ParameterTable.from_module(model)


MODELS = {**toys.FAMILIES, "MLP": lambda: MLP((9, 8, 7, 3)), "ConvNet": lambda: ConvNet(width=4)}


@pytest.mark.parametrize("name", MODELS)
def test_every_component_has_the_norm_of_its_columns(name: str):
    parts, table = everything(seeded(MODELS[name], 0))
    # float32 squares and short float32 sums: rounding of 6e-8 each, far fewer than 16 in a row.
    assert largest_error(parts, table, draws(table)) < 1e-6


@given(st.data())
def test_any_overlapping_components_of_any_tensors_are_summed_right(data: st.DataObject):
    shapes = data.draw(
        st.lists(st.lists(st.integers(0, 7), max_size=3).map(tuple), min_size=1, max_size=4)
    )
    table = ParameterTable(tuple(f"t{i}" for i in range(len(shapes))), tuple(shapes))
    n = data.draw(st.integers(1, 4))
    masks = [
        data.draw(st.lists(st.booleans(), min_size=table.size, max_size=table.size))
        for _ in range(n)
    ]
    parts = {
        f"c{i}": Component.from_mask(f"c{i}", torch.tensor(mask, dtype=torch.bool))
        for i, mask in enumerate(masks)
    }
    tensors = [torch.randint(1, 5, shape, generator=generator()).float() for shape in shapes]
    norms, expected = ComponentNorms(parts, table), reference(parts, tensors).float()
    # Whole numbers: nothing but roots is rounded, in float64 too little to change a float32.
    assert torch.equal(norms([tensor.double() for tensor in tensors]), expected)
    torch.testing.assert_close(norms(tensors), expected, rtol=1e-6, atol=0)


def test_a_mask_in_a_tensor_costs_as_many_cells_as_there_are_pieces():
    table = ParameterTable(("weight", "bias"), ((1009, 97), (13,)))
    mask = torch.zeros(table.size, dtype=torch.bool)
    mask[17:70_001] = mask[90_000:] = True
    parts = {"mask": Component.from_mask("mask", mask)}
    assert [grid.n_cells for grid in cells(list(parts.values()), table).grids] == [4, 1]
    assert largest_error(parts, table, draws(table)) < 1e-6


def test_heads_and_neurons_cost_a_cell_per_head_or_neuron_and_axis():
    model = seeded(toys.FAMILIES["nanoGPT"], 0)
    parts, table = components(model, "l0h* o", "l0n* out"), ParameterTable.from_module(model)
    found = {table.names[g.tensor]: g.n_cells for g in cells(list(parts.values()), table).grids}
    assert found == {
        "transformer.h.0.attn.c_proj.weight": toys.N_HEADS,
        "transformer.h.0.mlp.c_proj.weight": toys.D_MLP,
    }


def test_long_sums_in_float32_lose_less_than_a_millionth_where_pytorch_loses_more():
    # Equal entries: all roundings of a running sum go the same way.
    table = ParameterTable(("weight",), ((1 << 20,),))
    tensors = [torch.full((1 << 20,), 0.1)]
    parts = {"all": table.component("weight")}
    wanted = reference(parts, tensors)
    assert largest_error(parts, table, tensors) < 1e-6
    plain = torch._foreach_norm(tensors)[0].double()  # pyright: ignore[reportPrivateImportUsage]
    assert ((plain - wanted).abs() / wanted).item() > 1e-6


@pytest.mark.parametrize("size", [1, MAX_RUN - 1, MAX_RUN + 1, 2 * MAX_RUN, 10_007, 3 * 10_007])
@pytest.mark.parametrize("repeats", [1, 3])
def test_every_way_of_summing_is_accurate(size: int, repeats: int):
    table = ParameterTable(("weight",), ((repeats, 2, size),))
    blocks = [[[0, size, 2 * size, repeats]], [[size, size, 2 * size, repeats]]]
    parts = {
        str(i): Component(str(i), blocks=torch.tensor(b).numpy()) for i, b in enumerate(blocks)
    }
    assert largest_error(parts, table, draws(table)) < 1e-6


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (torch.float32, 1e25),  # squares overflow in float32
        (torch.float32, 1e-22),  # squares lose digits in float32
        (torch.float64, 1e-30),
        (torch.float64, 1e30),
        (torch.bfloat16, 1.0),
        (torch.bfloat16, 1e25),
        (torch.float16, 100.0),
    ],
)
def test_squares_beyond_the_range_of_float32_and_other_dtypes_are_summed_right(
    dtype: torch.dtype, scale: float
):
    parts, table = everything(seeded(MODELS["Conv1D"], 0))
    tensors = [(tensor.double() * scale).to(dtype) for tensor in draws(table)]
    assert largest_error(parts, table, tensors) < 1e-6


def test_what_does_not_fit_into_float32_is_infinite_or_zero_as_documented():
    table = ParameterTable(("a", "b"), ((3,), (2,)))
    norms = ComponentNorms({"a": table.component("a"), "b": table.component("b")}, table)
    inf, nan = math.inf, math.nan

    def pair(a: float, b: float, dtype: torch.dtype = torch.float32) -> list[float]:
        return norms([torch.full((3,), a, dtype=dtype), torch.full((2,), b, dtype=dtype)]).tolist()

    assert pair(inf, 1.0) == [inf, pytest.approx(math.sqrt(2))]
    assert math.isnan(pair(nan, 1.0)[0])
    assert pair(nan, 3e38)[1] == inf  # 4.2e38
    assert pair(2e-23, 0.0) == [0.0, 0.0]
    assert pair(1e-22, 1.0)[0] == pytest.approx(math.sqrt(3) * 1e-22, rel=1e-6)
    assert pair(1e-40, 1e40, torch.float64) == [pytest.approx(math.sqrt(3) * 1e-40, rel=1e-4), inf]


def test_layout_in_memory_and_shape_of_the_tensors_do_not_matter():
    parts, table = everything(seeded(MODELS["nanoGPT"], 0))
    tensors = draws(table)
    norms = ComponentNorms(parts, table)
    wanted = norms(tensors)
    strided = [torch.stack([t, t + 1], dim=-1)[..., 0] for t in tensors]
    turned = [t.T.contiguous().T if t.dim() == 2 else t for t in tensors]
    assert not all(t.is_contiguous() for t in strided + turned)
    for same in (strided, turned, [t.reshape(-1) for t in tensors]):
        assert torch.equal(norms(same), wanted)
    wanting = [nn.Parameter(t) for t in tensors]
    assert torch.equal(norms(wanting), wanted)
    assert not norms(wanting).requires_grad


def test_names_keep_the_order_in_which_components_and_subspaces_came():
    table = ParameterTable(("a", "b"), ((2,), (2,)))
    parts = {
        "line": Subspace("line", torch.tensor([[0.6, 0.0, 0.8, 0.0]])),
        "b": table.component("b"),
        "plane": Subspace("plane", torch.eye(4)[1:3]),
        "nothing": Component("nothing", ()),
        "all": Component("all", ((0, 4),)),
    }
    norms = ComponentNorms(parts, table)
    assert norms.names == ("line", "b", "plane", "nothing", "all")
    found = norms([torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])])
    wanted = torch.tensor([3.0, 5.0, math.sqrt(13), 0.0, math.sqrt(30)])
    torch.testing.assert_close(found, wanted, rtol=3e-7, atol=0)


def test_the_norm_of_a_subspace_is_that_of_the_projection():
    table = ParameterTable(("a", "b"), ((40, 30), (500,)))
    vectors = torch.randn(3, table.size, generator=generator(1), dtype=torch.float64)
    vectors[:, :1200] = 0  # the first tensor is left out of the product
    subspace = Subspace.spanned_by("s", vectors)
    tensors = draws(table)
    x = torch.cat([t.double().reshape(-1) for t in tensors])
    wanted = (subspace.basis.T @ subspace.basis @ x).norm()
    found = ComponentNorms({"s": subspace}, table)(tensors)
    torch.testing.assert_close(found.double(), wanted[None], rtol=2e-7, atol=0)


def test_components_of_another_model_and_wrong_tensors_are_refused():
    table = ParameterTable(("a", "b"), ((2, 2), (2,)))
    with pytest.raises(ValueError, match=r"within the 6 columns.*'far' reaches to column 6"):
        ComponentNorms({"far": Component("far", ((5, 7),))}, table)
    with pytest.raises(ValueError, match=r"must have the 6 columns.*'s' has 5"):
        ComponentNorms({"s": Subspace("s", torch.eye(5))}, table)
    norms = ComponentNorms({"a": table.component("a")}, table)
    with pytest.raises(ValueError, match=r"of sizes \[4, 2\].*but 1 of sizes \[4\]"):
        norms([torch.ones(4)])
    with pytest.raises(ValueError, match=r"of sizes \[4, 2\].*but 2 of sizes \[2, 4\]"):
        norms([torch.ones(2), torch.ones(4)])


def test_no_components_give_no_norms():
    table = ParameterTable(("a",), ((2,),))
    assert ComponentNorms({}, table)([torch.ones(2)]).shape == (0,)
    assert ComponentNorms({"n": Component("n", ())}, table)([torch.ones(2)]).tolist() == [0.0]


@pytest.mark.gpu
def test_norms_on_a_gpu_equal_those_on_the_cpu():
    parts, table = everything(seeded(MODELS["Conv1D"], 0))
    mask = torch.rand(table.size, generator=generator()) < 0.3
    parts = {**parts, "mask": Component.from_mask("mask", mask)}
    norms, tensors = ComponentNorms(parts, table), draws(table)
    for scale in (1.0, 1e25, 1e-30):
        scaled = [t * scale for t in tensors]
        found = norms([t.cuda() for t in scaled])
        assert found.is_cuda
        torch.testing.assert_close(
            found.cpu().double(), reference(parts, scaled), rtol=2e-7, atol=0
        )


def test_a_mask_over_another_number_of_parameters_is_refused():
    table = ParameterTable(("weight",), ((6,),))
    part = Component.from_mask("x", torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"within the 6 columns.*'x' was made from a mask over 3"):
        ComponentNorms({"x": part}, table)
