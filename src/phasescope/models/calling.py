"""Calling a module with other weights than its own; parameters with several names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def tied_names(model: nn.Module) -> dict[str, str]:
    """Other names of tied parameters, and the one under which `named_parameters` has them.

    Example:
        >>> model = nn.ModuleDict({"embed": nn.Linear(2, 3), "head": nn.Linear(2, 3)})
        >>> model["head"].weight = model["embed"].weight
        >>> tied_names(model)
        {'head.weight': 'embed.weight'}
    """
    first: dict[int, str] = {}
    tied = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        if id(value) in first:
            tied[name] = first[id(value)]
        else:
            first[id(value)] = name
    return tied


def with_ties(
    state: Mapping[str, Tensor], tied: Mapping[str, str], what: str = "the state"
) -> dict[str, Tensor]:
    """A state in which tied parameters stand once, under their first name.

    Files often hold one of the names only, whichever it is.

    Args:
        state: By name.
        tied: From `tied_names`.
        what: How a message calls the state.

    Returns:
        The same tensors.

    Raises:
        ValueError: Two names of one parameter have different values.

    Example:
        >>> list(with_ties({"head.weight": torch.ones(1)}, {"head.weight": "embed.weight"}))
        ['embed.weight']
    """
    result = dict(state)
    for name, original in tied.items():
        if name not in result:
            continue
        value = result.pop(name)
        known = result.setdefault(original, value)
        if known is not value and not (known.shape == value.shape and bool((known == value).all())):
            raise ValueError(
                f"{name!r} and {original!r} are one parameter of the module, but in {what} their "
                "values differ. Is it the state of a module whose weights are not tied?"
            )
    return result


def call_at(
    model: nn.Module, state: Mapping[str, Tensor], tied: Mapping[str, str], args: tuple[Any, ...]
) -> Any:
    """Call a module with other weights, those of tied parameters at all their places.

    Args:
        model: The module.
        state: Weights, and buffers if they are to be others.
        tied: From `tied_names`.
        args: What it is called with.
    """
    check_arguments(args)
    every = {**state, **{name: state[first] for name, first in tied.items() if first in state}}
    return torch.func.functional_call(model, every, args, tie_weights=False)


def check_arguments(args: Any) -> None:
    """Raise unless these are what a model is called with, as a tuple.

    Example:
        >>> check_arguments((torch.ones(1),))
    """
    if not isinstance(args, tuple):
        raise TypeError(
            "a tuple of what the model is called with is required, such as (x,), but a "
            f"{type(args).__name__} arrived. Of a loader of inputs and targets, pass "
            "[(x,) for x, y in loader]."
        )
