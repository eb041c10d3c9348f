"""State dicts of the three layouts load to the same function; what does not fit is said."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import phasescope as ps
from models.pair_reference import spread_biases
from phasescope.models import (
    PairTransformer,
    load_grokking_checkpoint,
    pair_transformer_from_state,
    save_pair_transformer,
)

State = dict[str, Tensor]


def small(**settings: Any) -> PairTransformer:
    generator = torch.Generator().manual_seed(0)
    sizes = {"d_model": 8, "n_heads": 2, "d_mlp": 12}
    return spread_biases(PairTransformer(7, **(sizes | settings), generator=generator), generator)


def as_progress_measures(model: PairTransformer) -> State:
    """The layout of the first grokking code: outputs first, W_O flat, masks kept."""
    state: State = {}
    for name, value in model.state_dict().items():
        last = name.rpartition(".")[2]
        if last == "W_E" or last in ("W_in", "W_out"):
            value = value.T
        elif last in ("W_Q", "W_K", "W_V"):
            value = value.transpose(1, 2)
        elif last == "W_O":
            value = value.reshape(-1, value.shape[-1]).T
        state[name] = value.clone()
    c = model.shape.n_context
    for layer in range(model.shape.n_layers):
        state[f"blocks.{layer}.attn.mask"] = torch.ones(c, c).tril()
    return state


def as_transformerlens(model: PairTransformer) -> State:
    """The layout of HookedTransformer: all biases, masks and a fill value."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for layer in range(model.shape.n_layers):
        prefix = f"blocks.{layer}.attn."
        heads, d_head, d_model = state[prefix + "W_O"].shape
        for letter in "QKV":
            state.setdefault(f"{prefix}b_{letter}", torch.zeros(heads, d_head))
        state.setdefault(f"{prefix}b_O", torch.zeros(d_model))
        state[prefix + "mask"] = torch.ones(3, 3).tril().bool()
        state[prefix + "IGNORE"] = torch.tensor(-torch.inf)
    state.setdefault("unembed.b_U", torch.zeros(model.n_outputs))
    return state


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("layout", [as_progress_measures, as_transformerlens])
@pytest.mark.parametrize("d_model", [8, 7])  # 7 tokens: an embedding of 8 x 8, and a narrower one
def test_both_layouts_of_three_tokens_give_the_model_back(
    tmp_path: Path, layout: Callable[[PairTransformer], State], n_layers: int, d_model: int
):
    model = small(n_layers=n_layers, d_model=d_model, d_head=4)
    torch.save(layout(model), tmp_path / "model.pt")
    loaded = load_grokking_checkpoint(tmp_path / "model.pt")
    assert loaded.shape == model.shape
    assert not loaded.training
    torch.testing.assert_close(loaded.logits_of_all_pairs(), model.logits_of_all_pairs())


def test_transformerlens_without_a_logit_for_equals_and_with_biases_everywhere(tmp_path: Path):
    model = small(init="transformerlens", all_biases=True, activation="solu_ln")
    torch.save({"model": as_transformerlens(model), "test_losses": [1.0]}, tmp_path / "run.pth")
    loaded = load_grokking_checkpoint(tmp_path / "run.pth", activation="solu_ln")
    assert loaded.n_outputs == 7
    torch.testing.assert_close(loaded.logits_of_all_pairs(), model.logits_of_all_pairs())


def test_a_layer_norm_without_weights_is_one_of_weights_one(tmp_path: Path):
    model = PairTransformer(7, d_model=8, n_heads=2, d_mlp=12, activation="solu_ln")
    state = {k: v for k, v in as_transformerlens(model).items() if ".ln." not in k}
    loaded = pair_transformer_from_state(state, activation="solu_ln")
    torch.testing.assert_close(loaded.logits_of_all_pairs(), model.logits_of_all_pairs())


def test_the_last_of_a_series_of_state_dicts_is_taken(tmp_path: Path):
    first, last = small(), small(d_head=5)
    series = {"state_dicts": [as_progress_measures(m) for m in (first, last)], "epochs": [0, 1]}
    torch.save(series, tmp_path / "full_run_data.pth")
    loaded = load_grokking_checkpoint(tmp_path / "full_run_data.pth")
    torch.testing.assert_close(loaded.logits_of_all_pairs(), last.logits_of_all_pairs())


