"""The hidden neurons of the feature model: activation, choice among them, and the way back.

Axes: model, row of a batch, neuron (k), group of neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

FeatureActivation = Literal["relu", "gelu", "x_exp"]


@dataclass(frozen=True)
class Activation:
    """An activation and its backward pass."""

    forward: Callable[[Tensor], Tensor]
    """Of the pre-activations, which it may write over."""
    backward: Callable[[Tensor, Tensor, Tensor], Tensor]
    """Gradient at z of the gradient at h, z and h; where `forward` writes over z, z is h."""


FEATURE_ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(
        torch.relu_, lambda grad, z, h: torch.ops.aten.threshold_backward(grad, h, 0)
    ),
    "gelu": Activation(functional.gelu, lambda grad, z, h: torch.ops.aten.gelu_backward(grad, z)),
    # What the paper calls SoLU: each neuron by itself, unlike x softmax(x).
    "x_exp": Activation(lambda z: z * z.exp(), lambda grad, z, h: grad * (h + z.exp())),
}


def feature_activation(name: str) -> Activation:
    """An activation of the feature model by its name."""
    if name not in FEATURE_ACTIVATIONS:
        raise ValueError(
            f"activation must be one of {', '.join(FEATURE_ACTIVATIONS)}, but {name!r} arrived."
        )
    return FEATURE_ACTIVATIONS[name]


def largest(values: Tensor, n: int, name: str = "top_k") -> Tensor:
    """1 at the largest `n` of every row, 0 elsewhere; which of equal ones is not said."""
    if not 1 <= n <= values.shape[-1]:
        raise ValueError(
            f"{name} must lie between 1 and the {values.shape[-1]} there are, but it is {n}."
        )
    places = values.topk(n, dim=-1, sorted=False).indices
    return torch.zeros_like(values).scatter_(-1, places, 1.0)


@dataclass(frozen=True)
class Neurons:
    r"""How the hidden layer computes: one activation, and which neurons act on a row.

    With `top_k` those of the largest activations do. With `n_active_groups` the neurons form groups
    of equal size (as many as "W_gate" has rows, neighbours together); on a row only the groups with
    the largest gates act, and their activations are multiplied by the gate, a sigmoid of
    $W_\text{gate} x$: only those groups would have to be computed.
    """

    activation: FeatureActivation = "relu"
    top_k: int | None = None
    n_active_groups: int | None = None

    def __post_init__(self) -> None:
        """Check that neurons are chosen in one way."""
        if self.top_k is not None and self.n_active_groups is not None:
            raise ValueError(
                "neurons act by top_k or by groups, but both top_k and n_active_groups arrived. "
                "Leave one out."
            )

    def forward(self, params: Mapping[str, Tensor], x: Tensor, z: Tensor) -> Hidden:
        """Activations of pre-activations z, which may be written over."""
        rule = feature_activation(self.activation)
        f = rule.forward(z)
        if self.n_active_groups is not None:
            gates = torch.sigmoid(x @ params["W_gate"].mT)
            chosen = largest(gates, self.n_active_groups, "n_active_groups")
            per_group = f.shape[-1] // gates.shape[-1]
            scale = (gates * chosen).repeat_interleave(per_group, dim=-1)
            return Hidden(rule, z, f, f * scale, scale, gates, chosen)
        if self.top_k is not None:
            scale = largest(f, self.top_k)
            return Hidden(rule, z, f, f * scale, scale)
        return Hidden(rule, z, f, f)


@dataclass(frozen=True)
class Hidden:
    """Activations, and what the way back needs."""

    rule: Activation
    z: Tensor
    """Pre-activations, or f where the activation wrote over them."""
    f: Tensor
    """Of every neuron, as if it acted."""
    h: Tensor
    """After the choice."""
    scale: Tensor | None = None
    """h / f; None where every neuron acts."""
    gates: Tensor | None = None
    """Of every group, in (0, 1)."""
    chosen: Tensor | None = None
    """1 for the groups that act."""

    def backward(self, grad_h: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gradients at the pre-activations and at the gates' pre-activations."""
        grad_gate = None
        if self.gates is not None and self.chosen is not None:
            products = (grad_h * self.f).unflatten(-1, (self.gates.shape[-1], -1)).sum(-1)
            grad_gate = products * self.chosen * self.gates * (1 - self.gates)
        grad_f = grad_h if self.scale is None else grad_h * self.scale
        return self.rule.backward(grad_f, self.z, self.f), grad_gate
