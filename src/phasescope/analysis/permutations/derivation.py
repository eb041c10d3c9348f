"""From a model to its permutation symmetry: traced, and then tested on the function itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from phasescope.analysis.permutations.atoms import Axis
from phasescope.analysis.permutations.symmetry import (
    Axes,
    Factor,
    Group,
    PermutationSymmetry,
    ReadActivations,
)
from phasescope.analysis.permutations.tracing import Tracing, trace
from phasescope.models.calling import call_at, check_arguments, tied_names, with_ties
from phasescope.models.evaluation import evaluating

Function = Callable[..., Any]


def permutation_symmetry(
    model: nn.Module | Function,
    inputs: tuple[Any, ...],
    *,
    state: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> PermutationSymmetry:
    """Which hidden units of a model may be permuted without changing its function.

    One call of the model is traced, operation by operation: what is multiplied, added or normalised
    together must be permuted together, and an axis is frozen where the order matters (inputs,
    outputs, positions, rotary pairs, what is looked up or picked out, any operation that is not
    known). What remains is tested: random permutations of everything, at weights moved off their
    values so that zeros hide nothing, must leave the outputs unchanged in float64 to 1e-10 (in
    float32, where the model allows nothing else, to 1e-5), relative to the largest output.

    Layers, convolutions (grouped and transposed ones too), batch, layer and group norms, residual
    streams, embeddings, tied weights, heads of attention, and within each head the directions of
    queries and keys and of values, are found. With `torch.nn.MultiheadAttention` the directions of
    the values are permuted along with those of the keys, which is less than would be possible.

    Args:
        model: A module, or a function ``f(state, *inputs)``.
        inputs: What the model is called with; one or two samples are enough. A module that takes
            keywords needs a function around it.
        state: Weights at which to call; of a module, its own by default.
        seed: Of the permutations that are tried.

    Returns:
        The symmetry; printed, it lists the groups. Its `frozen` says why other axes are fixed.

    Raises:
        TypeError: The inputs are no tuple.
        ValueError: The model is a function and there is no state; nothing may be permuted; or the
            test fails, and for which groups.

    Example:
        >>> from phasescope.models import PairTransformer
        >>> model = PairTransformer(5, d_model=8, n_heads=2, d_mlp=6)
        >>> symmetry = permutation_symmetry(model, (torch.tensor([[0, 1], [2, 3]]),))
        >>> for group in symmetry.groups.values():
        ...     print(group.size, group.parent)
        8 None
        2 None
        4 blocks.0.attn.W_Q
        4 blocks.0.attn.W_Q
        6 None

    References:
        Ainsworth, Hayase & Srinivasa (2022), "Git Re-Basin", arXiv:2209.04836, section 2.
    """
    check_arguments(inputs)
    function, state, buffers, tied = as_function(model, state)
    given = {name: value.detach() for name, value in state.items()}
    if isinstance(model, nn.Module):
        with evaluating(model):
            tracing = trace(function, given, inputs, buffers)
    else:
        tracing = trace(function, given, inputs, buffers)
    parameters = tuple(name for name in given if name not in buffers)
    for nested in (True, False):
        symmetry = _described(tracing, given, parameters, tied, nested=nested)
        if not symmetry.groups:
            reasons = "; ".join(f"{k}: {v}" for k, v in list(symmetry.frozen.items())[:4])
            reasons = reasons or "it has none"
            raise ValueError(
                "a model with hidden units that may be permuted is required, but no axis of its "
                f"{len(parameters)} parameters could be proved free ({reasons})."
            )
        context = evaluating(model) if isinstance(model, nn.Module) else torch.no_grad()
        with context:
            error, bound = _error(function, symmetry, given, inputs, seed)
            if error <= bound:
                return symmetry
            if not nested or not any(g.parent for g in symmetry.groups.values()):
                _refuse(function, symmetry, given, inputs, seed, error, bound)
    raise AssertionError("unreachable")


def as_function(
    model: nn.Module | Function, state: Mapping[str, Tensor] | None
) -> tuple[Function, dict[str, Tensor], list[str], dict[str, str]]:
    """A function of a state and inputs, its state, and the names of buffers and tied parameters."""
    if not isinstance(model, nn.Module):
        if state is None:
            raise ValueError(
                "the weights of a function are required in state=, but there are none. Pass "
                "permutation_symmetry(function, inputs, state={...})."
            )
        return model, dict(state), [], {}
    tied = tied_names(model)
    buffers = dict(model.named_buffers())
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **buffers}
    if state is not None:
        known = with_ties(state, tied)
        tensors = {name: known.get(name, value) for name, value in tensors.items()}

    def function(state: Mapping[str, Tensor], *args: Any) -> Any:
        return call_at(model, state, tied, args)

    return function, tensors, list(buffers), tied


def _described(
    tracing: Tracing,
    state: Mapping[str, Tensor],
    parameters: tuple[str, ...],
    tied: dict[str, str],
    *,
    nested: bool,
) -> PermutationSymmetry:
    """The free atoms as groups, and every tensor's axes in terms of them."""
    atoms = tracing.atoms
    resolved = {
        name: [atoms.resolve(axis) for axis in tracing.labels[id(value)]]
        for name, value in state.items()
    }
    names: dict[int, str] = {}
    frozen = {}
    for name in parameters:
        for number, axis in enumerate(resolved[name]):
            for atom in (a for segment in axis for a in segment):
                reason = atoms.why_frozen(atom)
                if reason is not None:
                    frozen.setdefault(f"{name}[{number}]", reason)
                elif atom not in names:
                    stem = unique = name.removesuffix(".weight")
                    count = 1
                    while unique in names.values():
                        count += 1
                        unique = f"{stem}.{count}"
                    names[atom] = unique
    parents = _parents(tracing, names) if nested else {}
    groups = {
        name: Group(name, atoms.size(atom), names.get(parents.get(atom, -1)))
        for atom, name in names.items()
    }

    def factors(segment: tuple[int, ...]) -> tuple[Factor, ...]:
        return tuple(names.get(a, atoms.size(a)) for a in segment)

    def described(labels: Sequence[Axis]) -> Axes:
        return tuple(_merged(tuple(factors(s) for s in axis)) for axis in labels)

    readings = []
    for call, operand, labels in tracing.readings:
        axes = described([atoms.resolve(axis) for axis in labels])
        if any(isinstance(f, str) for axis in axes for segment in axis for f in segment):
            readings.append(ReadActivations(call, operand, axes))
    axes = {name: described(labels) for name, labels in resolved.items()}
    return PermutationSymmetry(groups, axes, parameters, tied, frozen, tuple(readings))


