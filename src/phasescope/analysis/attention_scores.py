"""What attention heads do in context: scores of induction, copying and previous tokens.

Letters: b sequences, h heads, t queries, s keys, v tokens, d width, e width of a head.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def stripe_score(pattern: Float[Tensor, "b h t s"], segment: int) -> Float[Tensor, " h"]:
    """Mean attention to the token after the previous occurrence, on one segment repeated.

    The diagonal at offset 1 − segment of the pattern, over all queries that have such a key: on
    sequences that repeat a segment of random tokens, an induction head looks there. This is
    TransformerLens' "induction stripe"; `prefix_matching` is Olsson's and not the same number.

    Args:
        pattern: Attention of every head.
        segment: Length of the repeated segment.

    Returns:
        1 for a perfect induction head; about 1/t for uniform attention.

    Raises:
        ValueError: The sequences are shorter than two segments.

    Example:
        >>> pattern = torch.zeros(1, 1, 6, 6)
        >>> pattern[0, 0, range(2, 6), range(0, 4)] = 1.0
        >>> stripe_score(pattern, 3)
        tensor([1.])
    """
    n = pattern.shape[-1]
    if not 1 < segment <= n // 2:
        raise ValueError(
            f"sequences must repeat a segment of at least two tokens, but the segment has "
            f"{segment} and the pattern {n}. Evaluate on two repetitions or more."
        )
    return pattern.diagonal(1 - segment, -2, -1)[..., 1:].mean((0, 2))


def prefix_matching(
    pattern: Float[Tensor, "b h t s"], tokens: Int[Tensor, "b s"]
) -> Float[Tensor, " h"]:
    """Attention to all tokens that followed an earlier occurrence of the present token.

    The attention paid to them is added up over the earlier occurrences and averaged over the
    queries that have any. The source says "preceded"; its erratum and use say "followed".

    Args:
        pattern: Attention of every head.
        tokens: The sequences.

    Returns:
        Between 0 and 1; NaN if no token occurs twice.

    Example:
        >>> tokens = torch.tensor([[5, 7, 5]])
        >>> pattern = torch.tensor([[1, 0, 0], [0.5, 0.5, 0], [0.2, 0.7, 0.1]])[None, None]
        >>> prefix_matching(pattern, tokens)
        tensor([0.7000])

    References:
        Olsson et al. (2022), "In-context learning and induction heads", arXiv:2209.11895, appendix
        "prefix matching".
    """
    same = tokens[:, :, None] == tokens[:, None, :]
    earlier = same.tril(-1)
    followed = torch.zeros_like(earlier)
    followed[:, :, 1:] = earlier[:, :, :-1]
    has = followed.any(-1)
    attention = (pattern * followed[:, None]).sum(-1)
    weights = has[:, None].to(pattern)
    return (attention * weights).sum((0, 2)) / weights.sum((0, 2))


def previous_token(pattern: Float[Tensor, "b h t s"]) -> Float[Tensor, " h"]:
    """Mean attention to the token before.

    Args:
        pattern: Attention of every head, on text like that of the training.

    Returns:
        Between 0 and 1.

    Example:
        >>> previous_token(torch.eye(3).roll(-1, 1)[None, None])
        tensor([1.])
    """
    return pattern.diagonal(-1, -2, -1).mean((0, 2))


def copying(
    logits_of_heads: Float[Tensor, "h v v"],
    pattern: Float[Tensor, "b h t s"],
    tokens: Int[Tensor, "b s"],
) -> Float[Tensor, " h"]:
    r"""How much heads raise the logits of the tokens that they attend to.

    A head's direct effect on the logits at every position, its mean over the tokens of the sequence
    subtracted, negative ones set to zero: the share that falls on tokens in proportion to the
    attention they get, rescaled from $[0, .5]$ to $[-1, 1]$ as in the source.

    Args:
        logits_of_heads: Row i is what a head adds to the logits where it attends to token i:
            ``W_E @ W_V @ W_O @ W_U``.
        pattern: Attention of every head.
        tokens: The sequences, of different tokens.

    Returns:
        Score of every head: −1 if nothing attended to is raised, 1 at a share of a half, 3 for a
        head that looks at one token and raises that one only.

    Example:
        >>> tokens = torch.tensor([[0, 1, 2]])
        >>> copying(torch.eye(3)[None], torch.eye(3)[None, None], tokens)
        tensor([3.])

    References:
        Olsson et al. (2022), arXiv:2209.11895, appendix "copying".
    """
    effect = logits_of_heads[:, tokens][..., :]  # h b s v
    among = effect.gather(3, tokens[None, :, None, :].expand(*effect.shape[:3], -1))
    mixed = torch.einsum("bhts,hbsj->bhtj", pattern, among)
    raised = (mixed - mixed.mean(-1, keepdim=True)).relu()
    on_attended = (raised * pattern).sum(-1)
    share = on_attended / raised.sum(-1).clamp(min=1e-12)
    return (4 * share - 1).mean((0, 2))


def icl_score(
    losses: Float[Tensor, "b t"], *, late: int | None = None, early: int | None = None
) -> Float[Tensor, ""]:
    """Mean loss late in the context less mean loss early in it.

    Args:
        losses: Loss at every position, in nats.
        late: Position that is late; the last one by default (500 of 512 in the source).
        early: Position that is early; a tenth of the context by default (50 of 512).

    Returns:
        In nats; negative where the context helps.

    Raises:
        ValueError: The positions do not lie in order within the context.

    Example:
        >>> icl_score(torch.tensor([[4.0, 3.0, 1.0, 1.0]]), early=1).item()
        -2.0

    References:
        Olsson et al. (2022), arXiv:2209.11895, "in-context learning score".
    """
    n = losses.shape[1]
    late = n - 1 if late is None else late
    early = n // 10 if early is None else early
    if not 0 <= early < late < n:
        raise ValueError(
            f"positions must satisfy 0 <= early < late < {n}, but early={early} and late={late}."
        )
    return losses[:, late].mean() - losses[:, early].mean()
