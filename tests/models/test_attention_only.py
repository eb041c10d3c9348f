import pytest
import torch
from torch.nn.functional import layer_norm

import phasescope as ps
from phasescope.components import head_factors, verify
from phasescope.models import AttentionOnly

SIZE = {"d_vocab": 11, "n_ctx": 9, "d_model": 8, "n_heads": 2}


def network(n_layers: int, seed: int = 0) -> AttentionOnly:
    return AttentionOnly(**SIZE, n_layers=n_layers, seed=seed)


def test_sizes_are_those_of_the_recipe():
    for n_layers, size in ((1, 28_928), (2, 45_440)):
        model = AttentionOnly(
            d_vocab=64, n_ctx=64, d_model=64, n_heads=4, n_layers=n_layers, seed=0
        )
        assert sum(p.numel() for p in model.parameters()) == size


def test_logits_equal_a_slow_evaluation_in_float64(float64_default: None):
    model = network(2).double()
    tokens = torch.randint(0, 11, (3, 7), generator=torch.Generator().manual_seed(0))
    x = model.embed["W_E"][tokens]
    for block in model.blocks:
        normed = layer_norm(x, (8,), block["ln1"].weight, block["ln1"].bias)
        placed, a = normed + model.pos_embed["W_pos"][:7], block["attn"]
        added = torch.zeros_like(x)
        for h in range(2):
            q, k, v = placed @ a.W_Q[h], placed @ a.W_K[h], normed @ a.W_V[h]
            for b in range(3):
                for t in range(7):
                    weights = (k[b, : t + 1] @ q[b, t] / 2).softmax(0)
                    added[b, t] += weights @ v[b, : t + 1] @ a.W_O[h]
        x = x + added
    slow = layer_norm(x, (8,), model.ln_final.weight, model.ln_final.bias) @ model.unembed["W_U"]
    torch.testing.assert_close(model(tokens), slow)
    detailed, patterns, outputs = model.run(tokens, patterns=True)
    torch.testing.assert_close(detailed, slow)
    assert patterns[1].shape == (3, 2, 7, 7)
    assert outputs[0].shape == (3, 2, 7, 8)


def test_values_carry_no_positions_and_the_global_random_state_is_not_touched():
    state = torch.get_rng_state()
    model = network(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(network(1).blocks[0]["attn"].W_Q, model.blocks[0]["attn"].W_Q)
    constant = torch.full((1, 9), 3)
    logits = model(constant)[0]
    # Of equal tokens every value is the same, whatever the positions.
    torch.testing.assert_close(logits, logits[:1].expand(9, -1))


def test_replacing_a_heads_output_by_its_own_changes_nothing_and_by_zero_silences_it():
    model = network(2)
    tokens = torch.randint(0, 11, (2, 9), generator=torch.Generator().manual_seed(0))
    logits, _, outputs = model.run(tokens, patterns=True)
    same = model.run(tokens, replace={(1, 0): outputs[1][:, 0]})[0]
    torch.testing.assert_close(same, logits)
    silenced = model.run(tokens, replace={(0, 1): torch.zeros_like(outputs[0][:, 1])})[0]
    with torch.no_grad():
        model.blocks[0]["attn"].W_O[1] = 0
    torch.testing.assert_close(model(tokens), silenced)


def test_heads_are_known_to_components():
    model = network(2)
    assert list(ps.components(model, "heads")) == ["l0h0", "l0h1", "l1h0", "l1h1"]
    assert head_factors(model)["l1h0"].o.shape == (8, 4)
    tokens = torch.randint(0, 11, (4, 9), generator=torch.Generator().manual_seed(0))
    weights = torch.randn(4, 9, 11, generator=torch.Generator().manual_seed(1))
    verify(model.double(), lambda model: (model(tokens) * weights).sum())


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="d_model=8 and n_heads=3"):
        AttentionOnly(**(SIZE | {"n_heads": 3}), n_layers=1, seed=0)


def test_heads_and_tokens_that_do_not_exist_are_refused(unchecked_types: None):
    model, tokens = network(2), torch.tensor([[1, 2, 3]])
    for key in ((2, 0), (0, 2), (0, -1)):
        with pytest.raises(ValueError, match=r"layers 0 to 1 with heads 0 to 1, but \("):
            model.run(tokens, replace={key: torch.zeros(1, 3, 8)})
    for token in (-1, 11):
        with pytest.raises(IndexError):
            model(torch.tensor([[token, 2]]))
