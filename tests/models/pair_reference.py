"""The textbook forward pass of a transformer of pairs: every position, head by head."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from phasescope.models import PairTransformer, activation_function


def full_logits(model: PairTransformer, pairs: Tensor) -> Tensor:
    """Logits at every position, [n, positions, outputs], from the model's own parameters."""
    params = dict(model.named_parameters())
    shape = model.shape
    tokens = pairs
    if shape.n_context == 3:
        equals = torch.full((len(pairs), 1), shape.n_tokens)
        tokens = torch.cat([pairs, equals], 1)
    x = params["embed.W_E"][tokens] + params["pos_embed.W_pos"]
    for layer in range(shape.n_layers):
        block = {
            name.removeprefix(f"blocks.{layer}."): value
            for name, value in params.items()
            if name.startswith(f"blocks.{layer}.")
        }
        x = x + attention(block, x, model)
        x = x + mlp(block, x, shape.activation)
    return x @ params["unembed.W_U"] + params.get("unembed.b_U", torch.zeros(()))


def attention(block: Mapping[str, Tensor], x: Tensor, model: PairTransformer) -> Tensor:
    out = torch.zeros_like(x) + block.get("attn.b_O", torch.zeros(()))
    positions = x.shape[1]
    for head in range(model.shape.n_heads):
        q, k, v = (
            x @ block[f"attn.W_{letter}"][head]
            + (block[f"attn.b_{letter}"][head] if f"attn.b_{letter}" in block else 0)
            for letter in "QKV"
        )
        scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
        if model.shape.causal:
            future = torch.triu(torch.ones(positions, positions), 1).bool()
            scores = scores.masked_fill(future, -math.inf)
        rate = model.shape.attention_rate
        # Of what lies behind there is none, whatever the rate.
        pattern = rate * torch.softmax(scores, -1) + (1 - rate) * (scores > -math.inf).to(x.dtype)
        out = out + pattern @ v @ block["attn.W_O"][head]
    return out


def mlp(block: Mapping[str, Tensor], x: Tensor, activation: str) -> Tensor:
    function, has_layer_norm = activation_function(activation)
    hidden = function(x @ block["mlp.W_in"] + block["mlp.b_in"])
    if has_layer_norm:
        centred = hidden - hidden.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        hidden = centred / scale * block["mlp.ln.w"] + block["mlp.ln.b"]
    return hidden @ block["mlp.W_out"] + block["mlp.b_out"]


def spread_biases(model: PairTransformer, generator: torch.Generator) -> PairTransformer:
    """Give every bias and LayerNorm weight, which start from 0 and 1, something to do."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.rpartition(".")[2] in ("w", "b") or ".b_" in name:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model
