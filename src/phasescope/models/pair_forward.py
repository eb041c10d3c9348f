"""The function that a transformer of pairs computes, read off at its last position only.

All weights may have a leading axis of seeds: one call then evaluates a whole ensemble.

Letters: s seeds, n pairs, v tokens of the vocabulary, p tokens that are operands, c positions of
the context, h heads, e width of a head, d width of the residual stream, m neurons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from phasescope.models.activations import activation_function

Hook = Callable[[str, Tensor], Tensor | None]
LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True)
class Shape:
    """What the weights alone do not say about a transformer of pairs."""

    n_tokens: int
    """Operands are the tokens 0 to n_tokens − 1; "=" is the next one."""
    n_context: int
    """3 for a, b and "=", 2 for a and b alone."""
    n_layers: int
    n_heads: int
    activation: str
    attention_rate: float = 1.0
    """Share r of the softmax in the attention r·softmax + (1 − r)·1."""
    causal: bool = True
    """Whether a position sees only itself and those before it."""


def pair_logits(
    params: Mapping[str, Tensor],
    pairs: Int64[Tensor, "*own n 2"],
    shape: Shape,
    hook: Hook | None = None,
) -> Float[Tensor, "*s n outputs"]:
    """Logits at the last position.

    Of the last layer only the last position is computed. With one layer, queries, keys and values
    are computed once per token and not once per pair, and where "=" is read and no hook is given,
    what the pairs share is multiplied out first; see `pair_tables`.

    Args:
        params: Weights by TransformerLens's names, all with the same leading axes of seeds.
        pairs: Tokens of both operands; with an axis of seeds, or the same for all.
        shape: The rest.
        hook: Called with the name and the value of every intermediate; what it returns replaces
            the value, unless it is None.
    """
    visit = _visitor(hook)
    last = shape.n_layers - 1
    tables = pair_tables(params, shape) if hook is None else None
    if tables is not None:
        return logits_from_tables(tables, pairs, shape)
    if last == 0:
        x, z = _attend_tokens(params, pairs, shape, visit)
    else:
        stream = _embed(params, pairs, shape)
        for layer in range(last):
            stream = _full_layer(params, stream, layer, shape, visit)
        x = stream[..., -1, :]
        z = _attend_last(params, stream, last, shape, visit)
    x = _after_attention(params, x, z, last, shape, visit)
    logits = torch.matmul(x, params["unembed.W_U"])
    return _plus(logits, params.get("unembed.b_U"))


def pair_tables(params: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor] | None:
    """What the logits need of the weights alone, whatever the pairs.

    Scores and values of every token, and products of weight matrices: before the nonlinearity and
    after it the residual stream only adds, so the heads' outputs z enter the neurons through
    W_O W_in and the logits through W_O W_U, and the neurons enter the logits through W_out W_U.

    Args:
        params: As for `pair_logits`.
        shape: The rest.

    Returns:
        None unless there is one layer, read off at "=", which all pairs share; else
        ``scores{i}`` [*s, t, h] and ``values{i}`` [*s, t, he] of every token at position i,
        ``z_pre`` [*s, he, m], ``z_logits`` [*s, he, outputs], ``post_logits`` [*s, m, outputs] and
        the biases ``pre`` [*s, m] and ``logits`` [*s, outputs].
    """
    if shape.n_layers > 1 or shape.n_context == 2:
        return None
    streams = [_tokens_at(params, position, shape) for position in range(3)]
    query = _project(params, "Q", streams[-1], 0)
    tables = {}
    for i, x in enumerate(streams):
        tables[f"scores{i}"] = _dot(query, _project(params, "K", x, 0), shape.n_heads)
        tables[f"values{i}"] = _project(params, "V", x, 0)
    W_O, W_U = params["blocks.0.attn.W_O"].flatten(-3, -2), params["unembed.W_U"]
    W_in, W_out = params["blocks.0.mlp.W_in"], params["blocks.0.mlp.W_out"]
    tables["z_pre"], tables["z_logits"] = W_O @ W_in, W_O @ W_U
    # The stream that all pairs start from, and the bias of the heads.
    x = _plus(streams[-1], params.get("blocks.0.attn.b_O"))
    tables["pre"] = _linear(x, W_in, params["blocks.0.mlp.b_in"]).squeeze(-2)
    x = _plus(x, params["blocks.0.mlp.b_out"])
    post_logits = W_out @ W_U
    if activation_function(shape.activation)[1]:
        w, b = params["blocks.0.mlp.ln.w"], params["blocks.0.mlp.ln.b"]
        x = x + b.unsqueeze(-2) @ W_out
        post_logits = w.unsqueeze(-1) * post_logits
    tables["post_logits"] = post_logits
    tables["logits"] = _linear(x, W_U, params.get("unembed.b_U")).squeeze(-2)
    return tables


def logits_from_tables(
    tables: Mapping[str, Tensor], pairs: Int64[Tensor, "*own n 2"], shape: Shape
) -> Float[Tensor, "*s n outputs"]:
    """The logits of `pair_logits`, from `pair_tables`.

    Args:
        tables: All of them.
        pairs: As for `pair_logits`.
        shape: As for `pair_tables`.
    """
    a, b = pairs.unbind(-1)
    scores = [_rows(tables["scores0"], a), _rows(tables["scores1"], b), tables["scores2"]]
    values = [_rows(tables["values0"], a), _rows(tables["values1"], b), tables["values2"]]
    z = _mixed(_pattern(scores, shape), values, shape.n_heads).flatten(-2)
    pre = _linear(z, tables["z_pre"], tables["pre"])
    function, has_layer_norm = activation_function(shape.activation)
    post = function(pre)
    if has_layer_norm:
        post = functional.layer_norm(post, post.shape[-1:], eps=LAYER_NORM_EPS)
    direct = _linear(z, tables["z_logits"], tables["logits"])
    product = torch.addmm if direct.ndim == 2 else torch.baddbmm
    return product(direct, post, tables["post_logits"])


Visit = Callable[[str, Tensor], Tensor]


def _visitor(hook: Hook | None) -> Visit:
    if hook is None:
        return lambda name, value: value

    def visit(name: str, value: Tensor) -> Tensor:
        replaced = hook(name, value)
        return value if replaced is None else replaced

    return visit


def _plus(x: Tensor, bias: Tensor | None) -> Tensor:
    """Add a bias with the seeds in front to values with an axis of pairs before the last."""
    return x if bias is None else x + bias.unsqueeze(-2)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The product x W + b in one call, where the seeds allow it."""
    if bias is None:
        return torch.matmul(x, weight)
    if weight.ndim == 2 and x.ndim == 2:
        return torch.addmm(bias, x, weight)
    if weight.ndim == 3 and x.ndim == 3:
        return torch.baddbmm(bias.unsqueeze(-2), x, weight)
    return _plus(torch.matmul(x, weight), bias)