def test_a_pizza_model_reads_activation_and_attention_rate_beside_it(tmp_path: Path):
    model = small(init="pizza", attention_rate=0.25, activation="gelu", n_layers=2)
    torch.save(as_progress_measures(model), tmp_path / "model_x1.pt")
    config = {"act_fn": "GeLU", "attn_coeff": 0.25, "attention_dir": "casual"}
    (tmp_path / "config_x1.json").write_text(json.dumps(config))
    loaded = load_grokking_checkpoint(tmp_path / "model_x1.pt")
    assert loaded.shape == model.shape
    torch.testing.assert_close(loaded.logits_of_all_pairs(), model.logits_of_all_pairs())
    other = load_grokking_checkpoint(tmp_path / "model_x1.pt", attention_rate=1.0)
    assert not torch.equal(other.logits_of_all_pairs(), model.logits_of_all_pairs())


def test_what_is_saved_loads_with_its_activation_and_attention(tmp_path: Path):
    model = small(init="pizza", attention_rate=0.5, activation="relu_ln", causal=True, n_layers=2)
    save_pair_transformer(model, tmp_path / "model.safetensors")
    loaded = load_grokking_checkpoint(tmp_path / "model.safetensors")
    assert loaded.shape == model.shape
    assert torch.equal(loaded.logits_of_all_pairs(), model.logits_of_all_pairs())


def test_the_published_pizza_model_has_its_published_loss_and_norm():
    folder = Path(os.environ.get("PHASESCOPE_DATA", "none"), "grokked_pizza_a")
    if not folder.is_dir():
        pytest.skip("needs a model of Zhong et al.: PHASESCOPE_DATA has no grokked_pizza_a")
    model = load_grokking_checkpoint(folder / "model_p99zdpze5l.pt").double()
    assert (model.n_tokens, model.shape.attention_rate, model.shape.causal) == (59, 0, False)
    logits = model.logits_of_all_pairs().flatten(0, 1)
    labels = model.all_pairs().sum(1) % 59
    assert float((logits.argmax(1) == labels).double().mean()) == 1.0
    loss = float(torch.nn.functional.cross_entropy(logits, labels))
    assert loss == pytest.approx(1.38433e-7, rel=1e-5)
    norm = sum(float(p.detach().square().sum()) for p in model.parameters()) ** 0.5
    assert norm == pytest.approx(22.8538, abs=5e-5)


def without(state: State, *names: str) -> State:
    return {k: v for k, v in state.items() if k not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "unembed.W_U"), "is required, but unembed.W_U is missing"),
        (lambda s: {"fc1.weight": torch.ones(2)}, "embed.W_E, .* is missing; there are fc1.weight"),
        (lambda s: {}, "there are no tensors"),
        (
            lambda s: {f"net.{k}": v for k, v in s.items()} | {"loss": torch.ones(1)},
            "embed.W_E, .* is missing; .* Keep the names that begin with 'net.', without it",
        ),
        (lambda s: s | {"blocks.0.ln1.w": torch.ones(8)}, "without LayerNorm .* blocks.0.ln1.w"),
        (lambda s: without(s, "blocks.0.mlp.b_in"), "does not fit .* missing: blocks.0.mlp.b_in"),
        (lambda s: s | {"blocks.0.mlp.W_gate": torch.ones(8, 12)}, "not part of .*mlp.W_gate"),
        (
            lambda s: (
                s | {"blocks.0.mlp.ln.w": torch.ones(12), "blocks.0.mlp.ln.b": torch.ones(12)}
            ),
            "LayerNorm inside the MLP: pass activation='relu_ln'",
        ),
        (
            lambda s: s | {"blocks.0.mlp.W_out": torch.ones(11, 8)},
            r"W_out is \(11, 8\) and must be \(12, 8\)",
        ),
        (lambda s: s | {"pos_embed.W_pos": torch.ones(5, 8)}, "but W_pos has 5 positions"),
        (lambda s: s | {"blocks.0.attn.W_Q": torch.ones(8, 8)}, r"W_Q must have three axes"),
        (lambda s: s | {"unembed.W_U": torch.ones(8, 5)}, "n_outputs is 5 for 7 operands"),
        (
            lambda s: s | {"blocks.0.mlp.b_out": torch.full((8,), torch.nan)},
            "must be finite, but blocks.0.mlp.b_out holds NaN .*Take an earlier checkpoint",
        ),
        (lambda s: s | {"pos_embed.W_pos": torch.ones(2, 8)}, "attention_rate is required"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_a_state_dict_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[State], State], message: str
):
    torch.save(change(as_transformerlens(small())), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=f"model.pt: .*{message}"):
        load_grokking_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize("prefix", ["model.", "_orig_mod.", "module._orig_mod.", "model.model."])
