"""Activations of the grokking literature by the names that TransformerLens gives them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

LAYER_NORM = "_ln"


def gelu_new(x: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """GELU's tanh form as GPT-2 wrote it: .5x(1 + tanh(√(2/π)(x + .044715x³))).

    The same function as `gelu_fast` up to rounding, and within 4.8e-4 of ``gelu``.

    Args:
        x: Inputs.

    Returns:
        Outputs.

    Example:
        >>> round(gelu_new(torch.tensor(1.0)).item(), 4)
        0.8412
    """
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))


def gelu_fast(x: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """GELU's tanh form with fewer products: .5x(1 + tanh(.7978845608x(1 + .044715x²))).

    The same function as `gelu_new` up to rounding: trainings with the two differ by chaos alone.

    Args:
        x: Inputs.

    Returns:
        Outputs.

    Example:
        >>> round(gelu_fast(torch.tensor(1.0)).item(), 4)
        0.8412
    """
    return 0.5 * x * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))


def solu(x: Float[Tensor, "*axes d_mlp"]) -> Float[Tensor, "*axes d_mlp"]:
    """x·softmax(x), the softmax taken over the neurons, which it couples.

    Args:
        x: Inputs, neurons last.

    Returns:
        Outputs.

    Example:
        >>> solu(torch.zeros(2)).tolist()
        [0.0, 0.0]

    References:
        Elhage et al. (2022), "Softmax Linear Units", Transformer Circuits Thread.
    """
    return x * functional.softmax(x, dim=-1)


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "relu": functional.relu,
        "gelu": functional.gelu,
        "gelu_new": gelu_new,
        "gelu_fast": gelu_fast,
        "silu": functional.silu,
        "solu": solu,
        # Smoothness, the negative part and curvature apart.
        "leaky_relu": functional.leaky_relu,
        "softplus": functional.softplus,
        "elu": functional.elu,
        "square": torch.square,
        "gelu_clipped": lambda x: functional.relu(functional.gelu(x)),
    }
)
"""x², leaky ReLU (slope .01) and the others by name; "gelu_clipped" is max(GELU, 0)."""


def activation_function(name: str) -> tuple[Callable[[Tensor], Tensor], bool]:
    """The function of a name, and whether a LayerNorm follows it inside the MLP.

    Any name of `ACTIVATIONS` may end in ``_ln``, such as ``"solu_ln"`` or ``"relu_ln"``.

    Args:
        name: Name, in TransformerLens's spelling.

    Returns:
        The activation alone, and True for ``_ln``.

    Raises:
        ValueError: There is no such activation.

    Example:
        >>> activation_function("solu_ln")[1]
        True
    """
    base = name.removesuffix(LAYER_NORM)
    if base not in ACTIVATIONS:
        raise ValueError(
            f"activation must be one of {', '.join(ACTIVATIONS)}, with or without {LAYER_NORM!r} "
            f"at its end for a LayerNorm behind it, but {name!r} arrived."
        )
    return ACTIVATIONS[base], base != name
