import math

import pytest
import torch
from torch import nn

from phasescope.analysis.direction_changes import direction_changes
from phasescope.analysis.head_changes import head_changes, product_distance, product_norm
from phasescope.components import head_factors, structure
from phasescope.parameters import ParameterTable


def flat(model: nn.Module) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


class Attention(nn.Module):
    """Separate layers; two heads of width 3."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(8, 6) for _ in range(3))
        self.o_proj = nn.Linear(6, 8)
        self.num_heads, self.head_dim = 2, 3


class HeadsFirst(nn.Module):
    """TransformerLens' layout."""

    def __init__(self) -> None:
        super().__init__()
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(torch.randn(2, 8, 3)) for _ in range(3))
        self.W_O = nn.Parameter(torch.randn(2, 3, 8))
        self.b_Q, self.b_K, self.b_V = (nn.Parameter(torch.randn(2, 3)) for _ in range(3))
        self.b_O = nn.Parameter(torch.randn(8))


class OutputsFirst(nn.Module):
    """The layout of the progress measures."""

    def __init__(self) -> None:
        super().__init__()
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(torch.randn(2, 3, 8)) for _ in range(3))
        self.W_O = nn.Parameter(torch.randn(8, 6))


class Layers(nn.Module):
    def __init__(self, attention: type[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleDict({"attn": attention()}) for _ in range(2)])


def matrices(model: Layers, i: int, j: int) -> tuple[torch.Tensor, torch.Tensor]:
    """QK, with biases as rows, and OV of a head, as its own module would form them."""
    a = model.layers[i]["attn"]
    if isinstance(a, HeadsFirst):
        q, k, v = (
            torch.cat([getattr(a, f"W_{x}")[j], getattr(a, f"b_{x}")[j][None]]) for x in "QKV"
        )
        o = a.W_O[j]
    elif isinstance(a, OutputsFirst):
        q, k, v = (getattr(a, f"W_{x}")[j].T for x in "QKV")
        o = a.W_O[:, 3 * j : 3 * j + 3].T
    else:
        rows = slice(3 * j, 3 * j + 3)
        q, k, v = (
            torch.cat([m.weight[rows].T, m.bias[rows][None]])
            for m in (a.q_proj, a.k_proj, a.v_proj)
        )
        o = a.o_proj.weight[:, rows].T
    return (q @ k.T).detach(), (v @ o).detach()


@pytest.fixture(params=[Attention, HeadsFirst, OutputsFirst])
def model(request: pytest.FixtureRequest, float64_default: None) -> Layers:
    torch.manual_seed(0)
    return Layers(request.param)


def test_norms_and_changes_equal_those_of_the_products(model: Layers):
    rows, products = [], []
    for _ in range(3):
        with torch.no_grad():
            for p in model.parameters():
                p += 0.1 * torch.randn_like(p)
        rows.append(flat(model))
        products.append([matrices(model, i, j) for i in range(2) for j in range(2)])
    found = head_changes(torch.stack(rows), head_factors(model))
    assert found.names == ("l0h0", "l0h1", "l1h0", "l1h1")
    for n in range(4):
        for t in range(3):
            qk, ov = products[t][n]
            torch.testing.assert_close(found.qk_norm[n, t], qk.norm())
            torch.testing.assert_close(found.ov_norm[n, t], ov.norm())
            if t:
                before = products[t - 1][n]
                torch.testing.assert_close(found.qk_change[n, t - 1], (qk - before[0]).norm())
                torch.testing.assert_close(found.ov_change[n, t - 1], (ov - before[1]).norm())
    torch.testing.assert_close(found.qk_relative, found.qk_change / found.qk_norm[:, :-1])
    torch.testing.assert_close(found.ov_relative, found.ov_change / found.ov_norm[:, :-1])


def test_changes_of_basis_inside_a_head_change_nothing(model: Layers):
    factors = head_factors(model)
    before, after = flat(model), flat(model) + 0.1 * torch.randn(len(flat(model)))
    moved = []
    for vector in (before, after):
        turned = vector.clone()
        for f in factors.values():
            for left, right in ((f.q, f.k), (f.v, f.o)):
                M = torch.randn(3, 3) + 2 * torch.eye(3)
                turned[left] = vector[left] @ M
                turned[right] = vector[right] @ torch.linalg.inv(M).T
        moved.append(turned)
    plain, gauged = (head_changes(torch.stack(rows), factors) for rows in ([before, after], moved))
    for field in ("qk_norm", "ov_norm", "qk_change", "ov_change"):
        a, b = getattr(plain, field), getattr(gauged, field)
        assert float(((a - b) / a).abs().max()) < 1e-10
    apart = head_changes(torch.stack([before, moved[0]]), factors)
    assert float(apart.qk_relative.abs().max()) < 1e-10
    assert float(apart.ov_relative.abs().max()) < 1e-10
    assert float((moved[0] - before).norm()) > 1


