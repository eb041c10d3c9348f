"""What a model of two operands requires of the pairs that it is called with.

Axes: n pairs, of every seed of a batch where there is an axis in front.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.compiler import is_compiling


def of_pairs(
    compute: Callable[[], Tensor],
    pairs: Int64[Tensor, "*seeds n 2"],
    n_tokens: int,
    n_seeds: int | None = None,
) -> Tensor:
    """What a model computes of pairs of operands, with a message if they are none.

    Tokens are looked at once an index was out of range, which on a GPU raises nothing here. Pairs
    of every seed are looked at before, on a CPU and unless compiled: there a token out of range may
    be the row of another seed.

    Args:
        compute: Computes it.
        pairs: Tokens a and b.
        n_tokens: Number of operands.
        n_seeds: Length of the axis that may stand in front of the pairs; by default none may.

    Raises:
        ValueError: The pairs have another shape or type, or a token is no operand.

    Example:
        >>> pairs = torch.tensor([[1, 2]])
        >>> of_pairs(lambda: torch.eye(3)[pairs].sum(1), pairs, 3)
        tensor([[0., 1., 1.]])
    """
    _check_shape(pairs, n_seeds)
    if pairs.ndim == 3 and pairs.numel() and pairs.device.type == "cpu" and not is_compiling():
        low, high = pairs.aminmax()
        if low < 0 or high >= n_tokens:
            _check_tokens(pairs, n_tokens)
    try:
        return compute()
    except (IndexError, RuntimeError):  # which of them depends on the axis of the table
        _check_tokens(pairs, n_tokens)
        raise


def _check_shape(pairs: Int64[Tensor, "*seeds n 2"], n_seeds: int | None) -> None:
    if isinstance(pairs, Tensor) and pairs.dtype in (torch.int64, torch.int32):
        leading = pairs.shape[:-2]
        if pairs.ndim > 1 and pairs.shape[-1] == 2 and leading in ((), (n_seeds,)):
            return
    found = f"a {type(pairs).__name__}"
    if isinstance(pairs, Tensor):
        found = f"shape {tuple(pairs.shape)} of {pairs.dtype}"
    of_seeds = "" if n_seeds is None else f" or ({n_seeds}, n, 2)"
    raise ValueError(
        f"pairs must be a tensor of shape (n, 2){of_seeds} of torch.int64, a token a and a token b "
        f"in every row, but {found} arrived. Write [[a, b]] for a single pair; convert with "
        "pairs.long()."
    )


def _check_tokens(pairs: Int64[Tensor, "*seeds n 2"], n_tokens: int) -> None:
    outside = ((pairs < 0) | (pairs >= n_tokens)).any(-1)
    if outside.any():
        place = tuple(outside.nonzero()[0].tolist())
        raise ValueError(
            f"operands must be tokens from 0 to {n_tokens - 1}, but {int(outside.sum())} of the "
            f"{outside.numel()} pairs have another one, first pair "
            f"{', '.join(map(str, place))} with {pairs[place].tolist()}. "
            'A task of p tokens needs a model with n_tokens=p; "=" is no operand.'
        )
