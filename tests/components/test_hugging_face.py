"""Heads, groups and neurons of Hugging Face's models with random weights, by function.

The only module that imports transformers: it takes seconds.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components import function, toys
from phasescope.components import Cut, components, structure, verify
from phasescope.models import seeded
from phasescope.parameters import ParameterTable

hf = pytest.importorskip("transformers", reason="needs the extra `hf`")

N_VOCAB, N_CTX = 50, 16
SHAPE = {
    "vocab_size": N_VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 6,
    "max_position_embeddings": N_CTX,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attn_implementation": "eager",
}
GPT = {
    "vocab_size": N_VOCAB,
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 32,
    "n_positions": N_CTX,
    "n_inner": 6,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attn_implementation": "eager",
}
FALCON = {**SHAPE, "ffn_hidden_size": 6, "bias": True}
del FALCON["intermediate_size"]


@dataclass(frozen=True)
class Family:
    """How to build a tiny model, where its matrices are, and how many heads and groups it has."""

    build: Any
    output: str
    down: str
    counts: tuple[int, int] = (4, 4)


def family(
    name: str, config: dict[str, Any], output: str, down: str, *counts: int, **more: Any
) -> Family:
    def build() -> nn.Module:
        configuration = getattr(hf, f"{name}Config")(**config, **more)
        return getattr(hf, f"{name}ForCausalLM")(configuration)

    return Family(build, output, down, counts or (4, 4))


LLAMA = ("model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp.down_proj")
NEOX = "gpt_neox.layers.{}.attention.dense", "gpt_neox.layers.{}.mlp.dense_4h_to_h"
OWN_HEADS = "transformer.h.{}.self_attention.dense", "transformer.h.{}.mlp.dense_4h_to_h"
GPT2 = "transformer.h.{}.attn.c_proj", "transformer.h.{}.mlp.c_proj"

FAMILIES = {
    "GPT-2": Family(lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**GPT)), *GPT2),
    "GPT-NeoX": family("GPTNeoX", SHAPE, *NEOX),
    "Llama": family("Llama", SHAPE, *LLAMA, 4, 2, num_key_value_heads=2, head_dim=16),
    "Qwen3": family(
        "Qwen3", {**SHAPE, "hidden_size": 64}, *LLAMA, 4, 2, num_key_value_heads=2, head_dim=32
    ),
    "Phi-3": family("Phi3", SHAPE, *LLAMA, 4, 2, num_key_value_heads=2),
    "Falcon, groups": family(
        "Falcon", FALCON, *OWN_HEADS, 4, 2, new_decoder_architecture=True, num_kv_heads=2
    ),
    "GPTBigCode, full heads": family("GPTBigCode", GPT, *GPT2, 4, 4, multi_query=False),
    "CodeGen": family(
        "CodeGen",
        {**GPT, "n_head": 8},
        "transformer.h.{}.attn.out_proj",
        "transformer.h.{}.mlp.fc_out",
        *(8, 8),
        rotary_dim=4,
        n_ctx=N_CTX,
    ),
}


def tokens() -> Tensor:
    return torch.tensor([[3, 14, 15, 9, 26], [5, 35, 8, 9, 7]])


@pytest.fixture
def quiet() -> None:
    """Nothing on the screen about tiny vocabularies."""
    hf.logging.set_verbosity_error()


def randomised(build: Any) -> nn.Module:
    """A model in evaluation mode with no bias or gain at its starting value."""

    def made() -> nn.Module:
        model = build().double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        return model

    return seeded(made, 0)


@dataclass
class HuggingFace:
    model: nn.Module
    family: Family

    @contextmanager
    def _inputs(
        self, model: nn.Module, path: str, change: Tensor | None = None
    ) -> Iterator[list[Tensor]]:
        """What arrives at a layer, perhaps multiplied."""
        seen: list[Tensor] = []

        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            seen.append(arguments[0].detach().clone())
            return None if change is None else (arguments[0] * change,)

        handle = model.get_submodule(path).register_forward_pre_hook(hook)
        try:
            yield seen
        finally:
            handle.remove()

    def look(self, model: nn.Module) -> list[function.Inside]:
        paths = [
            name.format(i) for i in range(2) for name in (self.family.output, self.family.down)
        ]
        with ExitStack() as hooks, torch.no_grad():
            seen = [hooks.enter_context(self._inputs(model, path)) for path in paths]
            out = model(tokens(), output_attentions=True, use_cache=False)
        n_heads = self.family.counts[0]
        return [
            function.Inside(z.unflatten(-1, (n_heads, -1)), out.attentions[i], acts)
            for i, ((z,), (acts,)) in enumerate(zip(seen[::2], seen[1::2], strict=True))
        ]

    def logits(
        self, model: nn.Module, layer: int = -1, *, heads: Tensor | None, neurons: Tensor | None
    ) -> Tensor:
        path, change = self.family.output, None
        if heads is not None:
            output = model.get_submodule(path.format(layer))
            width = output.in_features if isinstance(output, nn.Linear) else output.weight.shape[0]
            change = heads.repeat_interleave(width // len(heads))
        elif neurons is not None:
            path, change = self.family.down, neurons
        with self._inputs(model, path.format(layer % 2), change), torch.no_grad():
            return model(tokens(), use_cache=False).logits


@functools.cache
def built(name: str) -> HuggingFace:
    return HuggingFace(randomised(FAMILIES[name].build), FAMILIES[name])


@pytest.fixture(params=FAMILIES)
def subject(request: pytest.FixtureRequest, quiet: None) -> HuggingFace:
    found = built(request.param)
    counts = [(x.heads.n_heads, x.heads.n_groups) for x in structure(found.model).layers]
    assert counts == [found.family.counts] * 2
    return found


def test_values_belong_to_their_heads(subject: HuggingFace):
    function.check_values(subject)


def test_outputs_belong_to_their_heads(subject: HuggingFace):
    function.check_outputs(subject)


def test_queries_and_keys_belong_to_their_heads(subject: HuggingFace):
    # Most of these models take the softmax in float32.
    function.check_patterns(subject, rtol=2**-23)


def test_rows_and_columns_belong_to_their_neurons(subject: HuggingFace):
    function.check_neurons(subject)


def test_heads_and_groups_are_their_parts(subject: HuggingFace):
    function.check_unions(subject)


def cube(output: Tensor) -> Tensor:
    return output.pow(3).sum()


def language_loss(model: nn.Module) -> Tensor:
    return cube(model(tokens(), use_cache=False).logits)


def masked_loss(model: nn.Module) -> Tensor:
    return cube(model(tokens()).logits)


def translation_loss(model: nn.Module) -> Tensor:
    return cube(model(input_ids=tokens(), decoder_input_ids=tokens()[:, :3]).logits)


def image_loss(model: nn.Module) -> Tensor:
    images = torch.linspace(-2, 2, 2 * 3 * 64, dtype=torch.float64).sin().view(2, 3, 8, 8)
    return cube(model(images).last_hidden_state)


WIDE = {**SHAPE, "num_key_value_heads": 2, "head_dim": 16}
BART = {
    "vocab_size": N_VOCAB,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 12,
    "decoder_ffn_dim": 10,
    "max_position_embeddings": N_CTX,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "forced_eos_token_id": 2,
}
T5 = {
    "vocab_size": N_VOCAB,
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 12,
    "num_layers": 1,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
OTHERS = {
    "Bloom": (
        lambda: hf.BloomForCausalLM(
            hf.BloomConfig(vocab_size=N_VOCAB, hidden_size=16, n_layer=2, n_head=4)
        ),
        language_loss,
    ),
    "MPT": (
        lambda: hf.MptForCausalLM(
            hf.MptConfig(vocab_size=N_VOCAB, d_model=32, n_layers=2, n_heads=4, expansion_ratio=1)
        ),
        language_loss,
    ),
    "Falcon, one group": (
        lambda: hf.FalconForCausalLM(
            hf.FalconConfig(**FALCON, new_decoder_architecture=False, multi_query=True)
        ),
        language_loss,
    ),
    "Falcon, full heads": (
        lambda: hf.FalconForCausalLM(
            hf.FalconConfig(**FALCON, new_decoder_architecture=False, multi_query=False)
        ),
        language_loss,
    ),
    "GPTBigCode, one group": (
        lambda: hf.GPTBigCodeForCausalLM(hf.GPTBigCodeConfig(**GPT, multi_query=True)),
        language_loss,
    ),
    "GPT-J": (lambda: hf.GPTJForCausalLM(hf.GPTJConfig(**GPT, rotary_dim=4)), language_loss),
    "Persimmon": (
        lambda: hf.PersimmonForCausalLM(hf.PersimmonConfig(**SHAPE)),
        language_loss,
    ),
    "Gemma 2": (lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**WIDE)), language_loss),
    "OPT": (
        lambda: hf.OPTForCausalLM(hf.OPTConfig(**SHAPE, ffn_dim=12, word_embed_proj_dim=32)),
        language_loss,
    ),
    "BERT": (lambda: hf.BertForMaskedLM(hf.BertConfig(**SHAPE)), masked_loss),
    "ModernBERT": (
        lambda: hf.ModernBertForMaskedLM(
            hf.ModernBertConfig(**SHAPE, cls_token_id=1, sep_token_id=2)
        ),
        masked_loss,
    ),
    "T5": (lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5)), translation_loss),
    "BART": (lambda: hf.BartForConditionalGeneration(hf.BartConfig(**BART)), translation_loss),
    "ViT": (
        lambda: hf.ViTModel(
            hf.ViTConfig(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=12,
                image_size=8,
                patch_size=4,
            )
        ),
        image_loss,
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_further_families_are_divided_as_verify_finds_them(name: str, quiet: None):
    build, loss = OTHERS[name]
    model = randomised(build)
    layers = structure(model).layers
    assert all(layer.heads is not None and layer.neurons is not None for layer in layers)
    assert [bool(layer.cross_heads) for layer in layers] == [
        "decoder" in str(layer.tensors) and name in ("T5", "BART") for layer in layers
    ]
    verify(model, loss)


def test_a_norm_over_all_heads_couples_their_queries_but_not_their_values(quiet: None):
    olmo = family("Olmo2", SHAPE, *LLAMA, 4, 2, num_key_value_heads=2)
    subject = HuggingFace(randomised(olmo.build), olmo)
    function.check_values(subject)
    function.check_outputs(subject)
    with pytest.raises(ValueError, match=r"gradient of 'l0h\d [qk]'.*A norm over the queries"):
        verify(subject.model, language_loss)


def test_wrong_divisions_of_a_real_model_are_found(quiet: None):
    model = built("GPT-NeoX").model
    with pytest.raises(ValueError, match="do not belong together"):
        verify(model, language_loss, structure=structure(model, fused="concatenated"))


def test_rows_of_grouped_heads_with_an_explicit_width_are_those_of_the_code():
    # The case that a width of hidden_size // n_heads = 16 gets wrong.
    model = built("Qwen3").model
    own = structure(model).layers[0].heads
    assert own.k[0] == Cut("model.layers.0.self_attn.k_proj.weight", 0, range(0, 64, 32), 32)
    start, _ = ParameterTable.from_module(model).interval("model.layers.0.self_attn.k_proj.weight")
    parts = components(model, "l0h0 k", "l0h3 k")
    assert parts["l0h0 k"].intervals == ((start, start + 32 * 64),)
    assert parts["l0h3 k"].intervals == ((start + 32 * 64, start + 64 * 64),)


def test_tied_embeddings_and_all_parts_of_gpt2_are_known():
    model = built("GPT-2").model
    parts = components(model, "embed", "pos_embed", "unembed", "l0 attn", "l1 mlp")
    assert parts["unembed"].intervals == parts["embed"].intervals
    table = ParameterTable.from_module(model)
    assert parts["pos_embed"].intervals == (table.interval("transformer.wpe.weight"),)
    assert parts["l0 attn"].size == 4 * 32 * 32 + 4 * 32


def test_gpt2_and_the_same_weights_in_another_layout_have_the_same_heads(quiet: None):
    sizes = {"n_embd": toys.D_MODEL, "n_inner": toys.D_MLP, "n_positions": toys.N_CTX}
    sizes |= {"vocab_size": toys.D_VOCAB, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}
    gpt2 = randomised(
        lambda: hf.GPT2LMHeadModel(
            hf.GPT2Config(**{**GPT, **sizes}, activation_function="gelu", tie_word_embeddings=False)
        )
    )
    d_head = toys.D_MODEL // toys.N_HEADS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toys, "D_HEAD", d_head)
        lens = toys.LensModel(
            [toys.LensAttention() for _ in range(2)], [NormedMLP() for _ in range(2)]
        ).double()
    copy_weights(gpt2, lens)
    wanted = gpt2(toys.tokens()).logits
    torch.testing.assert_close(lens(toys.tokens()), wanted, rtol=1e-12, atol=1e-12)
    here, there = (components(model, "heads", "neurons", "l*h* *") for model in (gpt2, lens))
    assert list(here) == list(there)
    for name in here:
        # The same numbers, in another order within each part.
        values = [
            nn.utils.parameters_to_vector(model.parameters())[parts[name].columns].sort().values
            for model, parts in ((gpt2, here), (lens, there))
        ]
        assert torch.equal(*values), name


class NormedMLP(toys.LensMLP):
    """The toy's MLP after the norm that GPT-2 has before it."""

    def __init__(self):
        super().__init__()
        self.ln = nn.LayerNorm(toys.D_MODEL)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.ln(x))