def _rows(
    table: Float[Tensor, "*s t k"], index: Int64[Tensor, "*own n"]
) -> Float[Tensor, "*s n k"]:
    """Rows of a table of every seed; the index may be the same for all seeds."""
    if index.ndim == 1:
        return table.index_select(-2, index)
    n_seeds, n_rows = table.shape[:2]
    offsets = torch.arange(n_seeds, device=index.device) * n_rows
    flat = table.reshape(n_seeds * n_rows, -1)
    picked = flat.index_select(0, (index + offsets[:, None]).flatten())
    return picked.view(n_seeds, index.shape[1], -1)


def _flat_heads(weight: Float[Tensor, "*s h d e"]) -> Float[Tensor, "*s d he"]:
    """The matrices of all heads beside one another."""
    return weight.movedim(-3, -2).flatten(-2)


def _project(
    params: Mapping[str, Tensor], letter: str, x: Float[Tensor, "*s n d"], layer: int
) -> Float[Tensor, "*s n he"]:
    """Queries, keys or values of all heads, bias included."""
    weight = _flat_heads(params[f"blocks.{layer}.attn.W_{letter}"])
    bias = params.get(f"blocks.{layer}.attn.b_{letter}")
    return _linear(x, weight, None if bias is None else bias.flatten(-2))


def _tokens_at(
    params: Mapping[str, Tensor], position: int, shape: Shape
) -> Float[Tensor, "*s t d"]:
    """The residual stream that every possible token has at a position: one for "=", else p."""
    W_E, W_pos = params["embed.W_E"], params["pos_embed.W_pos"]
    tokens = W_E[..., shape.n_tokens :, :] if position == 2 else W_E[..., : shape.n_tokens, :]
    return tokens + W_pos[..., position, None, :]


