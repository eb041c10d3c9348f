"""How each operation of PyTorch passes on the order of its inputs' axes.

A rule gets all arguments of the operation in the order of its schema, defaults filled in, once as
a list and once by name, and what came out; it returns the labels of that: a list of axes for each
tensor. An operation without a rule freezes everything that it touches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from phasescope.analysis.permutations.atoms import SINGLE, Atoms, Axis

Labels = list[Axis]


@runtime_checkable
class Trace(Protocol):
    """What a rule may use of the trace that it belongs to."""

    atoms: Atoms

    def of(self, value: Any) -> Labels:
        """Labels of a tensor; fixed axes for one that was never seen."""
        ...

    def note_statistics(self, value: Any) -> None:
        """Say that a buffer holds running statistics, which go along with their channels."""
        ...


Rule = Callable[[Trace, Sequence[Any], Mapping[str, Any], Any], Any]
RULES: dict[str, Rule] = {}
VIEWS: set[str] = set()
"""Operations that only look at their input in another way, and use no value of it."""


def _rule(*names: str, view: bool = False) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for name in names:
            RULES[f"aten::{name}"] = rule
            if view:
                VIEWS.add(f"aten::{name}")
        return rule

    return register


def _fixed(trace: Trace, shape: Sequence[int], reason: str) -> Labels:
    return [trace.atoms.axis(n, frozen=reason) for n in shape]


def broadcast(trace: Trace, labels: Sequence[Labels], shape: Sequence[int]) -> Labels:
    """Labels of an operation entry by entry, its inputs aligned at their last axes."""
    result: Labels = []
    for back in range(len(shape), 0, -1):
        found = [axes[-back] for axes in labels if len(axes) >= back]
        found = [axis for axis in found if trace.atoms.length(axis) == shape[-back]]
        if not found:
            result.append(trace.atoms.axis(shape[-back]))
            continue
        for axis in found[1:]:
            trace.atoms.join(found[0], axis)
        result.append(found[0])
    return result


def elementwise(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Any:
    """Entry by entry, such as an activation or a sum."""
    given = [trace.of(a) for a in args if isinstance(a, Tensor)]
    if isinstance(out, tuple):
        return [broadcast(trace, given, out[0].shape), *[None] * (len(out) - 1)]
    return broadcast(trace, given, out.shape)


@_rule("detach", "alias", "lift_fresh", view=True)
def _same(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Labels:
    return trace.of(args[0])


_MORE = "clone _to_copy contiguous copy_ nan_to_num _prelu_kernel hardswish log_sigmoid_forward"
for _name in _MORE.split():
    RULES[f"aten::{_name}"] = elementwise


@_rule("arange", "linspace", "logspace", "eye", "tril_indices")
def _constant(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Labels:
    return _fixed(trace, out.shape, "an axis of a constant")


@_rule("zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones")
@_rule("new_full", "empty", "empty_like", "new_empty", "scalar_tensor")
def _equal(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Labels:
    # All entries are equal (or about to be written), so their order means nothing yet.
    return [trace.atoms.axis(n) for n in out.shape]


@_rule("t", "transpose", "permute", "movedim", "numpy_T", view=True)
def _reorder(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Labels:
    axes, n = trace.of(args[0]), args[0].ndim
    if len(args) == 2:
        return [axes[d % n] for d in args[1]]
    order = list(range(n))
    first, second = (args[1], args[2]) if len(args) == 3 else (0, n - 1)
    if n:
        order[first % n], order[second % n] = order[second % n], order[first % n]
    return [axes[d] for d in order]


@_rule("view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "flatten", "unflatten", view=True)
@_rule("_reshape_alias", view=True)
def _view(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Labels:
    return trace.atoms.reshape(trace.of(args[0]), out.shape)


@_rule("expand", view=True)
def _expand(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Labels:
    return broadcast(trace, [trace.of(args[0])], out.shape)


@_rule("select", view=True)
def _select(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Labels:
    axes, dim = trace.of(args[0]), args[1] % args[0].ndim
    trace.atoms.freeze([axes[dim]], "one index of the axis is picked out")
    return axes[:dim] + axes[dim + 1 :]


@_rule("unbind", view=True)
def _unbind(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> list[Labels]:
    return [_select(trace, (args[0], args[1], i), {}, o) for i, o in enumerate(out)]


@_rule("slice", view=True)
def _slice(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Labels:
    dim, start, end, step = args[1:]
    axes, n = list(trace.of(args[0])), args[0].shape[dim]
    start, end, step = slice(start, end, step).indices(n)
    if step != 1:
        trace.atoms.freeze([axes[dim]], "an axis is read in steps")
        axes[dim] = trace.atoms.axis(out.shape[dim], frozen="an axis is read in steps")
    else:
        axes[dim] = _piece(trace.atoms, axes[dim], start, max(start, end))
    return axes


def _piece(atoms: Atoms, axis: Axis, start: int, end: int) -> Axis:
    if (start, end) == (0, atoms.length(axis)):
        return axis
    head, _ = atoms.cut(axis, end)
    return atoms.cut(head, start)[1]


@_rule("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk", view=True)
def _split(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> list[Labels]:
    dim = named["dim"]
    axes, start, result = trace.of(args[0]), 0, []
    for part in out:
        piece = list(axes)
        piece[dim] = _piece(trace.atoms, axes[dim], start, start + part.shape[dim])
        start += part.shape[dim]
        result.append(piece)
    return result


@_rule("cat", view=True)
def _cat(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Labels:
    dim = named["dim"] % out.ndim
    # A vector of length 0 may stand among tensors of any shape.
    parts = [trace.of(t) for t in args[0] if t.ndim == out.ndim and t.shape[dim]]
    result: Labels = []
    for d in range(out.ndim):
        for other in parts[1:]:
            if d != dim:
                trace.atoms.join(parts[0][d], other[d])
        joined = tuple(segment for part in parts for segment in part[dim])
        result.append(joined if d == dim else parts[0][d])
    return result


@_rule("stack", view=True)
def _stack(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Labels:
    dim = named["dim"] % out.ndim
    shape = out.shape[:dim] + out.shape[dim + 1 :]
    axes = broadcast(trace, [trace.of(t) for t in args[0]], shape)
    return [
        *axes[:dim],
        trace.atoms.axis(out.shape[dim], frozen="tensors are stacked"),
        *axes[dim:],
    ]


@_rule("mm", "bmm", "mv", "dot", "addmm", "baddbmm", "addmv")
def _multiply(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Labels:
    *plus, left, right = (trace.of(a) for a in args if isinstance(a, Tensor))
    trace.atoms.join(left[-1], right[max(len(right) - 2, 0)])
    batch = []
    if len(left) == 3:
        trace.atoms.join(left[0], right[0])
        batch = [left[0]]
    rows = [left[-2]] if len(left) > 1 else []
    result = [*batch, *rows, *([right[-1]] if len(right) > 1 else [])]
    return broadcast(trace, [result, *plus], out.shape)


@_rule("linear")
def _linear(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Labels:
    x, weight = trace.of(args[0]), trace.of(args[1])
    trace.atoms.join(x[-1], weight[1])
    bias = [trace.of(b) for b in args[2:] if b is not None]
    return broadcast(trace, [[*x[:-1], weight[0]], *bias], out.shape)


@_rule("convolution", "_convolution", "convolution_overrideable")
def _convolution(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Labels:
    atoms, groups, transposed = trace.atoms, args[8], args[6]
    x, weight = trace.of(args[0]), trace.of(args[1])
    atoms.freeze([*x[2:], *weight[2:]], "a convolution slides along the axis")
    channels, result = x[1], weight[1] if transposed else weight[0]
    if groups == 1:
        atoms.join(channels, weight[0] if transposed else weight[1])
    elif transposed:
        # Weight (group input) x output within the group.
        atoms.join(channels, weight[0])
        group, _ = atoms.reshape([weight[0]], [groups, args[1].shape[0] // groups])
        result = atoms.reshape([group, weight[1]], [groups * args[1].shape[1]])[0]
    else:
        group, inner = atoms.reshape([channels], [groups, args[0].shape[1] // groups])
        other, _ = atoms.reshape([weight[0]], [groups, args[1].shape[0] // groups])
        atoms.join(group, other)
        atoms.join(inner, weight[1])
    if args[2] is not None:
        atoms.join(result, trace.of(args[2])[0])
    return [x[0], result, *_fixed(trace, out.shape[2:], "positions after a convolution")]


def _sliding(n_spatial: int) -> Rule:
    """A window that slides along the last axes; samples and channels keep their order."""

    def rule(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Any:
        x, shape = trace.of(args[0]), (out[0] if isinstance(out, tuple) else out).shape
        trace.atoms.freeze(x[-n_spatial:], "a window slides along the axis")
        fixed = _fixed(trace, shape[-n_spatial:], "positions after pooling")
        result = [*x[:-n_spatial], *fixed]
        return (result, result) if isinstance(out, tuple) else result

    return rule


for _n, _names in (
    (1, "avg_pool1d upsample_nearest1d upsample_linear1d"),
    (2, "max_pool2d_with_indices adaptive_max_pool2d avg_pool2d _adaptive_avg_pool2d"),
    (2, "upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_nearest_exact2d"),
    (3, "max_pool3d_with_indices adaptive_max_pool3d avg_pool3d _adaptive_avg_pool3d"),
):
    for _name in _names.split():
        RULES[f"aten::{_name}"] = _sliding(_n)


@_rule("constant_pad_nd")
def _pad(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Labels:
    axes = list(trace.of(args[0]))
    for number in range(len(args[1]) // 2):
        if any(args[1][2 * number : 2 * number + 2]):
            trace.atoms.freeze([axes[-1 - number]], "an axis is padded")
            axes[-1 - number] = trace.atoms.axis(out.shape[-1 - number], frozen="an axis is padded")
    return axes


@_rule("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
@_rule("_batch_norm_no_update", "miopen_batch_norm", "_native_batch_norm_legit", "batch_norm")
@_rule("_batch_norm_with_update")
def _batch_norm(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Any:
    x = trace.of(args[0])
    for value in args[1:5]:
        if isinstance(value, Tensor):
            trace.atoms.join(x[1], trace.of(value)[0])
    for value in args[3:5]:
        trace.note_statistics(value)
    if isinstance(out, Tensor):
        return x
    rest = [[x[1]] if o.ndim == 1 and o.shape == (args[0].shape[1],) else None for o in out[1:]]
    return [x, *rest]


@_rule("native_layer_norm", "layer_norm", "rms_norm", "_fused_rms_norm")
def _layer_norm(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Any:
    x = trace.of(args[0])
    for value in args[2:4]:
        if isinstance(value, Tensor):
            broadcast(trace, [x, trace.of(value)], args[0].shape)
    if isinstance(out, Tensor):
        return x
    n = len(named["normalized_shape"])
    return [x, *([*x[:-n], *[SINGLE] * n] if o.ndim == len(x) else None for o in out[1:])]


@_rule("native_group_norm")
def _group_norm(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Any:
    x, n_channels, groups = trace.of(args[0]), args[4], args[6]
    group, _ = trace.atoms.reshape([x[1]], [groups, n_channels // groups])
    for value in args[1:3]:
        if isinstance(value, Tensor):
            trace.atoms.join(x[1], trace.of(value)[0])
    return [x, [x[0], group], [x[0], group]]


@_rule("_softmax", "_log_softmax", "_safe_softmax", "softmax", "log_softmax")
def _softmax(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Labels:
    return trace.of(args[0])


@_rule("sum", "mean", "amax", "amin", "prod", "logsumexp", "var", "std", "any", "all")
@_rule("linalg_vector_norm", "norm", "var_mean", "std_mean")
def _reduce(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Any:
    axes = trace.of(args[0])
    dims = named.get("dim")
    outs = out if isinstance(out, tuple) else (out,)
    if dims is None or dims == []:
        result = [SINGLE] * outs[0].ndim
    else:
        chosen = {d % len(axes) for d in ([dims] if isinstance(dims, int) else dims)}
        kept = outs[0].ndim == len(axes)
        result = [
            SINGLE if d in chosen else axis
            for d, axis in enumerate(axes)
            if kept or d not in chosen
        ]
    return [result] * len(outs) if isinstance(out, tuple) else result


@_rule("embedding", "index_select")
def _look_up(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Labels:
    table, index = trace.of(args[0]), trace.of(named.get("index", named.get("indices")))
    dim = named.get("dim", 0) % args[0].ndim
    trace.atoms.freeze([table[dim]], "rows are looked up by their number")
    return [*table[:dim], *index, *table[dim + 1 :]]


@_rule("cumsum", "cumprod", "flip", "roll", "triu", "tril", "sort", "topk", "argmax", "argmin")
@_rule("cummax", "max", "min")
def _ordered(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Any:
    axes = trace.of(args[0])
    trace.atoms.freeze(axes, "the order along the axis matters")
    outs = out if isinstance(out, tuple | list) else [out]
    result = [_fixed(trace, o.shape, "the order along the axis matters") for o in outs]
    return result if isinstance(out, tuple | list) else result[0]


@_rule("glu")
def _glu(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Labels:
    dim = named["dim"] % out.ndim
    axes = list(trace.of(args[0]))
    first, second = trace.atoms.cut(axes[dim], out.shape[dim])
    trace.atoms.join(first, second)
    axes[dim] = first
    return axes


@_rule("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention")
@_rule("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention")
@_rule("_scaled_dot_product_fused_attention_overrideable", "scaled_dot_product_attention")
def _attention(trace: Trace, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> Any:
    q, k, v = (trace.of(a) for a in args[:3])
    atoms = trace.atoms
    atoms.join(q[-1], k[-1])
    if math.prod(args[1].shape[:-2]) != math.prod(args[0].shape[:-2]):
        atoms.freeze([*q[:-2], *k[:-2], *v[:-2]], "heads share their keys inside one operation")
    else:
        for other in (k, v):
            for a, b in zip(q[:-2], other[:-2], strict=True):
                atoms.join(a, b)
    atoms.freeze([q[-2], k[-2], v[-2]], "positions of a sequence")
    mask = named.get("attn_mask", named.get("attn_bias"))
    if isinstance(mask, Tensor):
        shape = torch.Size([*args[0].shape[:-1], args[1].shape[-2]])
        broadcast(trace, [[*q[:-1], k[-2]], trace.of(mask)], shape)
    result = [*q[:-1], v[-1]]
    return result if isinstance(out, Tensor) else [result, *[None] * (len(out) - 1)]
