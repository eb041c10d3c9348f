"""What a model computes at named sites, read and replaced during one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from phasescope.components.reading import closest
from phasescope.interventions.weights import AtWeights
from phasescope.models import PairTransformer

Edit = Callable[[Tensor], Tensor | None]


def forward_with(model: nn.Module, inputs: Tensor, edits: Mapping[str, Edit]) -> Any:
    """What a model returns if the values at some sites are replaced on the way.

    A site is the output of a submodule, under its name in ``model.named_modules()``; where it is a
    tuple, as in blocks of Hugging Face models, its first entry. Sites of a `PairTransformer`, also
    inside `AtWeights`, are the names that its ``hook`` is called with, such as
    ``"blocks.0.attn.hook_z"``. Everything behind a site sees the new value. Hooks are removed
    before the call returns, also if it fails; weights and mode of the model stay (call ``eval()``
    first if it has dropout), and gradients flow.

    Args:
        model: Any module.
        inputs: Its argument, one example per row.
        edits: For each site a function of the value there; None leaves it as it is, so an edit may
            just look.

    Returns:
        The model's output.

    Raises:
        KeyError: There is no such site.
        ValueError: The pass did not come to a site, or the new value has another shape.
        TypeError: The output at a site is no tensor.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> changed = forward_with(model, torch.ones(1, 2), {"1": torch.zeros_like})
        >>> torch.equal(changed[0], model[2].bias)
        True
    """
    missing = set(edits)

    def apply(site: str, value: Tensor) -> Tensor | None:
        missing.discard(site)
        new = edits[site](value)
        if new is not None and new.shape != value.shape:
            raise ValueError(
                f"an edit must keep the shape of the value, but at {site!r} {tuple(value.shape)} "
                f"became {tuple(new.shape)}. Return one row for each input."
            )
        return new

    inner = model.model if isinstance(model, AtWeights) else model
    if isinstance(inner, PairTransformer):
        seen: list[str] = []

        def hook(name: str, value: Tensor) -> Tensor | None:
            seen.append(name)
            return apply(name, value) if name in edits else None

        output = model(inputs, hook)
        if missing:
            raise KeyError(_unknown(missing, seen))
        return output
    with _hooks(model, edits, apply):
        output = model(inputs)
    if missing:
        raise ValueError(
            f"the pass must come to every site, but it did not come to {sorted(missing)}. Name "
            "submodules that the model calls."
        )
    return output


def activations(
    model: nn.Module, inputs: Tensor, sites: Sequence[str]
) -> dict[str, Float[Tensor, "n *rest"]]:
    """Values at some sites, for every input; see `forward_with` for what a site is.

    Args:
        model: Any module.
        inputs: Its argument, one example per row.
        sites: Names of the sites.

    Returns:
        A value for each site, without gradients.

    Raises:
        KeyError: There is no such site.
        ValueError: The pass came to a site twice, or not at all.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> activations(model, torch.ones(4, 2), ["0"])["0"].shape
        torch.Size([4, 3])
    """
    found: dict[str, Tensor] = {}

    def keep(site: str) -> Edit:
        def edit(value: Tensor) -> None:
            if site in found:
                raise ValueError(
                    f"a site must have one value in a pass, but the pass came to {site!r} twice: "
                    "the module is shared. Name one that is not."
                )
            found[site] = value.detach()

        return edit

    with torch.no_grad():
        forward_with(model, inputs, {site: keep(site) for site in sites})
    return {site: found[site] for site in sites}


@contextmanager
def _hooks(
    model: nn.Module, edits: Mapping[str, Edit], apply: Callable[[str, Tensor], Tensor | None]
) -> Iterator[None]:
    modules = dict(model.named_modules())
    if unknown := set(edits) - set(modules):
        raise KeyError(_unknown(unknown, [name for name in modules if name]))

    def hook_at(site: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
            first = output[0] if isinstance(output, tuple) and output else output
            if not isinstance(first, Tensor):
                raise TypeError(
                    f"the output at a site must be a tensor, or a tuple that begins with one, but "
                    f"that of {site!r} is {type(output).__name__}. Name a submodule of it."
                )
            new = apply(site, first)
            if new is None:
                return None
            return (new, *output[1:]) if isinstance(output, tuple) else new

        return hook

    handles = [modules[site].register_forward_hook(hook_at(site)) for site in edits]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _unknown(sites: set[str], known: Sequence[str]) -> str:
    site = sorted(sites)[0]
    near = ", ".join(map(repr, closest(site, dict.fromkeys(known))))
    return f"there is no site {site!r} in this model; the closest are {near}."
