"""The transformer of pairs computes the textbook function at the last position."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

import phasescope as ps
from models.pair_reference import full_logits, spread_biases
from phasescope.models import ACTIVATIONS, PairTransformer
from phasescope.models.pair_forward import pair_logits

NAMES = [*ACTIVATIONS, "solu_ln", "relu_ln"]


@pytest.fixture
def build() -> Callable[..., PairTransformer]:
    def small(**settings: Any) -> PairTransformer:
        generator = torch.Generator().manual_seed(0)
        sizes = {"d_model": 8, "n_heads": 2, "d_mlp": 12}
        model = PairTransformer(7, **(sizes | settings), generator=generator)
        return spread_biases(model, generator)

    return small


def gradients(model: PairTransformer, logits: Tensor) -> dict[str, Tensor]:
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)) % 7)
    grads = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
    return dict(zip((name for name, _ in model.named_parameters()), grads, strict=True))


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"all_biases": True, "activation": "solu_ln", "d_head": 3},
        {"init": "pizza", "attention_rate": 0.3},
        {"init": "pizza", "all_biases": True, "activation": "gelu"},
        {"init": "pizza", "causal": True},
        {"attention_rate": 0.3, "causal": True},
    ],
)
def test_logits_and_gradients_are_those_of_the_full_pass(
    build: Callable[..., PairTransformer], settings: dict[str, Any], n_layers: int
):
    model = build(**settings, n_layers=n_layers).double()
    pairs = model.all_pairs()[[3, 40, 11, 11, 0]]
    fast, slow = model(pairs), full_logits(model, pairs)[:, -1]
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-13)
    found, wanted = gradients(model, fast), gradients(model, slow)
    for name, gradient in wanted.items():
        scale = float(gradient.abs().max()) + 1e-3
        assert float((found[name] - gradient).abs().max()) < 1e-12 * scale, name


def test_a_causal_network_does_not_look_ahead_whatever_its_attention_rate(
    build: Callable[..., PairTransformer],
):
    model = build(n_layers=2, attention_rate=0.5, causal=True).double()
    seen: dict[str, Tensor] = {}
    model(torch.tensor([[1, 2], [1, 3]]), hook=seen.__setitem__)
    pattern = seen["blocks.0.attn.hook_pattern"]
    assert float(pattern.triu(1).detach().abs().max()) == 0
    torch.testing.assert_close(pattern[..., 0, 0], torch.ones_like(pattern[..., 0, 0]))


@pytest.mark.parametrize("activation", NAMES)
def test_every_activation_gives_the_logits_of_the_full_pass(
    build: Callable[..., PairTransformer], activation: str
):
    model = build(activation=activation).double()
    pairs = model.all_pairs()
    torch.testing.assert_close(model(pairs), full_logits(model, pairs)[:, -1], rtol=0, atol=1e-12)


def test_at_the_published_size_logits_and_gradients_agree_in_single_precision():
    model = PairTransformer(113, generator=torch.Generator().manual_seed(1))
    pairs = model.all_pairs()[::7]
    # Where a neuron is next to zero rounding decides whether it is on, and its gradient jumps.
    pre = deepcopy(model).double().activations(pairs).pre
    clear = (pre.abs() > 1e-6).all(1)
    assert clear.double().mean() > 0.95
    pairs = pairs[clear]
    fast, slow = model(pairs), full_logits(model, pairs)[:, -1]
    assert float((fast - slow).detach().abs().max()) < 1e-5
    found, wanted = gradients(model, fast), gradients(model, slow)
    for name, gradient in wanted.items():
        assert float((found[name] - gradient).abs().max()) < 1e-5 * float(gradient.abs().max())


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("init", ["progress_measures", "pizza"])
def test_a_batch_of_seeds_gives_what_each_seed_gives_alone(init: Any, n_layers: int):
    sizes = {"d_model": 8, "n_heads": 2, "d_mlp": 12, "n_layers": n_layers, "init": init}
    models = [
        PairTransformer(
            7, **sizes, activation="relu_ln", all_biases=True,
            generator=torch.Generator().manual_seed(seed),
        ).double()
        for seed in range(3)
    ]  # fmt: skip
    stacked = {
        name: torch.stack([dict(m.named_parameters())[name].detach() for m in models])
        for name, _ in models[0].named_parameters()
    }
    shape, pairs = models[0].shape, models[0].all_pairs()
    shared = pair_logits(stacked, pairs, shape)
    own_pairs = torch.stack([pairs[i::3][:16] for i in range(3)])
    own = pair_logits(stacked, own_pairs, shape)
    for i, model in enumerate(models):
        torch.testing.assert_close(shared[i], model(pairs), rtol=0, atol=1e-13)
        torch.testing.assert_close(own[i], model(own_pairs[i]), rtol=0, atol=1e-13)


def test_the_conventions_of_the_sources_have_their_parameters_and_spreads():
    models = {
        init: PairTransformer(p, init=init, generator=torch.Generator().manual_seed(0))
        for init, p in (("progress_measures", 113), ("transformerlens", 113), ("pizza", 59))
    }
    trained = {
        init: sum(p.numel() for p in model.parameters() if p.requires_grad)
        for init, model in models.items()
    }
    assert trained["progress_measures"] == 226_816
    assert trained["transformerlens"] == 226_048

    def spread(tensor: Tensor) -> float:
        return float(tensor.detach().std())

    nanda, lens, pizza = models.values()
    for name in ("W_E", "W_Q", "W_K", "W_V", "W_O", "W_in", "W_out"):
        assert spread(getattr(nanda, name)) == pytest.approx(128**-0.5, rel=0.03)
        assert spread(getattr(lens, name)) == pytest.approx(0.8 * 128**-0.5, rel=0.03)
    assert spread(nanda.W_U) == pytest.approx(114**-0.5, rel=0.03)
    assert spread(lens.W_U) == pytest.approx(0.8 * 128**-0.5, rel=0.03)
    assert spread(pizza.W_in) == pytest.approx(512**-0.5, rel=0.03)
    assert [m.n_outputs for m in models.values()] == [114, 113, 59]
    assert [m.shape.n_context for m in models.values()] == [3, 3, 2]
    assert pizza.W_E.shape == (59, 128)


def test_hooks_see_every_intermediate_and_may_replace_it(
    build: Callable[..., PairTransformer],
):
    model = build(activation="solu_ln", n_layers=2)
    pairs = model.all_pairs()
    seen: dict[str, tuple[int, ...]] = {}
    model(pairs, lambda name, value: seen.update({name: tuple(value.shape)}))
    assert seen["blocks.0.mlp.hook_post"] == (49, 3, 12)
    assert seen["blocks.0.attn.hook_pattern"] == (49, 2, 3, 3)
    assert seen["blocks.1.attn.hook_pattern"] == (49, 2, 3)
    assert seen["blocks.1.attn.hook_z"] == (49, 2, 4)
    names = ("attn.hook_pattern", "attn.hook_z", "hook_attn_out", "hook_resid_mid")
    names += ("mlp.hook_pre", "mlp.hook_mid", "mlp.hook_post", "hook_mlp_out", "hook_resid_post")
    assert list(seen) == [f"blocks.{layer}.{name}" for layer in (0, 1) for name in names]

    def silence(name: str, value: Tensor) -> Tensor | None:
        return torch.zeros_like(value) if name == "blocks.1.hook_resid_post" else None

    assert float(model(pairs, silence).detach().abs().max()) == 0.0


def test_activations_are_those_at_the_last_position(build: Callable[..., PairTransformer]):
    model = build(activation="relu_ln")
    found = model.activations(model.all_pairs())
    assert torch.equal(found.mid, found.pre.relu())
    assert not torch.equal(found.mid, found.post)
    torch.testing.assert_close(found.pattern.sum(-1), torch.ones(49, 2))
    torch.testing.assert_close(found.logits, found.resid_post @ model.W_U)
    attn_out = torch.einsum("nhe,hed->nd", found.z, model.W_O[0])
    resid = model.W_E[-1] + model.W_pos[-1] + attn_out
    torch.testing.assert_close(found.resid_mid, resid.detach())
    torch.testing.assert_close(found.pre, (resid @ model.W_in[0] + model.b_in[0]).detach())
    plain = build()
    post = plain.activations(plain.all_pairs())
    assert torch.equal(post.mid, post.post)
    (row,) = model(torch.tensor([[2, 5]])).detach()
    torch.testing.assert_close(row, found.logits[2 * 7 + 5])


def test_heads_and_neurons_are_found_by_their_names(build: Callable[..., PairTransformer]):
    parts = ps.components(build(n_layers=2), "heads", "neurons")
    assert len(parts) == 2 * 2 + 2 * 12


def test_the_three_tanh_and_error_function_forms_of_gelu_are_two_functions():
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    gelu, new, fast = (ACTIVATIONS[name](x) for name in ("gelu", "gelu_new", "gelu_fast"))
    tanh = torch.nn.functional.gelu(x, approximate="tanh")
    assert float((new - tanh).abs().max()) < 1e-14
    assert float((fast - new).abs().max()) < 1e-9  # the printed constant has ten digits
    assert 4e-4 < float((gelu - new).abs().max()) < 4.8e-4
    x = x.float()
    rounding = (ACTIVATIONS["gelu_new"](x) - ACTIVATIONS["gelu_fast"](x)).abs().max()
    assert 0 < float(rounding) < 1e-6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activation": "mish"}, "activation must be one of relu, gelu, .*but 'mish' arrived"),
        ({"init": "xavier"}, "init must be one of progress_measures, .*but 'xavier'"),
        ({"d_model": 10, "n_heads": 4}, "multiple of n_heads where d_head is not given, but 10"),
        ({"n_layers": 0}, "all sizes must be positive, .*n_layers=0"),
        ({"d_head": 0}, "all sizes must be positive, .*d_head=0"),
        ({"attention_rate": 1.5}, "attention_rate must lie between 0 and 1, but it is 1.5"),
        ({"n_outputs": 6}, "a logit for every operand .*n_outputs is 6 for 7 operands"),
        ({"n_context": 4}, "context of 2 or 3 tokens, .*n_context 4"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_what_does_not_fit_is_said(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        PairTransformer(7, **settings)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (
            torch.tensor([1, 2]),
            r"shape \(n, 2\) of torch.int64, .* but shape \(2,\) of torch.int64",
        ),
        (torch.tensor([[1, 2, 7]]), r"but shape \(1, 3\) of torch.int64 arrived"),
        (torch.tensor([[1.0, 2.0]]), r"shape \(1, 2\) of torch.float32 .*convert with pairs.long"),
        ([[1, 2]], "but a list arrived"),
        (torch.tensor([[0, 6], [1, 9]]), r"tokens from 0 to 6, .* 1 of the 2 .* 1 with \[1, 9\]"),
        (torch.tensor([[7, 2]]), r"from 0 to 6, .* pair 0 with \[7, 2\]. .* \"=\" is no operand"),
        (torch.tensor([[-1, 2]]), r"from 0 to 6, .* pair 0 with \[-1, 2\]. .*with n_tokens=p"),
    ],
)
@pytest.mark.parametrize("settings", [{}, {"n_layers": 2}, {"init": "pizza"}])
@pytest.mark.usefixtures("unchecked_types")
def test_pairs_that_are_none_are_refused(
    build: Callable[..., PairTransformer], settings: dict[str, Any], pairs: Any, message: str
):
    model = build(**settings)
    with pytest.raises(ValueError, match=message):
        model(pairs)
    if (tables := model.tables()) is not None:
        with pytest.raises(ValueError, match=message):
            model.from_tables(tables, pairs)


def test_an_index_error_of_a_hook_is_its_own(build: Callable[..., PairTransformer]):
    def fail(name: str, value: Tensor) -> None:
        raise IndexError(name)

    with pytest.raises(IndexError, match="hook_pattern"):
        build()(torch.tensor([[1, 2]]), fail)
