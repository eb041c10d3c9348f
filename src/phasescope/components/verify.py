"""Whether the heads and neurons of a structure are what they are said to be, tested by function."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from phasescope.components.description import Heads, Neurons, Structure
from phasescope.components.layers import structure as derived_structure
from phasescope.components.selectors import components
from phasescope.parameters import Component, ParameterTable, named_parameters


def verify(
    model: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    *,
    structure: Structure | None = None,
) -> None:
    """Check by function that heads, groups and neurons are divided as the structure says.

    With the values of some key/value groups at zero, their heads give nothing: the gradient must
    vanish in the output, query and key slices of exactly these heads. With what leads into some
    neurons at zero, it must vanish in exactly their columns. Groups, or neurons, are numbered in
    binary and every digit is tried, so that a few evaluations settle the place of each.

    It cannot tell queries from keys where every head has keys of its own, says nothing of what
    belongs to no head or neuron, and tests neurons only where their column is known. Activations
    must map 0 to 0.

    Args:
        model: The model; a copy is changed, in evaluation mode.
        loss: Loss of a model, or any number that depends on all of it; inputs of several positions
            are needed.
        structure: What is to be checked; by default what is derived.

    Raises:
        ValueError: A slice is not what it is said to be; which, and what happened instead.

    Example:
        >>> model = nn.TransformerEncoderLayer(d_model=8, nhead=2, dim_feedforward=16)
        >>> x = torch.linspace(-1, 1, 40).view(5, 1, 8).sin()
        >>> verify(model, lambda model: model(x).pow(3).sum())
    """
    structure = derived_structure(model) if structure is None else structure
    trial = _Trial(copy.deepcopy(model).eval(), loss)
    for i, layer in enumerate(structure.layers):
        for kind, heads in (("h", layer.heads), ("x", layer.cross_heads)):
            if heads is not None:
                _verify_heads(trial, structure, f"l{i}{kind}", heads)
        if layer.neurons is not None and layer.neurons.out:
            _verify_neurons(trial, structure, f"l{i}n", layer.neurons)


class _Trial:
    """A model whose parts can be set to zero, and the gradients that this gives."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> None:
        self.model = model
        self._loss = loss
        self.table = ParameterTable.from_module(model)
        self._parameters = named_parameters(model)
        self._values = {name: p.detach().clone() for name, p in self._parameters.items()}
        for parameter in self._parameters.values():
            parameter.requires_grad_(True)

    def gradient(self, zeroed: Sequence[Tensor]) -> Tensor:
        """The flat gradient with these columns at zero."""
        vector = self.table.flatten(self._values)
        for columns in zeroed:
            vector[columns.to(vector.device)] = 0
        parameters = list(self._parameters.values())
        with torch.no_grad():
            for parameter, value in zip(
                parameters, self.table.unflatten(vector).values(), strict=True
            ):
                parameter.copy_(value)
        with torch.enable_grad():
            found = torch.autograd.grad(self._loss(self.model), parameters, allow_unused=True)
        filled = [
            torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)
        ]
        return self.table.flatten(dict(zip(self.table.names, filled, strict=True)))


def _verify_heads(trial: _Trial, structure: Structure, prefix: str, heads: Heads) -> None:
    r = heads.n_heads // heads.n_groups
    parts = components(trial.model, *(f"{prefix}* {p}" for p in "qkvo"), structure=structure)
    sources = [parts[f"{prefix}{g * r} v"] for g in range(heads.n_groups)]
    readers = [(h // r, parts[f"{prefix}{h} {p}"]) for h in range(heads.n_heads) for p in "oqk"]
    _verify(trial, sources, [reader for _, reader in readers], [group for group, _ in readers])


def _verify_neurons(trial: _Trial, structure: Structure, prefix: str, neurons: Neurons) -> None:
    parts = components(trial.model, f"{prefix}* in", f"{prefix}* out", structure=structure)
    sources = [parts[f"{prefix}{j} in"] for j in range(neurons.n)]
    readers = [parts[f"{prefix}{j} out"] for j in range(neurons.n)]
    _verify(trial, sources, readers, list(range(neurons.n)))


def _verify(
    trial: _Trial, sources: list[Component], readers: list[Component], source_of: list[int]
) -> None:
    """Zeroing sources silences exactly the readers that belong to them."""
    zeroed = [source.columns for source in sources]
    read = [reader.columns for reader in readers]
    columns, sizes = torch.cat(read), [len(part) for part in read]
    silent = _silent(trial.gradient([]), columns, sizes)
    for chosen in _digits(len(sources)):
        now = _silent(trial.gradient([zeroed[i] for i in chosen]), columns, sizes)
        for reader, source, was_silent, is_silent in zip(
            readers, source_of, silent, now, strict=True
        ):
            if was_silent or is_silent == (source in chosen):
                continue
            names = ", ".join(sources[i].name for i in sorted(chosen)[:4])
            names += ", ..." * (len(chosen) > 4)
            wanted, found = ("vanish", "does not") if source in chosen else ("remain", "vanishes")
            norm = " A norm over the queries or keys of all heads couples them, too."
            raise ValueError(
                f"with {names} at zero the gradient of {reader.name!r} must {wanted}, but it "
                f"{found}: these slices do not belong together. Correct the structure, or state "
                "the number of heads or the layout of fused matrices."
                + norm
                * reader.name.endswith((" q", " k"))
            )


def _silent(gradient: Tensor, columns: Tensor, sizes: list[int]) -> list[bool]:
    """For successive groups of columns, whether the gradient vanishes in all of them."""
    sounds = (gradient[columns.to(gradient.device)] != 0).cpu()
    return [not bool(part.any()) for part in sounds.split(sizes)]


def _digits(n: int) -> Iterator[set[int]]:
    """Sets that tell n numbers apart: for every binary digit those with a 1, and those with a 0."""
    yield set(range(n))
    for digit in range((n - 1).bit_length()):
        ones = {i for i in range(n) if i >> digit & 1}
        yield ones
        yield set(range(n)) - ones
