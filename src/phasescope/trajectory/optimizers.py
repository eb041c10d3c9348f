"""What the recorder must know about optimizers: their decay, their state, what they consume."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn, optim

DecayFactor = Callable[[Mapping[str, Any]], float]

# Optimizers whose flag (or class) makes the decay act on the weights and not on the gradient.
_FLAGGED = (optim.Adam, optim.NAdam, optim.RAdam)


def decay_factor(optimizer: optim.Optimizer) -> DecayFactor | None:
    """The function ``param group -> lr * weight_decay`` of decoupled decay, or None.

    Known for AdamW, and for Adam, NAdam and RAdam with ``decoupled_weight_decay``. An optimizer
    without any weight decay has a split as well: its decay is zero.
    """
    if isinstance(optimizer, optim.AdamW):
        return _product
    if all(not group.get("weight_decay", 0) for group in optimizer.param_groups):
        return _product
    decoupled = all(group.get("decoupled_weight_decay") for group in optimizer.param_groups)
    return _product if isinstance(optimizer, _FLAGGED) and decoupled else None


def _product(group: Mapping[str, Any]) -> float:
    return float(group["lr"]) * float(group.get("weight_decay", 0))


def moment_names(optimizer: optim.Optimizer) -> tuple[str, ...]:
    """Names of the state tensors that have their parameter's shape, such as ``exp_avg``.

    Read from the state where there is some, else from PyTorch's own optimizers' settings.
    """
    names: dict[str, None] = {}
    for param, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == param.shape and value.dim():
                names[name] = None
    if names:
        return tuple(names)
    group = optimizer.param_groups[0]
    if isinstance(optimizer, (optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam)):
        amsgrad = ("max_exp_avg_sq",) if group.get("amsgrad") else ()
        return ("exp_avg", "exp_avg_sq", *amsgrad)
    if isinstance(optimizer, optim.SGD):
        return ("momentum_buffer",) if group.get("momentum") else ()
    if isinstance(optimizer, optim.RMSprop):
        centered = ("grad_avg",) if group.get("centered") else ()
        momentum = ("momentum_buffer",) if group.get("momentum") else ()
        return ("square_avg", *momentum, *centered)
    if isinstance(optimizer, optim.Adagrad):
        return ("sum",)
    return ()


def check_owned(optimizer: optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> None:
    """Check that an optimizer updates a model's parameters and nothing else.

    Raises:
        ValueError: It updates tensors that are not among them.
    """
    owned = {id(p) for p in parameters.values()}
    groups = [p for group in optimizer.param_groups for p in group["params"]]
    foreign = [tuple(p.shape) for p in groups if id(p) not in owned]
    if foreign:
        raise ValueError(
            f"the optimizer must update the model's parameters, but {len(foreign)} of its "
            f"{len(groups)} tensors (shapes {foreign[:3]}) are not among them. Build the optimizer "
            "from this model, or pass a ModuleDict that holds every module it updates."
        )


def check_real(parameters: Mapping[str, nn.Parameter]) -> None:
    """Check that the parameters fit into a vector of real numbers.

    Raises:
        ValueError: Some are complex.
    """
    complex_ones = [name for name, p in parameters.items() if p.is_complex()]
    if complex_ones:
        raise ValueError(
            "a run keeps the parameters as one vector of real numbers, but "
            f"{complex_ones[:3]} ({len(complex_ones)} in all) are complex. Keep them as real "
            "parameters, and use torch.view_as_complex(parameter) in the model."
        )