def _merged(segments: tuple[tuple[Factor, ...], ...]) -> tuple[tuple[Factor, ...], ...]:
    """An axis of fixed order as one factor, however it was divided."""
    if all(isinstance(f, int) for segment in segments for f in segment):
        total = 0
        for segment in segments:
            n = 1
            for f in segment:
                n *= int(f)
            total += n
        return ((total,),) if total != 1 else ((),)
    return segments


def _parents(tracing: Tracing, names: Mapping[int, str]) -> dict[int, int]:
    """Atoms that occur only beside another one, for each of whose members they may differ."""
    beside: dict[int, set[int]] = {}
    for labels in tracing.occurrences:
        axes = [[set(s) & names.keys() for s in tracing.atoms.resolve(axis)] for axis in labels]
        everywhere = [set.intersection(*segments) for segments in axes]
        for number, segments in enumerate(axes):
            others = set[int]().union(*everywhere[:number], *everywhere[number + 1 :])
            elsewhere = {a for i, axis in enumerate(axes) if i != number for s in axis for a in s}
            for segment in segments:
                for atom in segment:
                    here = set[int]() if atom in elsewhere else (segment | others) - {atom}
                    beside[atom] = beside.get(atom, here) & here
    order = {atom: number for number, atom in enumerate(names)}
    parents: dict[int, int] = {}
    for atom in names:
        candidates = sorted(beside.get(atom, set()), key=order.__getitem__)
        for other in candidates:
            mutual = atom in beside.get(other, set())
            if other not in parents and not (mutual and order[other] > order[atom]):
                parents[atom] = other
                break
    # A parent has none itself: a chain would need an order of its own for each pair.
    return {atom: parent for atom, parent in parents.items() if parent not in parents}


