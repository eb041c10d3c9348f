"""What the number format does to a loss: softmax collapse, and the pull on the scale of weights.

Letters: a, b places or tokens of the operands, c of the results.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class FormatEffect:
    """A loss as one number format computes it."""

    loss: float
    """Mean cross-entropy in nats."""
    collapse: float
    """Share of pairs whose sum of exponentials equals 1 exactly: the wrong results have vanished,
    and with them the gradient of the right one."""
    zero_loss: float
    """Share of pairs whose loss is exactly zero."""


def format_effect(
    logits: Float[Tensor, "a b c"],
    labels: Int64[Tensor, "a b"],
    mask: Bool[Tensor, "a b"],
    dtype: torch.dtype = torch.float32,
) -> FormatEffect:
    r"""Softmax collapse and cross-entropy of some pairs in a number format.

    Collapse: $\sum_c \exp(z_c - \max_c z_c) = 1$. In float32 losses come in multiples of 1.2e-7 and
    vanish below; in half formats nothing else is left of a grokked network.

    Args:
        logits: Of every pair.
        labels: Position of the right result; −1 where there is none.
        mask: Which pairs.
        dtype: The format.

    Returns:
        What the format makes of them.

    Example:
        >>> logits = torch.tensor([[[20.0, 0.0]]])
        >>> effect = format_effect(logits, torch.tensor([[0]]), torch.tensor([[True]]))
        >>> effect.collapse, effect.zero_loss
        (1.0, 1.0)

    References:
        Prieto et al. (2025), "Grokking at the edge of numerical stability", arXiv:2501.04697,
        definition 1.
    """
    chosen = (mask & (labels >= 0)).to(logits.device)
    z = logits[chosen].to(dtype)
    sums = (z - z.amax(-1, keepdim=True)).exp().sum(-1)
    losses = torch.nn.functional.cross_entropy(z, labels.to(z.device)[chosen], reduction="none")
    return FormatEffect(
        losses.mean().item(),
        (sums == 1).double().mean().item(),
        (losses == 0).double().mean().item(),
    )


def logit_scale_sensitivity(
    logits: Float[Tensor, "a b c"], labels: Int64[Tensor, "a b"], mask: Bool[Tensor, "a b"]
) -> float:
    r"""Derivative of the loss by the logarithm of a common factor of all logits.

    $dL/d\ln\alpha$ at α = 1 for logits αz: the mean of $\sum_c (p_c - y_c) z_c$. Negative once all
    pairs are right: the loss could fall by scaling alone, without learning anything.

    Args:
        logits: Of every pair.
        labels: Position of the right result; −1 where there is none.
        mask: Which pairs.

    Returns:
        Nats.

    Example:
        >>> logits = torch.tensor([[[1.0, 0.0]]])
        >>> labels, mask = torch.tensor([[0]]), torch.tensor([[True]])
        >>> round(logit_scale_sensitivity(logits, labels, mask), 4)
        -0.2689

    References:
        Prieto et al. (2025), arXiv:2501.04697, section 4.
    """
    chosen = (mask & (labels >= 0)).to(logits.device)
    z, y = logits[chosen].double(), labels.to(logits.device)[chosen]
    right = z.gather(1, y[:, None]).squeeze(1)
    return ((z.softmax(1) * z).sum(1) - right).mean().item()


def scaling_alignment(
    grads: Mapping[str, Float[Tensor, "..."]], params: Mapping[str, Float[Tensor, "..."]]
) -> dict[str, float]:
    r"""Cosine between the negative gradient and the weights: 1 where descent only scales them.

    Args:
        grads: Gradients of the loss by name.
        params: Parameters of the same names.

    Returns:
        One cosine for every tensor, and ``"all"`` for the whole vector; NaN where either is zero.

    Raises:
        KeyError: A gradient has no parameter of its name.

    Example:
        >>> scaling_alignment({"w": -torch.ones(4)}, {"w": 2 * torch.ones(4)})
        {'w': 1.0, 'all': 1.0}

    References:
        Prieto et al. (2025), arXiv:2501.04697, section 4 (naive loss minimisation).
    """
    missing = sorted(set(grads) - set(params))
    if missing:
        raise KeyError(
            f"every gradient needs the parameter of its name, but there is none for {missing}; the "
            f"parameters are {sorted(params)}."
        )
    found, sums = {}, [0.0, 0.0, 0.0]
    for name, grad in grads.items():
        g, w = grad.double(), params[name].double()
        parts = [-(g * w).sum().item(), g.square().sum().item(), w.square().sum().item()]
        found[name] = _cosine(*parts)
        sums = [total + part for total, part in zip(sums, parts, strict=True)]
    return found | {"all": _cosine(*sums)}


def _cosine(product: float, a: float, b: float) -> float:
    return product / math.sqrt(a * b) if a > 0 and b > 0 else math.nan