def _attend_tokens(
    params: Mapping[str, Tensor], pairs: Int64[Tensor, "*own n 2"], shape: Shape, visit: Visit
) -> tuple[Float[Tensor, "..."], Float[Tensor, "*s n h e"]]:
    """The residual stream at the last position, and the heads' outputs there, of a first layer."""
    h = shape.n_heads
    a, b = pairs.unbind(-1)
    index = (a, b, None)[: shape.n_context]
    streams = [_tokens_at(params, position, shape) for position in range(shape.n_context)]
    query = _project(params, "Q", streams[-1], 0)
    keys = [_project(params, "K", x, 0) for x in streams]
    values = [_project(params, "V", x, 0) for x in streams]
    if shape.n_context == 3:  # one query for all pairs
        scores = [_dot(query, key, h) for key in keys]
        per_pair = [_rows(s, i) if i is not None else s for s, i in zip(scores, index, strict=True)]
        x = streams[-1]
    else:
        query = _rows(query, b)
        per_pair = [
            _dot(query, _rows(key, i), h)
            for key, i in zip(keys, index, strict=True)
            if i is not None
        ]
        x = _rows(streams[-1], b)
    pattern = _pattern(per_pair, shape)
    pattern = visit("blocks.0.attn.hook_pattern", pattern.movedim(0, -1)).movedim(-1, 0)
    read = [v if i is None else _rows(v, i) for v, i in zip(values, index, strict=True)]
    return x, visit("blocks.0.attn.hook_z", _mixed(pattern, read, h))


def _pattern(scores: Sequence[Tensor], shape: Shape) -> Float[Tensor, "c *s n h"]:
    """Attention to every position, from the scores there, [*s, n, h] or [*s, 1, h]."""
    # Positions in front: a softmax over three neighbours in memory is many times slower.
    return _softmax(torch.stack(torch.broadcast_tensors(*scores)), shape, 0)


def _mixed(
    pattern: Float[Tensor, "c *s n h"], values: Sequence[Tensor], n_heads: int
) -> Float[Tensor, "*s n h e"]:
    """The heads' outputs: values, [*s, n, he] or [*s, 1, he], weighted by the attention."""
    z = None
    for weight, value in zip(pattern.unsqueeze(-1), values, strict=True):
        value = value.unflatten(-1, (n_heads, -1))
        z = weight * value if z is None else torch.addcmul(z, weight, value)
    assert z is not None
    return z


def _dot(q: Float[Tensor, "..."], k: Float[Tensor, "..."], n_heads: int) -> Float[Tensor, "..."]:
    """Attention scores of every head."""
    q, k = q.unflatten(-1, (n_heads, -1)), k.unflatten(-1, (n_heads, -1))
    return (q * k).sum(-1) / math.sqrt(q.shape[-1])


def _softmax(scores: Tensor, shape: Shape, dim: int = -1) -> Tensor:
    """Attention to the positions, which are along `dim`; none to those whose score is -inf."""
    pattern = scores.softmax(dim)
    rate = shape.attention_rate
    if rate == 1:
        return pattern
    return rate * pattern + (1 - rate) * (scores > -math.inf).to(scores.dtype)


def _embed(
    params: Mapping[str, Tensor], pairs: Int64[Tensor, "*own n 2"], shape: Shape
) -> Float[Tensor, "*s n c d"]:
    W_E, W_pos = params["embed.W_E"], params["pos_embed.W_pos"]
    a, b = pairs.unbind(-1)
    operands = W_E[..., : shape.n_tokens, :]  # without "=", which is none
    columns = [_rows(operands, a), _rows(operands, b)]
    if shape.n_context == 3:
        columns.append(W_E[..., shape.n_tokens :, :].expand_as(columns[0]))
    return torch.stack(columns, -2) + W_pos.unsqueeze(-3)


