"""The layers of a ResNet by kind and depth, and which of them the loss is scale-invariant to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["conv", "bn", "downsample conv", "downsample bn", "fc"]


@dataclass(frozen=True)
class Layer:
    """One layer with its parameters."""

    name: str
    """Its module."""
    kind: Kind
    """What it is."""
    depth: int
    """Convolutions of the main path before it; a downsampling lies beside the second of its block.
    """
    parameters: tuple[str, ...]
    """Names of its parameters."""
    invariant: bool
    """Whether scaling all its parameters by a positive number changes no output: a convolution
    before a batch norm, and the batch norm between the two convolutions of a block, whose ReLU,
    convolution and batch norm cancel it. What is added to a skip connection is not."""


def resnet_layers(names: Iterable[str]) -> tuple[Layer, ...]:
    """Layers of a `ResNet`, in the order of their parameters.

    Args:
        names: Names of its parameters, in order.
    """
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(name.rpartition(".")[0], []).append(name)
    layers, depth = [], -1
    for module, parameters in members.items():
        last = module.rpartition(".")[2]
        if ".downsample." in f".{module}.":
            kind: Kind = "downsample conv" if last == "0" else "downsample bn"
        elif module == "fc":
            kind, depth = "fc", depth + 1
        elif last.startswith("conv"):
            kind, depth = "conv", depth + 1
        else:
            kind = "bn"
        inner = kind == "bn" and last == "bn1" and module != "bn1"
        invariant = kind in ("conv", "downsample conv") or inner
        layers.append(Layer(module, kind, depth, tuple(parameters), invariant))
    return tuple(layers)
