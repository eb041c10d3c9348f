"""Where a model's attention is, and which pieces of its matrices belong to which head.

Letters: h query head, g key/value group, r query heads per group, d width of a head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from phasescope.components.counts import WRITE, Underivable, divided, head_counts
from phasescope.components.description import Cut, Heads
from phasescope.components.fused import fused_starts
from phasescope.components.reading import ModelNames, Stated

# Names of the q, k and v layers, and of the output layers that come with them.
_SEPARATE = (
    (("q_proj", "k_proj", "v_proj"), ("o_proj", "out_proj", "dense", "c_proj")),
    (("self.query", "self.key", "self.value"), ("output.dense",)),
    (("attention.query", "attention.key", "attention.value"), ("output.dense",)),
    (("query", "key", "value"), ("out", "output", "proj", "out_proj", "output.dense", "dense")),
    (("q_lin", "k_lin", "v_lin"), ("out_lin",)),
    (("wq", "wk", "wv"), ("wo",)),
    (("w_q", "w_k", "w_v"), ("w_o",)),
    (("W_q", "W_k", "W_v"), ("W_o",)),
    (("W_Q", "W_K", "W_V"), ("W_O",)),
    (("to_q", "to_k", "to_v"), ("to_out", "to_out.0")),
    (("q", "k", "v"), ("o", "out", "proj")),
)
_FUSED = (
    ("c_attn", ("c_proj",)),
    ("qkv_proj", ("o_proj", "out_proj")),
    ("query_key_value", ("dense",)),
    ("Wqkv", ("out_proj", "Wo")),
    ("qkv", ("proj", "out", "out_proj", "o_proj")),
    ("to_qkv", ("to_out", "to_out.0")),
)
_CROSS = ("cross", "encoder_attn", "encdec", "multihead_attn")


@dataclass(frozen=True)
class Attention:
    """An attention that was found."""

    path: str
    """The innermost module that holds all its matrices."""
    is_cross: bool
    """Whether it looks from a decoder to its encoder."""
    heads: Heads | None
    """Its heads; None if they could not be derived."""
    problem: str
    """Why not."""


def find_attention(names: ModelNames, stated: Stated) -> list[Attention]:
    """Every attention of a model, in the order of its parameters."""
    found: list[Attention] = []
    for path in names.module_paths():
        # What looks like an attention inside of one is a part of it.
        if any(path.startswith(f"{other.path}.") or other.path == "" for other in found):
            continue
        if reader := _reader(names, path):
            heads, problem = None, ""
            try:
                heads = reader(names, path, stated)
            except Underivable as error:
                problem = str(error)
            is_cross = any(word in path.lower() for word in _CROSS)
            found.append(Attention(path, is_cross, heads, problem))
    return found


def _reader(names: ModelNames, path: str) -> Callable[[ModelNames, str, Stated], Heads] | None:
    """The function that reads the heads of the module at `path`, if it is an attention."""
    tensors, prefix = names.tensors, f"{path}." if path else ""
    if prefix + "W_Q" in tensors and prefix + "W_O" in tensors:
        return _from_tensors
    if prefix + "out_proj.weight" in tensors and (
        prefix + "in_proj_weight" in tensors or prefix + "q_proj_weight" in tensors
    ):
        return _from_multihead_attention
    for layers, outs in _SEPARATE:
        if all(f"{prefix}{layer}.weight" in tensors for layer in layers):
            return functools.partial(_from_layers, layers, outs)
    for layer, outs in _FUSED:
        if f"{prefix}{layer}.weight" in tensors:
            return functools.partial(_from_fused_layer, layer, outs)
    return None


def _from_layers(
    layers: tuple[str, ...], outs: tuple[str, ...], names: ModelNames, path: str, stated: Stated
) -> Heads:
    """Separate layers for q, k and v."""
    q, k, v = (_join(path, layer) for layer in layers)
    o = _output_layer(names, path, outs, (q, k, v))
    rows = [names.width(layer, outputs=True) for layer in (q, k, v)]
    n, n_groups, d = head_counts(names, path, stated, rows[0], rows[1], f"{q}.weight")
    d_v = divided(rows[2], n_groups, f"{v}.weight", "key/value heads")
    _agree(names, o, n, n * d_v)
    return Heads(
        n,
        n_groups,
        q=names.outputs(q, range(0, n * d, d), d),
        k=names.outputs(k, range(0, n_groups * d, d), d),
        v=names.outputs(v, range(0, n_groups * d_v, d_v), d_v),
        o=names.inputs(o, range(0, n * d_v, d_v), d_v),
    )


def _from_fused_layer(
    layer: str, outs: tuple[str, ...], names: ModelNames, path: str, stated: Stated
) -> Heads:
    """One layer for q, k and v together."""
    qkv = _join(path, layer)
    o = _output_layer(names, path, outs, (qkv,))
    total, q_rows = names.width(qkv, outputs=True), names.width(o, outputs=False)
    if (total - q_rows) % 2 or total <= q_rows:
        raise Underivable(
            f"{qkv!r} must have {q_rows} outputs for the queries, as many as {o!r} has inputs, and "
            f"equally many for keys and values, but it has {total} in all. {WRITE}"
        )
    counts = head_counts(names, path, stated, q_rows, (total - q_rows) // 2, f"{qkv}.weight")
    n, n_groups, d = counts
    _agree(names, o, n, n * d)
    q, k, v = fused_starts(names, path, stated, layer, counts)
    return Heads(
        n,
        n_groups,
        q=names.outputs(qkv, q, d),
        k=names.outputs(qkv, k, d),
        v=names.outputs(qkv, v, d),
        o=names.inputs(o, range(0, n * d, d), d),
    )


def _from_multihead_attention(names: ModelNames, path: str, stated: Stated) -> Heads:
    """PyTorch's own: tensors of the module itself, q, k and v below one another."""
    width = names.width(_join(path, "out_proj"), outputs=False)
    fused = _join(path, "in_proj_weight")
    sources = (
        [fused] * 3 if fused in names.tensors else [_join(path, f"{p}_proj_weight") for p in "qkv"]
    )
    offsets = (0, width, 2 * width) if fused in names.tensors else (0, 0, 0)
    n, _, d = head_counts(names, path, stated, width, width, sources[0])
    parts: list[tuple[Cut, ...]] = []
    for i, (source, offset) in enumerate(zip(sources, offsets, strict=True)):
        cuts = [Cut(source, 0, range(offset, offset + width, d), d)]
        if (bias := _join(path, "in_proj_bias")) in names.tensors:
            cuts.append(Cut(bias, 0, range(i * width, (i + 1) * width, d), d))
        # A learned key and value beside those of the input.
        if (extra := _join(path, f"bias_{'qkv'[i]}")) in names.tensors:
            cuts.append(Cut(extra, 2, range(0, width, d), d))
        parts.append(tuple(cuts))
    o = names.inputs(_join(path, "out_proj"), range(0, width, d), d)
    return Heads(n, n, q=parts[0], k=parts[1], v=parts[2], o=o)


