"""Statistics of activations between two models: batch norm counted anew, and REPAIR."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from phasescope.analysis.permutations.symmetry import PermutationSymmetry
from phasescope.models.calling import call_at, tied_names, with_ties
from phasescope.models.evaluation import evaluating

Hook = Callable[[str, Tensor], Tensor | None]


def reestimate_batch_norm(
    model: nn.Module, state: Mapping[str, Tensor], batches: Iterable[tuple[Any, ...]]
) -> dict[str, Tensor]:
    """A state whose running means and variances are those of its own activations.

    Weights half-way between two models have activations of other means and variances than either;
    with statistics that are averaged like weights, batch norm cannot but fail there. They are reset
    and averaged over all batches with equal weight (``momentum=None``), in one pass in which the
    batch norms normalise by the batch; dropout is off.

    Args:
        model: The module; it is not changed.
        state: Weights and buffers.
        batches: Tuples of inputs, of the training data.

    Returns:
        The state with new statistics, everything else as it was.

    Raises:
        ValueError: There is no batch norm with running statistics, or no batch.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
        >>> state = model.state_dict() | {"0.weight": torch.ones(1, 1)}
        >>> x = torch.tensor([[1.0], [3.0]])
        >>> reestimate_batch_norm(model, state, [(x,)])["1.running_mean"]
        tensor([2.])

    References:
        Ainsworth, Hayase & Srinivasa (2022), arXiv:2209.04836, section 5. Izmailov et al. (2018),
        arXiv:1803.05407, section 3.2.
    """
    norms = {
        f"{path}.".lstrip("."): module
        for path, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    }
    if not norms:
        raise ValueError(
            "a model with batch norms that keep running statistics is required, but there is none. "
            "Other models need no re-estimation."
        )
    own = {name for name, _ in model.named_buffers()}
    tied = tied_names(model)
    state = with_ties(state, tied)
    new = {n: v.detach().clone() if n in own else v.detach() for n, v in state.items()}
    for prefix in norms:
        new[f"{prefix}running_mean"].zero_()
        new[f"{prefix}num_batches_tracked"].zero_()
        new[f"{prefix}running_var"].fill_(1)
    momenta = [norm.momentum for norm in norms.values()]
    n_batches = 0
    with evaluating(model):
        try:
            for norm in norms.values():
                norm.momentum = None
                norm.training = True
            for inputs in batches:
                call_at(model, new, tied, inputs)
                n_batches += 1
        finally:
            for norm, momentum in zip(norms.values(), momenta, strict=True):
                norm.momentum = momentum
    if not n_batches:
        raise ValueError("at least one batch of inputs is required, but there is none.")
    return new


def repair(
    symmetry: PermutationSymmetry,
    model: nn.Module,
    ends: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    batches: Sequence[tuple[Any, ...]],
    *,
    t: float = 0.5,
) -> dict[str, Tensor]:
    r"""A point between two aligned models, its pre-activations rescaled to those of the ends.

    Every unit's pre-activation at $(1-t)\theta_A + t\,\theta_B$ is shifted and scaled to mean
    $(1-t)\mu_A + t\mu_B$ and standard deviation $(1-t)\sigma_A + t\sigma_B$, layer after layer,
    each seeing the corrected output of those before, and the correction is absorbed into weights
    and biases. Units are the outputs of `torch.nn.Linear` and convolutions that may be permuted.

    Args:
        symmetry: From `permutation_symmetry`.
        model: The module; it is not changed.
        ends: The first model, and the second one already permuted.
        batches: Tuples of inputs; statistics are averaged over them with equal weight.
        t: Place between the ends.

    Returns:
        The state.

    Raises:
        ValueError: There is no layer to correct, one without bias, or one whose weight or bias is
            another's too and cannot meet the goals of both.

    Example:
        >>> import phasescope as ps
        >>> model = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 2))
        >>> symmetry = ps.permutation_symmetry(model, (torch.ones(1, 4),))
        >>> state = model.state_dict()
        >>> same = repair(symmetry, model, (state, state), [(torch.eye(4),)])
        >>> torch.allclose(same["0.weight"], state["0.weight"])
        True

    References:
        Jordan et al. (2022), "REPAIR: REnormalizing Permuted Activations for Interpolation Repair",
        arXiv:2211.08403, section 3.
    """
    layers = _layers(symmetry, model)
    if not batches:
        raise ValueError("at least one batch of inputs is required, but there is none.")
    middle = {
        n: torch.lerp(a.detach(), ends[1][n].detach(), t) if a.is_floating_point() else a
        for n, a in ends[0].items()
    }
    measured = [_statistics(model, layers, end, batches) for end in ends]
    goals = {
        name: tuple(
            torch.lerp(x, y, t) for x, y in zip(measured[0][name], measured[1][name], strict=True)
        )
        for name in layers
    }
    own = _statistics(model, layers, middle, batches, goals)
    for name in layers:
        (mean, spread), (goal_mean, goal_spread) = own[name], goals[name]
        factor = torch.where(spread > 0, goal_spread / spread, 1.0)
        weight, bias = middle[f"{name}.weight"], middle[f"{name}.bias"]
        transposed = getattr(layers[name], "transposed", False)
        shape = [1, -1] if transposed else [-1, 1]
        scale = factor.view(*shape, *[1] * (weight.ndim - 2)).to(weight.dtype)
        middle[f"{name}.weight"] = weight * scale
        middle[f"{name}.bias"] = ((bias - mean) * factor + goal_mean).to(bias.dtype)
    return middle


def _layers(symmetry: PermutationSymmetry, model: nn.Module) -> dict[str, nn.Module]:
    layers = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | _ConvNd):
            continue
        transposed = getattr(module, "transposed", False)
        axes = symmetry.axes.get(f"{name}.weight", ())
        if transposed and getattr(module, "groups", 1) > 1:
            continue
        own = axes[1 if transposed else 0] if axes else ()
        if any(isinstance(f, str) for segment in own for f in segment):
            layers[name] = module
    shared = {*symmetry.tied, *symmetry.tied.values()}
    tied = [n for n in layers if {f"{n}.weight", f"{n}.bias"} & shared]
    if tied:
        raise ValueError(
            f"layers with weights and biases of their own are required, but those of {tied[0]!r} "
            "are another layer's too. Untie them first."
        )
    without = [name for name, module in layers.items() if module.bias is None]
    if without or not layers:
        raise ValueError(
            "linear layers or convolutions with biases, whose outputs may be permuted, are "
            f"required, but {without[0] + ' has no bias' if without else 'there is none'}. Models "
            "with batch norm need reestimate_batch_norm instead."
        )
    return layers


def _statistics(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    state: Mapping[str, Tensor],
    batches: Sequence[tuple[Any, ...]],
    goals: Mapping[str, tuple[Tensor, ...]] | None = None,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and standard deviation of every output; with goals, later layers see corrected ones."""
    means: dict[str, list[Tensor]] = {name: [] for name in layers}
    variances: dict[str, list[Tensor]] = {name: [] for name in layers}

    def hook(name: str, out: Tensor) -> Tensor | None:
        axis = out.ndim - 1 if isinstance(layers[name], nn.Linear) else 1
        rows = out.movedim(axis, 0).flatten(1)
        mean, variance = rows.mean(1), rows.var(1, unbiased=False)
        means[name].append(mean)
        variances[name].append(variance)
        if goals is None:
            return None
        goal_mean, goal_spread = goals[name]
        factor = torch.where(variance > 0, goal_spread / variance.sqrt(), 1.0)
        shape = [-1 if d == axis else 1 for d in range(out.ndim)]
        return (out - mean.view(shape)) * factor.view(shape) + goal_mean.view(shape)

    tied = tied_names(model)
    with _hooked(layers, hook), evaluating(model):
        for inputs in batches:
            call_at(model, state, tied, inputs)
    return {
        name: (torch.stack(means[name]).mean(0), torch.stack(variances[name]).mean(0).sqrt())
        for name in layers
    }


@contextmanager
def _hooked(layers: Mapping[str, nn.Module], hook: Hook) -> Iterator[None]:
    def named(name: str) -> Callable[[nn.Module, Any, Tensor], Tensor | None]:
        return lambda module, args, out: hook(name, out)

    handles = [layer.register_forward_hook(named(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