@torch.no_grad()
def copy_weights(gpt2: nn.Module, lens: nn.Module) -> None:
    """GPT-2's weights into TransformerLens' layout."""
    own = gpt2.transformer
    lens.embed.W_E.copy_(own.wte.weight)
    lens.pos_embed.W_pos.copy_(own.wpe.weight)
    lens.unembed.W_U.copy_(gpt2.lm_head.weight.T)
    lens.unembed.b_U.zero_()
    lens.ln_final.load_state_dict(own.ln_f.state_dict())
    for block, layer in zip(lens.blocks, own.h, strict=True):
        attn, mlp = block.attn, block.mlp
        block.ln_1.load_state_dict(layer.ln_1.state_dict())
        mlp.ln.load_state_dict(layer.ln_2.state_dict())
        n, d_model, d = attn.W_Q.shape
        matrices = layer.attn.c_attn.weight.view(d_model, 3, n, d).permute(1, 2, 0, 3)
        for part, W, b in zip("QKV", matrices, layer.attn.c_attn.bias.view(3, n, d), strict=True):
            getattr(attn, f"W_{part}").copy_(W)
            getattr(attn, f"b_{part}").copy_(b)
        attn.W_O.copy_(layer.attn.c_proj.weight.view(n, d, d_model))
        attn.b_O.copy_(layer.attn.c_proj.bias)
        mlp.W_in.copy_(layer.mlp.c_fc.weight)
        mlp.b_in.copy_(layer.mlp.c_fc.bias)
        mlp.W_out.copy_(layer.mlp.c_proj.weight)
        mlp.b_out.copy_(layer.mlp.c_proj.bias)
