"""What parts of a network do: ablation, activation patching and path patching.

Letters: n inputs, c parts, R draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from phasescope.interventions.parts import Part
from phasescope.interventions.sites import Edit, activations, forward_with

Measure = Callable[[Any], float | Tensor]
Kind = Literal["zero", "mean", "resample"]
Direction = Literal["restore", "corrupt"]


@dataclass(frozen=True, eq=False)
class AblationEffects:
    """What a measure of the output changes by without each part."""

    names: tuple[str, ...]
    """Of the parts."""
    baseline: float
    """The measure of the whole model."""
    effects: dict[str, Float64[Tensor, " c"]]
    """The measure without the part minus `baseline`, for each kind of ablation."""
    draws: Float64[Tensor, "R c"]
    """The effect of every single resampling, of which ``effects["resample"]`` is the mean; no rows
    without it."""


def ablation_effects(
    model: nn.Module,
    inputs: Tensor,
    parts: Sequence[Part],
    measure: Measure,
    *,
    kinds: Sequence[Kind] = ("zero", "mean", "resample"),
    reference: Tensor | None = None,
    n_resamples: int = 5,
    seed: int = 0,
) -> AblationEffects:
    """What a measure changes by if a part of the network is ablated, one part at a time.

    - ``"zero"``: the part is 0. It may never be so in the network: a large effect need not mean
      that the part tells inputs apart.
    - ``"mean"``: the part has its mean over the reference inputs. What remains is the effect of its
      telling inputs apart.
    - ``"resample"``: the part has the value of another reference input, drawn at random for each
      input. It stays where it usually is, but says something else.

    Args:
        model: Any module; it is not changed. In training mode its dropout acts.
        inputs: Its argument, one example per row.
        parts: What is ablated.
        measure: A number of the model's output, such as a loss; of outputs for all inputs.
        kinds: Which ablations.
        reference: Inputs for mean and resampling; by default `inputs`.
        n_resamples: Draws R of the resampling.
        seed: Of the draws.

    Returns:
        An effect for each part and kind.

    Raises:
        ValueError: There are no parts, or a kind is another word.
        KeyError: A part's site does not exist.

    Example:
        >>> from phasescope.interventions import entries
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[2.0, 1.0]]))
        >>> net = nn.Sequential(nn.Identity(), model)
        >>> x = torch.tensor([[1.0, 1.0], [3.0, 1.0]])
        >>> parts = [entries("0", 0), entries("0", 1)]
        >>> found = ablation_effects(net, x, parts, lambda y: y.mean(), kinds=["zero"])
        >>> found.baseline, found.effects["zero"].tolist()
        (5.0, [-4.0, -1.0])
    """
    _check(parts, kinds, get_args(Kind), "kinds")
    sites = tuple(dict.fromkeys(part.site for part in parts))
    reference = inputs if reference is None else reference
    known = activations(model, reference, sites)
    generator = torch.Generator().manual_seed(seed)
    draws = [
        torch.randint(len(reference), (len(inputs),), generator=generator)
        for _ in range(n_resamples)
    ]
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    resampled = []

    def effect(part: Part, new: Tensor) -> float:
        return _measured(model, inputs, {part.site: _put(part, new)}, measure) - baseline

    baseline = _measured(model, inputs, {}, measure)
    for part in parts:
        own = part.take(known[part.site])
        if "zero" in kinds:
            found["zero"].append(effect(part, torch.zeros_like(own[:1])))
        if "mean" in kinds:
            found["mean"].append(effect(part, own.mean(0, keepdim=True)))
        if "resample" in kinds:
            resampled.append([effect(part, own[rows.to(own.device)]) for rows in draws])
    each = torch.zeros(0, len(parts), dtype=torch.float64)
    if resampled:
        each = torch.tensor(resampled, dtype=torch.float64).T
    if "resample" in kinds:
        found["resample"] = each.mean(0).tolist()
    effects = {kind: torch.tensor(values, dtype=torch.float64) for kind, values in found.items()}
    return AblationEffects(tuple(part.name for part in parts), baseline, effects, each)


@dataclass(frozen=True, eq=False)
class PatchEffects:
    """How much of the difference between two sets of inputs each part carries."""

    names: tuple[str, ...]
    """Of the parts, or of the senders."""
    clean: float
    """The measure on the clean inputs."""
    corrupted: float
    """The measure on the corrupted inputs."""
    values: Float64[Tensor, " c"]
    """The measure with the part patched."""
    shares: Float64[Tensor, " c"]
    """Share of the difference that the patch brings about: 0 nothing, 1 all of it."""


def patch_effects(
    model: nn.Module,
    clean: Tensor,
    corrupted: Tensor,
    parts: Sequence[Part],
    measure: Measure,
    *,
    direction: Direction = "restore",
) -> PatchEffects:
    """How much of a measure's difference between two inputs goes through each part.

    Activation patching: with ``"restore"`` the corrupted inputs are run with the part's value on
    the clean ones (is it enough?), with ``"corrupt"`` the clean inputs with the part's corrupted
    value (is it needed?). Shares are of the difference of the measure; shares of parts that back
    each other up do not sum to one.

    Args:
        model: Any module; it is not changed.
        clean: Inputs of which the measure is of interest.
        corrupted: As many inputs, each like its clean one but for what is asked about.
        parts: What is patched, one at a time.
        measure: A number of the model's output.
        direction: What is run with what.

    Returns:
        A share for each part.

    Raises:
        ValueError: The inputs differ in number or not in the measure, there are no parts, or the
            direction is another word.
        KeyError: A part's site does not exist.

    Example:
        >>> from phasescope.interventions import entries
        >>> net = nn.Sequential(nn.Identity(), nn.Linear(2, 1, bias=False))
        >>> _ = net[1].weight.data.copy_(torch.tensor([[3.0, 1.0]]))
        >>> parts = [entries("0", 0), entries("0", 1)]
        >>> clean, corrupted = torch.ones(1, 2), torch.zeros(1, 2)
        >>> patch_effects(net, clean, corrupted, parts, lambda y: y.mean()).shares.tolist()
        [0.75, 0.25]

    References:
        Zhang & Nanda (2024), "Towards best practices of activation patching in language models",
        arXiv:2309.16042, section 2.
    """
    _check(parts, [direction], get_args(Direction), "direction")
    run, other = (corrupted, clean) if direction == "restore" else (clean, corrupted)
    sites = tuple(dict.fromkeys(part.site for part in parts))
    known = activations(model, other, sites)
    edits = [{part.site: _put(part, part.take(known[part.site]))} for part in parts]
    return _effects(model, clean, corrupted, parts, measure, direction, run, edits)


def path_effects(
    model: nn.Module,
    clean: Tensor,
    corrupted: Tensor,
    senders: Sequence[Part],
    measure: Measure,
    *,
    receivers: Sequence[str] = (),
    frozen: Sequence[str] = (),
) -> PatchEffects:
    """How much of a measure's difference goes from each part through given paths.

    Path patching, in two passes for each sender. First the clean inputs are run with the sender's
    corrupted value, and with everything at the `frozen` sites held at its clean value, so that the
    sender reaches the receivers only by paths around these. The values that arrive at the receivers
    go into a second pass of the clean inputs, which is free otherwise. Without receivers the output
    of the first pass is what is measured: the direct effect.

    In a one-layer transformer, a head's effect through the MLP has the receiver
    ``"blocks.0.mlp.hook_pre"``, its direct effect on the logits freezes
    ``"blocks.0.hook_mlp_out"``.

    Args:
        model: Any module; it is not changed.
        clean: Inputs of which the measure is of interest.
        corrupted: As many inputs, each like its clean one but for what is asked about.
        senders: Where paths begin, one at a time.
        measure: A number of the model's output.
        receivers: Sites where the paths end.
        frozen: Sites that no path goes through.

    Returns:
        A share for each sender, of the difference between clean and corrupted inputs.

    Raises:
        ValueError: The inputs differ in number or not in the measure, there are no senders, or a
            sender's site or a receiver is frozen.
        KeyError: A site does not exist.

    Example:
        >>> from phasescope.interventions import entries
        >>> class Net(nn.Module):  # y = x + 2x by two paths
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.start, self.twice = nn.Identity(), nn.Identity()
        ...     def forward(self, x):
        ...         x = self.start(x)
        ...         return x + self.twice(2 * x)
        >>> clean, corrupted, parts = torch.ones(1, 1), torch.zeros(1, 1), [entries("start", 0)]
        >>> path_effects(Net(), clean, corrupted, parts, torch.sum, frozen=["twice"]).shares
        tensor([0.3333], dtype=torch.float64)

    References:
        Wang et al. (2023), "Interpretability in the wild", arXiv:2211.00593, section 3.1;
        Goldowsky-Dill et al. (2023), "Localizing model behavior with path patching",
        arXiv:2304.05969.
    """
    _check(senders, [], (), "senders")
    held = set(frozen)
    if held & {*receivers, *(part.site for part in senders)}:
        raise ValueError(
            "senders and receivers must not be frozen, but "
            f"{sorted(held & {*receivers, *(part.site for part in senders)})} are. Freeze the "
            "sites that paths are to go around."
        )
    sites = tuple(dict.fromkeys(part.site for part in senders))
    theirs = activations(model, corrupted, sites)
    ours = activations(model, clean, tuple(held)) if held else {}
    edits: list[Mapping[str, Edit]] = []
    for part in senders:
        sent: dict[str, Edit] = {site: _constant(value) for site, value in ours.items()}
        sent[part.site] = _put(part, part.take(theirs[part.site]))
        if receivers:
            sent = _arriving(model, clean, sent, receivers)
        edits.append(sent)
    return _effects(model, clean, corrupted, senders, measure, "corrupt", clean, edits)


def _arriving(
    model: nn.Module, inputs: Tensor, edits: Mapping[str, Edit], receivers: Sequence[str]
) -> dict[str, Edit]:
    """Edits that give the receivers what arrives there in a pass with other edits."""
    found: dict[str, Tensor] = {}

    def looked_at(site: str) -> Edit:
        def edit(value: Tensor) -> Tensor | None:
            new = edits[site](value) if site in edits else None
            found[site] = value if new is None else new
            return new

        return edit

    with torch.no_grad():
        forward_with(model, inputs, dict(edits) | {site: looked_at(site) for site in receivers})
    return {site: _constant(value) for site, value in found.items()}


def _effects(
    model: nn.Module,
    clean: Tensor,
    corrupted: Tensor,
    parts: Sequence[Part],
    measure: Measure,
    direction: Direction,
    run: Tensor,
    edits: Sequence[Mapping[str, Edit]],
) -> PatchEffects:
    if len(clean) != len(corrupted):
        raise ValueError(
            f"every clean input needs a corrupted one, but there are {len(clean)} and "
            f"{len(corrupted)}."
        )
    ends = [_measured(model, x, {}, measure) for x in (clean, corrupted)]
    if ends[0] == ends[1]:
        raise ValueError(
            f"clean and corrupted inputs must differ in the measure, but both give {ends[0]:.6g}. "
            "Corrupt what the measure depends on."
        )
    values = torch.tensor(
        [_measured(model, run, edit, measure) for edit in edits], dtype=torch.float64
    )
    start, end = ends if direction == "corrupt" else ends[::-1]
    shares = (values - start) / (end - start)
    names = tuple(part.name for part in parts)
    return PatchEffects(names, ends[0], ends[1], values, shares)


def _put(part: Part, own: Tensor) -> Edit:
    return lambda value: part.put(value, own)


def _constant(new: Tensor) -> Edit:
    return lambda value: new


def _measured(
    model: nn.Module, inputs: Tensor, edits: Mapping[str, Edit], measure: Measure
) -> float:
    with torch.no_grad():
        return float(measure(forward_with(model, inputs, edits)))


def _check(
    parts: Sequence[Part], words: Sequence[str], allowed: Sequence[str], argument: str
) -> None:
    if not parts:
        raise ValueError("at least one part is required, but none arrived: see entries().")
    if wrong := [word for word in words if word not in allowed]:
        raise ValueError(
            f"{argument} must be of {', '.join(map(repr, allowed))}, but {wrong[0]!r} arrived."
        )
