"""A model at other weights than its own: the caller's model is never changed."""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from phasescope.parameters import ParameterTable, named_parameters


def flat_weights(model: nn.Module) -> Float[Tensor, " P"]:
    """A copy of a model's weights as one vector, in ``named_parameters()`` order.

    Example:
        >>> flat_weights(nn.Linear(3, 2)).shape
        torch.Size([8])
    """
    parameters = named_parameters(model)
    return ParameterTable.from_module(model).flatten({n: p.detach() for n, p in parameters.items()})


class AtWeights(nn.Module):
    """A model as it is, at the weights of a vector.

    Calls go through `torch.func.functional_call`: the model's own weights stay, and so do its
    buffers, of which every call uses a copy. It takes the model's place wherever one is evaluated,
    such as in `accuracy`; gradients flow into the vector if it requires them.

    Args:
        model: The model; its mode (training or evaluation) is that of the wrapper.
        weights: As many as the model has parameters, in ``named_parameters()`` order.

    Raises:
        ValueError: The vector has another length.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> AtWeights(model, torch.tensor([2.0, 1.0]))(torch.tensor([[3.0]]))
        tensor([[7.]])
    """

    def __init__(self, model: nn.Module, weights: Float[Tensor, " P"]) -> None:
        super().__init__()
        self.model = model
        self.table = ParameterTable.from_module(model)
        check_length(self.table, weights)
        self.weights = weights
        self._places = parameter_places(model)
        self._names = tuple(name for name, _ in model.named_parameters())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns at these weights."""
        values = dict(zip(self._names, self.table.unflatten(self.weights).values(), strict=True))
        named = {place: values[name] for place, name in self._places.items()}
        named |= {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        return torch.func.functional_call(self.model, named, args, kwargs, tie_weights=False)


def parameter_places(model: nn.Module) -> dict[str, str]:
    """Where a model's parameters stand, and the name of the parameter that stands there.

    Every place once, also where one module has several names: torch's own way of tying would swap
    such a place twice, and put the wrong tensor back.

    Args:
        model: The model.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> parameter_places(nn.Sequential(layer, layer))
        {'0.weight': '0.weight'}
    """
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{prefix}.{name}".lstrip("."): first[id(parameter)]
        for prefix, module in model.named_modules()
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
    }


def without_parameters(model: nn.Module) -> nn.Module:
    """A copy of a model whose parameters are buffers, tied ones still tied."""
    inner = copy.deepcopy(model)
    buffers: dict[int, Tensor] = {}
    for module in list(inner.modules()):
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            value = buffers.setdefault(id(parameter), parameter.detach().clone())
            delattr(module, name)
            module.register_buffer(name, value)
    return inner


def check_length(table: ParameterTable, vector: Tensor) -> None:
    """Raise unless a vector has one entry per parameter of a table."""
    if vector.shape != (table.size,):
        raise ValueError(
            f"a vector of the model's {table.size} parameters is required, but one of shape "
            f"{tuple(vector.shape)} arrived. Take both from the same model; ParameterTable.flatten "
            "makes a vector of named tensors."
        )
