"""How many heads an attention has: what the model says, checked against the shapes."""

from __future__ import annotations

from phasescope.components.reading import ModelNames, Stated

WRITE = (
    "Write the heads down: structure=phasescope.Structure(layers=(Layer(..., heads=Heads(...)), "
    "...)), with the classes of phasescope.components."
)

_N_HEADS = ("num_heads", "n_heads", "n_head", "num_attention_heads", "nhead", "heads")
_N_GROUPS = (
    *("num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_kv_head", "kv_heads"),
    *("n_key_value_heads", "num_query_groups"),
)
_D_HEAD = ("head_dim", "d_head", "head_size", "attention_head_size", "dim_head", "d_kv")
_PER_GROUP = ("num_key_value_groups",)


class Underivable(Exception):
    """The heads of an attention cannot be derived; the message says why and what to do."""


def head_counts(
    names: ModelNames, path: str, stated: Stated, q_rows: int, k_rows: int, tensor: str
) -> tuple[int, int, int]:
    """Heads, key/value heads and width of a head, all of them agreeing with the shapes."""
    n, n_from = _said(names, path, stated.n_heads, "n_heads", _N_HEADS)
    d, d_from = _said(names, path, stated.d_head, "d_head", _D_HEAD)
    if n is None and d is None:
        raise Underivable(
            f"the number of heads of {path or 'the model'!r} must be known, but neither it nor a "
            f"configuration says so ({', '.join(_N_HEADS)} or {', '.join(_D_HEAD)}). State it: "
            "structure=phasescope.structure(model, n_heads=...)."
        )
    if d is None and n is not None:
        d, d_from = divided(q_rows, n, tensor, f"heads ({n_from})"), "its shape"
    elif n is None and d is not None:
        n, n_from = divided(q_rows, d, tensor, f"entries per head ({d_from})"), "its shape"
    assert n is not None and d is not None  # noqa: PT018
    if n * d != q_rows:
        raise Underivable(
            f"{n} heads ({n_from}) of width {d} ({d_from}) need {n * d} outputs of the queries in "
            f"{tensor!r}, but there are {q_rows}. State the right numbers: "
            "structure=phasescope.structure(model, n_heads=..., d_head=...)."
        )
    n_groups = divided(k_rows, d, tensor, f"entries per key/value head ({d_from})")
    said, said_from = _said(names, path, stated.n_groups, "n_groups", _N_GROUPS)
    per_group, per_from = _said(names, path, None, "", _PER_GROUP)
    if per_group is not None and stated.n_groups is None and n % per_group == 0:
        said, said_from = n // per_group, per_from
    if n % n_groups or said not in (None, n_groups):
        raise Underivable(
            f"the keys of {path or 'the model'!r} have {k_rows} outputs, which makes {n_groups} "
            f"key/value heads of width {d} ({d_from}), but {said or 'a divisor of ' + str(n)} "
            f"({said_from or n_from}) is required. State the right numbers: "
            "structure=phasescope.structure(model, n_heads=..., n_groups=..., d_head=...)."
        )
    return n, n_groups, d


def _said(
    names: ModelNames, path: str, stated: int | None, argument: str, attributes: tuple[str, ...]
) -> tuple[int | None, str]:
    if stated is not None:
        return stated, f"{argument}="
    return names.number(path, attributes) or (None, "")


def divided(rows: int, n: int, tensor: str, what: str) -> int:
    """Rows per piece, where the pieces must be whole."""
    if rows % n or not rows:
        raise Underivable(
            f"{rows} outputs in {tensor!r} must be a multiple of {n} {what}. State the right "
            "numbers: structure=phasescope.structure(model, n_heads=..., d_head=...)."
        )
    return rows // n