def _error(
    function: Function,
    symmetry: PermutationSymmetry,
    state: Mapping[str, Tensor],
    inputs: tuple[Any, ...],
    seed: int,
    only: str | None = None,
) -> tuple[float, float]:
    """Largest change of the outputs under random permutations, and what is let through."""
    generator = torch.Generator().manual_seed(seed)
    for dtype, bound in ((torch.float64, 1e-10), (None, 1e-5)):
        moved = _moved(state, symmetry.parameters, dtype, generator)
        given = tree_map(lambda x, dtype=dtype: _cast(x, dtype), inputs)
        precision = _Precision()
        try:
            with precision:
                before = _outputs(function, moved, given)
        except (RuntimeError, TypeError):
            if dtype is None:
                raise
            continue
        if precision.lower:
            bound = 1e-5
        worst = 0.0
        for _ in range(2):
            drawn = symmetry.random(generator)
            if only is not None:
                drawn = {only: drawn[only]}
            after = _outputs(function, symmetry.permuted(moved, drawn), given)
            for x, y in zip(before, after, strict=True):
                scale = x.abs().amax().clamp(min=1).item()
                difference = (x - y).abs().amax().item() / scale
                worst = max(worst, difference if difference == difference else float("inf"))
        return worst, bound
    raise AssertionError("unreachable")


class _Precision(TorchDispatchMode):
    """Notices whether a model computes anything in less than float64."""

    lower = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operation and look at its dtype."""
        out = func(*args, **(kwargs or {}))
        self.lower |= any(
            isinstance(t, Tensor) and t.is_floating_point() and t.dtype != torch.float64
            for t in tree_leaves(out)
        )
        return out


def _moved(
    state: Mapping[str, Tensor],
    parameters: tuple[str, ...],
    dtype: torch.dtype | None,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Weights a little off, so that nothing is zero or equal by accident; variances > 0."""
    result = {}
    for name, value in state.items():
        if not value.is_floating_point():
            result[name] = value
            continue
        value = _cast(value, dtype)
        noise = torch.randn(value.shape, generator=generator).to(value.device, value.dtype)
        if name in parameters:
            scale = value.square().mean().sqrt() * 0.1 + 0.01 if value.numel() else 1.0
            result[name] = value + scale * noise
        elif name.endswith("running_var"):
            result[name] = value * (0.1 * noise).exp()
        elif name.endswith("running_mean"):
            result[name] = value + 0.1 * noise
        else:
            result[name] = value
    return result


def _cast(value: Any, dtype: torch.dtype | None) -> Any:
    if dtype is None or not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    return value.to(dtype)


def _outputs(
    function: Function, state: Mapping[str, Tensor], inputs: tuple[Any, ...]
) -> list[Tensor]:
    outputs = tree_leaves(function(state, *inputs))
    return [o for o in outputs if isinstance(o, Tensor) and o.is_floating_point() and o.numel()]


def _refuse(
    function: Function,
    symmetry: PermutationSymmetry,
    state: Mapping[str, Tensor],
    inputs: tuple[Any, ...],
    seed: int,
    error: float,
    bound: float,
) -> None:
    """Raise, and say which groups alone change the function."""
    wrong = [
        name
        for name in symmetry.groups
        if _error(function, symmetry, state, inputs, seed, only=name)[0] > bound
    ]
    raise ValueError(
        "the permutations derived from the trace must leave the function unchanged, but they "
        f"change the outputs by {error:.2g} of the largest (allowed: {bound:.0e}). The groups "
        f"{', '.join(wrong or symmetry.groups)} are not symmetric: does the model draw random "
        "numbers in evaluation mode, or keep state between calls?"
    )