def _from_tensors(names: ModelNames, path: str, stated: Stated) -> Heads:
    """TransformerLens: a tensor per matrix whose first axis is the head."""
    W_Q, W_O = _join(path, "W_Q"), _join(path, "W_O")
    # Under grouped queries the tensors have an underscore; the plain name repeats their heads.
    W_K, W_V = (
        next((n for x in (f"W_{p}", f"_W_{p}") if (n := _join(path, x)) in names.tensors), "")
        for p in "KV"
    )
    shapes = {name: names.shapes.get(name, ()) for name in (W_Q, W_K, W_V, W_O)}
    q_shape, k_shape, v_shape, o_shape = shapes.values()
    if any(len(s) != 3 for s in (q_shape, k_shape, v_shape)) or k_shape[0] != v_shape[0]:
        raise Underivable(
            "W_Q, W_K and W_V must be tensors of three axes with the heads first, but the shapes "
            f"are {shapes}. {WRITE}"
        )
    n, n_groups = q_shape[0], k_shape[0]
    if stated.n_heads not in (None, n) or stated.n_groups not in (None, n_groups) or n % n_groups:
        raise Underivable(
            f"the first axes of the matrices must be the heads and key/value heads, but they are "
            f"{n} and {n_groups} in {shapes}, against n_heads={stated.n_heads} and "
            f"n_groups={stated.n_groups}. Leave out what the shapes say."
        )
    if len(o_shape) == 3 and o_shape[0] == n:
        o = Cut(W_O, 0, range(n), 1)
    elif len(o_shape) == 2:
        o = _flat_output(W_O, q_shape, o_shape)
    else:
        raise Underivable(f"{W_O!r} must have {n} heads on its first axis: {shapes}. {WRITE}")
    q, k, v = (
        tuple(Cut(name, 0, range(count), 1) for name in (W, *_biases(names, path, part)))
        for W, part, count in ((W_Q, "Q", n), (W_K, "K", n_groups), (W_V, "V", n_groups))
    )
    return Heads(n, n_groups, q, k, v, (o,))


def _biases(names: ModelNames, path: str, part: str) -> list[str]:
    found = (_join(path, bias) for bias in (f"b_{part}", f"_b_{part}"))
    return [bias for bias in found if bias in names.tensors]


def _flat_output(W_O: str, q_shape: tuple[int, ...], o_shape: tuple[int, ...]) -> Cut:
    """An output matrix of two axes, one of them the heads' outputs behind one another."""
    n, a, b = q_shape
    # Either all matrices have the outputs first (q: head, d_head, d_model) or the inputs.
    fits = {1: o_shape == (b, n * a), 0: o_shape == (n * b, a)}
    if fits[0] == fits[1]:
        raise Underivable(
            f"the axis of {W_O!r} that holds the heads must show in its shape, but with {n} heads "
            f"and W_Q of shape {q_shape}, {o_shape} does not tell. {WRITE}"
        )
    axis, d = (1, a) if fits[1] else (0, b)
    return Cut(W_O, axis, range(0, n * d, d), d)


def _agree(names: ModelNames, o: str, n: int, width: int) -> None:
    if (found := names.width(o, outputs=False)) != width:
        raise Underivable(
            f"the output layer {o!r} must have {width} inputs for {n} heads, but it has "
            f"{found}. {WRITE}"
        )


def _output_layer(
    names: ModelNames, path: str, outs: tuple[str, ...], others: tuple[str, ...]
) -> str:
    """The output layer, once all layers are known to be full ones."""
    found = (_join(path, out) for out in outs)
    o = next((layer for layer in found if f"{layer}.weight" in names.tensors), None)
    if o is None:
        raise Underivable(f"{path!r} must have an output layer called one of {outs}. {WRITE}")
    for layer in (*others, o):
        if names.rows_axis(layer) is None:
            raise Underivable(
                f"{layer!r} must be an nn.Linear or GPT-2's Conv1D, whose outputs can be told "
                f"from its inputs, but it is a {type(names.modules.get(layer)).__name__}. {WRITE}"
            )
    return o


def _join(path: str, child: str) -> str:
    return f"{path}.{child}" if path else child