def test_prefixes_of_wrappers_are_removed(tmp_path: Path, prefix: str):
    model = small()
    state = {prefix + name: value for name, value in as_transformerlens(model).items()}
    torch.save({"state_dict": state}, tmp_path / "wrapped.pt")
    loaded = load_grokking_checkpoint(tmp_path / "wrapped.pt")
    torch.testing.assert_close(loaded.logits_of_all_pairs(), model.logits_of_all_pairs())


def test_the_checkpoint_of_a_recorder_is_read_without_its_optimizer(tmp_path: Path):
    model = small()
    optimizer = torch.optim.AdamW(model.parameters())
    when = ps.every(1)
    with ps.Recorder(
        tmp_path, model, optimizer, save={"weights": when}, checkpoint=when
    ) as recorder:
        model(model.all_pairs()).sum().backward()
        optimizer.step()
        recorder.end_step()
    (file,) = tmp_path.glob("checkpoints/step-000000001/*.safetensors")
    loaded = load_grokking_checkpoint(file)
    assert torch.equal(loaded.logits_of_all_pairs(), model.logits_of_all_pairs())


@pytest.mark.parametrize("name", ["file.pt", "file.pth", "file.safetensors"])
@pytest.mark.parametrize("content", [b"", b"i\xff\x00", b"PK\x03\x04" + bytes(9), b"\x80\x02."])
def test_files_that_nothing_can_read_are_refused(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    kind = "safetensors" if name.endswith("s") else "PyTorch"
    found = f"its {len(content)} bytes cannot be read as one" if content else "it is empty"
    with pytest.raises(ValueError, match=f"^{name} must be a {kind} file .*{found}.*again.$"):
        load_grokking_checkpoint(tmp_path / name)


def test_a_network_in_float64_keeps_its_digits(tmp_path: Path):
    model = small().double()
    with torch.no_grad():
        model.W_E.add_(1e-12)
    save_pair_transformer(model, tmp_path / "model.safetensors")
    again = load_grokking_checkpoint(tmp_path / "model.safetensors")
    assert again.W_E.dtype == torch.float64
    assert torch.equal(again.W_E, model.W_E)


def test_a_folder_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"must be a file .* it is a folder. Name the file in it"):
        load_grokking_checkpoint(tmp_path)


def test_files_that_hold_no_state_dict_are_refused(tmp_path: Path):
    torch.save({"config": {"p": 113}, "epoch": 3}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other.pt must hold a state dict .* keys config, epoch"):
        load_grokking_checkpoint(tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"it holds a list"):
        load_grokking_checkpoint(tmp_path / "list.pt")
    torch.save({0: torch.ones(1)}, tmp_path / "numbers.pt")
    with pytest.raises(ValueError, match=r"numbers.pt must hold a state dict .* keys 0"):
        load_grokking_checkpoint(tmp_path / "numbers.pt")
    torch.save({"model": small()}, tmp_path / "code.pt")
    with pytest.raises(ValueError, match=r"code.pt .* would run code of a stranger"):
        load_grokking_checkpoint(tmp_path / "code.pt")


def test_an_unknown_activation_is_named(tmp_path: Path):
    torch.save(as_transformerlens(small()), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model.pt: activation must be one of .*'mish' arrived"):
        load_grokking_checkpoint(tmp_path / "model.pt", activation="mish")
