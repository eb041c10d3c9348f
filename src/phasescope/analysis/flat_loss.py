"""A loss of parameters by name as a function of one flat vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from phasescope.parameters import Component, ParameterTable

Loss = Callable[[dict[str, Tensor]], Tensor]


class FlatLoss:
    """A loss of parameters by name, called with their flat vector in the order of the mapping.

    Args:
        loss: Scalar loss of parameters by name.
        parameters: Where the vector starts; their shapes.

    Raises:
        ValueError: There are no parameters, or not all are floating-point tensors of one dtype.
    """

    def __init__(self, loss: Loss, parameters: Mapping[str, Tensor]) -> None:
        dtypes = {name: value.dtype for name, value in parameters.items()}
        if len(set(dtypes.values())) != 1 or not all(d.is_floating_point for d in dtypes.values()):
            raise ValueError(
                "parameters of one floating-point dtype are required, but "
                f"{', '.join(f'{n}: {d}' for n, d in dtypes.items()) or 'none'} arrived. Bind "
                "buffers in the loss, and convert the others."
            )
        self._loss = loss
        shapes = tuple(tuple(value.shape) for value in parameters.values())
        self._table = ParameterTable(tuple(parameters), shapes)
        self.start: Float[Tensor, " P"] = self._table.flatten(
            {name: value.detach() for name, value in parameters.items()}
        )
        """The parameters as a vector."""

    def __call__(self, vector: Float[Tensor, " P"]) -> Shaped[Tensor, ""]:
        """The loss at a vector."""
        return self._loss(self._table.unflatten(vector))

    def mask(self, component: Component | None) -> Float[Tensor, " P"]:
        """1 at the entries of a component and 0 elsewhere; 1 everywhere without one.

        Raises:
            ValueError: The component is empty or not part of these parameters.
        """
        if component is None:
            return torch.ones_like(self.start)
        if not component.size or not component.fits(len(self.start)):
            raise ValueError(
                f"a non-empty component of {len(self.start)} parameters is required, but "
                f"{component.name!r} has {component.size} of them and ends at {component.stop}."
            )
        return component.mask(len(self.start)).to(self.start)