def _attend(
    params: Mapping[str, Tensor],
    stream: Float[Tensor, "*s n c d"],
    layer: int,
    shape: Shape,
    visit: Visit,
) -> Float[Tensor, "*s n c h e"]:
    """The heads' outputs at all positions."""
    q, k, v = (_all_positions(params, letter, stream, layer, shape) for letter in "QKV")
    scores = torch.einsum("...nqhe,...nkhe->...nhqk", q, k) / math.sqrt(q.shape[-1])
    if shape.causal:
        c = stream.shape[-2]
        later = torch.ones(c, c, dtype=torch.bool, device=stream.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    pattern = visit(f"blocks.{layer}.attn.hook_pattern", _softmax(scores, shape))
    z = torch.einsum("...nhqk,...nkhe->...nqhe", pattern, v)
    return visit(f"blocks.{layer}.attn.hook_z", z)


def _attend_last(
    params: Mapping[str, Tensor],
    stream: Float[Tensor, "*s n c d"],
    layer: int,
    shape: Shape,
    visit: Visit,
) -> Float[Tensor, "*s n h e"]:
    """The heads' outputs at the last position."""
    q = _project(params, "Q", stream[..., -1, :], layer).unflatten(-1, (shape.n_heads, -1))
    k, v = (_all_positions(params, letter, stream, layer, shape) for letter in "KV")
    scores = torch.einsum("...nhe,...nkhe->...nhk", q, k) / math.sqrt(q.shape[-1])
    pattern = visit(f"blocks.{layer}.attn.hook_pattern", _softmax(scores, shape))
    z = torch.einsum("...nhk,...nkhe->...nhe", pattern, v)
    return visit(f"blocks.{layer}.attn.hook_z", z)


def _all_positions(
    params: Mapping[str, Tensor],
    letter: str,
    stream: Float[Tensor, "*s n c d"],
    layer: int,
    shape: Shape,
) -> Float[Tensor, "*s n c h e"]:
    """Queries, keys or values of every position and head."""
    n, c = stream.shape[-3:-1]
    projected = _project(params, letter, stream.flatten(-3, -2), layer)
    return projected.unflatten(-2, (n, c)).unflatten(-1, (shape.n_heads, -1))


def _full_layer(
    params: Mapping[str, Tensor],
    stream: Float[Tensor, "*s n c d"],
    layer: int,
    shape: Shape,
    visit: Visit,
) -> Float[Tensor, "*s n c d"]:
    """A layer whose every position is read by the next one."""
    n, c = stream.shape[-3:-1]
    z = _attend(params, stream, layer, shape, visit)

    def per_position(name: str, value: Tensor) -> Tensor:
        return visit(name, value.unflatten(-2, (n, c))).flatten(-3, -2)

    x, z = stream.flatten(-3, -2), z.flatten(-4, -3)
    return _after_attention(params, x, z, layer, shape, per_position).unflatten(-2, (n, c))


def _after_attention(
    params: Mapping[str, Tensor],
    x: Float[Tensor, "..."],
    z: Float[Tensor, "*s n h e"],
    layer: int,
    shape: Shape,
    visit: Visit,
) -> Float[Tensor, "*s n d"]:
    """The residual stream after the output of the heads and the MLP."""
    block = f"blocks.{layer}"
    W_O = params[f"{block}.attn.W_O"].flatten(-3, -2)
    attn_out = _linear(z.flatten(-2), W_O, params.get(f"{block}.attn.b_O"))
    attn_out = visit(f"{block}.hook_attn_out", attn_out)
    x = visit(f"{block}.hook_resid_mid", x + attn_out)
    mlp = f"{block}.mlp"
    pre = visit(f"{mlp}.hook_pre", _linear(x, params[f"{mlp}.W_in"], params[f"{mlp}.b_in"]))
    function, has_layer_norm = activation_function(shape.activation)
    post = mid = visit(f"{mlp}.hook_mid", function(pre))
    if has_layer_norm:
        unit = functional.layer_norm(mid, mid.shape[-1:], eps=LAYER_NORM_EPS)
        w, b = params[f"{mlp}.ln.w"], params[f"{mlp}.ln.b"]
        post = torch.addcmul(b.unsqueeze(-2), unit, w.unsqueeze(-2))
    post = visit(f"{mlp}.hook_post", post)
    mlp_out = _linear(post, params[f"{mlp}.W_out"], params[f"{mlp}.b_out"])
    mlp_out = visit(f"{block}.hook_mlp_out", mlp_out)
    return visit(f"{block}.hook_resid_post", x + mlp_out)
