"""What a model of two operands requires of the pairs that it is called with.

Axes: n pairs.
"""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor


def check_pairs(pairs: Int64[Tensor, "n 2"]) -> None:
    """Refuse what has not the shape and type of pairs of tokens; the values are not looked at.

    Args:
        pairs: What arrived.

    Raises:
        ValueError: It is something else.

    Example:
        >>> check_pairs(torch.tensor([[1, 2]]))
    """
    fits = isinstance(pairs, Tensor) and pairs.ndim == 2 and pairs.shape[1] == 2
    if fits and pairs.dtype in (torch.int64, torch.int32):
        return
    found = f"a {type(pairs).__name__}"
    if isinstance(pairs, Tensor):
        found = f"shape {tuple(pairs.shape)} of {pairs.dtype}"
    raise ValueError(
        "pairs must be a tensor of shape (n, 2) of torch.int64, a token a and a token b in every "
        f"row, but {found} arrived. Write [[a, b]] for a single pair; convert with pairs.long()."
    )


def check_tokens(pairs: Int64[Tensor, "n 2"], n_tokens: int) -> None:
    """Refuse pairs with tokens that are no operands.

    It looks at all of them, so models call it only once an index was out of range.

    Args:
        pairs: Tokens a and b.
        n_tokens: Number of operands.

    Raises:
        ValueError: A token is no operand; the first such pair is named.

    Example:
        >>> check_tokens(torch.tensor([[1, 2]]), 3)
    """
    outside = ((pairs < 0) | (pairs >= n_tokens)).any(1).nonzero().flatten()
    if len(outside):
        row = int(outside[0])
        raise ValueError(
            f"operands must be tokens from 0 to {n_tokens - 1}, but {len(outside)} of the "
            f"{len(pairs)} pairs have another one, first pair {row} with {pairs[row].tolist()}. "
            'A task of p tokens needs a model with n_tokens=p; "=" is no operand.'
        )
