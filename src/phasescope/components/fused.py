"""How one matrix for queries, keys and values is divided into them.

Letters: n query heads, r of them per key/value group, d width of a head.
"""

from __future__ import annotations

from phasescope.components.counts import WRITE, Underivable
from phasescope.components.reading import Fused, ModelNames, Stated

# How a fused matrix is divided is a property of the code that uses it: these were looked up there.
_LAYOUTS: dict[str, Fused] = {
    "GPTNeoX": "interleaved",
    "Bloom": "interleaved",
    "Persimmon": "interleaved",
    "Falcon": "interleaved",
    "Phi3": "concatenated",
    "Phi4Multimodal": "concatenated",
    "Mpt": "concatenated",
    "Dbrx": "concatenated",
    "ModernBert": "concatenated",
}

_Starts = tuple[range | tuple[int, ...], range | tuple[int, ...], range | tuple[int, ...]]


def fused_starts(
    names: ModelNames, path: str, stated: Stated, layer: str, counts: tuple[int, int, int]
) -> _Starts:
    """Where the outputs of every head's query, and of every group's key and value, begin.

    Args:
        names: The model.
        path: Path of the attention.
        stated: What the user said.
        layer: Name of the fused layer in it.
        counts: Heads, key/value heads and width of a head.
    """
    n, n_groups, d = counts
    module = type(names.modules[path]).__name__
    if stated.fused is None and module.startswith("CodeGen"):
        return _codegen_starts(n, d)
    layout = stated.fused or next((_LAYOUTS[f] for f in _LAYOUTS if module.startswith(f)), None)
    if layout is None and layer == "c_attn":
        # GPT-2, nanoGPT and their relatives; only GPTBigCode with full heads differs.
        split = getattr(names.modules[path], "multi_query", True)
        layout = "concatenated" if split else "interleaved"
    if layout is None:
        raise Underivable(
            f"how the outputs of {layer!r} in {path!r} are divided into q, k and v must be known. "
            f"Their shape does not show it, and {module} is not one of the classes for which "
            "phasescope knows it. Pass structure=phasescope.structure(model, fused=...) with "
            "'concatenated' (all of q, then all of k, then all of v) or 'interleaved' (group by "
            "group)."
        )
    if layout == "concatenated":
        ends = n * d, (n + n_groups) * d, (n + 2 * n_groups) * d
        return range(0, ends[0], d), range(ends[0], ends[1], d), range(ends[1], ends[2], d)
    r = n // n_groups
    block = (r + 2) * d  # the queries of a group, its key, its value
    groups = range(0, n_groups * block, block)
    q = tuple(start + j * d for start in groups for j in range(r))
    last = n_groups * block
    return q, range(r * d, last, block), range((r + 1) * d, last, block)


def _codegen_starts(n: int, d: int) -> _Starts:
    """CodeGen divides its heads among four cores, and each core's share into q, v and k."""
    if n % 4:
        raise Underivable(f"CodeGen's heads come in four equal parts, but there are {n}. {WRITE}")
    share = n // 4 * d
    first = [core * 3 * share + head * d for core in range(4) for head in range(n // 4)]
    q, v, k = (tuple(start + part * share for start in first) for part in range(3))
    return q, k, v
