"""The units of a ResNet: the filter that makes each, and the weights that read it.

A unit is an output channel of a convolution of the main path. Its readers are the weights on that
channel of the next convolution of the main path, or of the final layer behind the last one; the
channels of a block's last convolution are those of the skip connection, so they keep their number.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from torch import nn

import phasescope as ps
from phasescope.experiments.resnet_gradients.layers import resnet_layers


@dataclass(frozen=True)
class Units:
    """The units of a network."""

    sites: tuple[str, ...]
    """The batch norm behind each convolution of the main path."""
    sizes: tuple[int, ...]
    """Channels of each."""
    filters: dict[str, ps.Component]
    """What makes every unit, layer after layer."""
    readers: dict[str, ps.Component]
    """What reads it."""

    @property
    def layer(self) -> np.ndarray:
        """Index of the layer of every unit."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


def units_of(model: nn.Module) -> Units:
    """The units of a `ResNet`."""
    table = ps.ParameterTable.from_module(model)
    layers = resnet_layers(table.names)
    path = [layer.name for layer in layers if layer.kind in ("conv", "fc")]
    weights = {name: model.get_parameter(f"{name}.weight") for name in path}
    filters, readers, sizes = {}, {}, []
    for name, reader in itertools.pairwise(path):
        n, m = len(weights[name]), len(weights[reader])
        width = weights[name][0].numel()
        places = weights[reader][0, 0].numel()
        own, other = (table.interval(f"{x}.weight")[0] for x in (name, reader))
        sizes.append(n)
        for unit in range(n):
            filters[f"{name}:{unit}"] = ps.Component(
                f"{name}:{unit}", ((own + unit * width, own + (unit + 1) * width),)
            )
            block = np.array([[other + unit * places, places, n * places, m]], dtype=np.int64)
            readers[f"{name}:{unit} read"] = ps.Component(f"{name}:{unit} read", blocks=block)
    sites = tuple(name.replace("conv", "bn") for name in path[:-1])
    return Units(sites, tuple(sizes), filters, readers)