def test_a_small_change_keeps_the_digits_that_traces_lose(float64_default: None):
    torch.manual_seed(0)
    A, B = torch.randn(64, 8), torch.randn(64, 8)
    direction = torch.randn(64, 8)
    for size in (1e-3, 1e-7, 1e-11):
        exact = float(((A - (A + size * direction)) @ B.T).norm())
        got = float(product_distance(A, B, A + size * direction, B))
        assert got == pytest.approx(exact, rel=1e-9)
    C = A + 1e-11 * direction
    traces = (
        (A.T @ A * (B.T @ B)).sum() + (C.T @ C * (B.T @ B)).sum() - 2 * (A.T @ C * (B.T @ B)).sum()
    )
    assert abs(float(traces.clamp(min=0).sqrt()) / float(product_norm(A - C, B)) - 1) > 0.5


def test_a_learned_key_of_one_more_token_is_no_bias():
    plain, more = (nn.MultiheadAttention(8, 2, add_bias_kv=x) for x in (False, True))
    for name, factors in head_factors(more).items():
        assert factors.k.shape == head_factors(plain)[name].k.shape == (9, 4)


def test_heads_are_found_in_torchs_own_layer_and_not_where_there_are_none():
    layer = nn.TransformerEncoderLayer(d_model=8, nhead=2, dim_feedforward=16)
    factors = head_factors(layer)
    weight = layer.self_attn.in_proj_weight.detach()
    vector = flat(layer)
    assert torch.equal(vector[factors["l0h1"].k][:8], weight[12:16].T)
    with pytest.raises(ValueError, match="a model with attention heads is required"):
        head_factors(nn.Sequential(nn.Linear(3, 3)))


def test_bad_input_is_named(model: Layers):
    factors = head_factors(model, structure=structure(model))
    with pytest.raises(ValueError, match="at least two checkpoints and one head, but 1 and 4"):
        head_changes(flat(model)[None], factors)
    with pytest.raises(ValueError, match="the matrix has 10 columns"):
        head_changes(torch.ones(2, 10), factors)


def test_changes_along_directions_add_up_to_the_change_in_any_basis(float64_default: None):
    torch.manual_seed(0)
    table = ParameterTable(("a", "W"), ((5,), (4, 6)))
    w = torch.randn(3, 29)
    total = w[:, 5:].diff(dim=0).norm(dim=1)
    for axis, n in ((0, 4), (1, 6), (-1, 6)):
        basis = torch.linalg.qr(torch.randn(n, n)).Q
        found = direction_changes(w, "W", basis, axis=axis, table=table)
        torch.testing.assert_close(found.square().sum(0).sqrt(), total)
    bias = torch.linalg.qr(torch.randn(5, 5)).Q
    found = direction_changes(w, table.names[0], bias, axis=0, table=table)
    torch.testing.assert_close(found.square().sum(0).sqrt(), w[:, :5].diff(dim=0).norm(dim=1))
    # A planted change along one direction is found there alone.
    basis = torch.linalg.qr(torch.randn(6, 6)).Q
    w[1, 5:] = w[0, 5:] + torch.outer(torch.ones(4), basis[2]).flatten()
    found = direction_changes(w[:2], "W", basis, axis=1, table=table)[:, 0]
    expected = torch.zeros(6)
    expected[2] = 2.0
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_directions_check_their_input():
    table = ParameterTable(("W",), ((2, 3),))
    w = torch.randn(2, 6)
    with pytest.raises(ValueError, match="Pass table="):
        direction_changes(w, "W", torch.eye(3), axis=1)
    with pytest.raises(ValueError, match="length of axis 0"):
        direction_changes(w, "W", torch.eye(3), axis=0, table=table)
    with pytest.raises(ValueError, match="must be orthonormal"):
        direction_changes(w, "W", math.sqrt(2) * torch.eye(3), axis=1, table=table)
