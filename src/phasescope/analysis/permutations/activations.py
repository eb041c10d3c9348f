"""Permutations that bring the activations of one model close to those of another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from phasescope.analysis.permutations.assignment import Costs, assign
from phasescope.analysis.permutations.derivation import Function, as_function
from phasescope.analysis.permutations.symmetry import (
    Axes,
    Block,
    Permutations,
    PermutationSymmetry,
    ReadActivations,
)
from phasescope.analysis.permutations.tracing import Collecting, visible_heads
from phasescope.models.calling import check_arguments
from phasescope.models.evaluation import evaluating

Similarity = Literal["product", "correlation"]


def match_activations(
    symmetry: PermutationSymmetry,
    model: nn.Module | Function,
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    batches: Iterable[tuple[Any, ...]],
    *,
    similarity: Similarity = "correlation",
) -> Permutations:
    r"""Permute the units of a second model so that they do what those of the first do.

    Every group is matched once, by a linear assignment over $\mathrm E[z_A z_B^\top]$, or over
    Pearson correlations, of activations as the next weights read them (after the activation
    function). Units that never vary have correlation 0 with all. Where a group is read at several
    places (a residual stream), their matrices are added, each divided by the norms of both models'
    activations, so that no place counts more for its scale; correlations are added as they are.
    Positions, pixels and samples are one average.

    Args:
        symmetry: From `permutation_symmetry`.
        model: The module or function that it was derived from.
        first: State dict of the model that stays.
        second: State dict of the model that is permuted.
        batches: Tuples of inputs, like `inputs` of `permutation_symmetry`; all samples count alike.
        similarity: What is maximised.

    Returns:
        The permutations of the second model.

    Raises:
        ValueError: There is no batch, a state dict is of another architecture, an activation is not
            finite, or a group is nowhere read by an operation that can be followed.

    Example:
        >>> import phasescope as ps
        >>> model = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 2))
        >>> symmetry = ps.permutation_symmetry(model, (torch.ones(1, 4),))
        >>> planted = symmetry.random(torch.Generator().manual_seed(1))
        >>> other = symmetry.permuted(model.state_dict(), planted)
        >>> x = torch.randn(64, 4, generator=torch.Generator().manual_seed(2))
        >>> found = match_activations(symmetry, model, model.state_dict(), other, [(x,)])
        >>> torch.equal(found["0"], symmetry.inverse(planted)["0"])
        True

    References:
        Ainsworth, Hayase & Srinivasa (2022), arXiv:2209.04836, section 3.1. Li et al. (2015),
        "Convergent learning", arXiv:1511.07543 (correlations).
    """
    if similarity not in ("product", "correlation"):
        raise ValueError(
            f"similarity must be 'product' or 'correlation', but {similarity!r} arrived."
        )
    symmetry.check(first, "the first state")
    symmetry.check(second, "the second state")
    readings = [r for r in symmetry.readings if len(_roots(symmetry, r.axes)) == 1]
    read = {name for r in readings for name in _roots(symmetry, r.axes)}
    missing = [g.name for g in symmetry.groups.values() if g.parent is None and g.name not in read]
    if missing:
        raise ValueError(
            "activations of every group are required, but those of "
            f"{', '.join(missing)} are not read by an operation that can be followed. Use "
            "match_weights for this model."
        )
    function, own, _, _ = as_function(model, first if not isinstance(model, nn.Module) else None)
    sums: dict[tuple[ReadActivations, Block | None], _Sums] = {}
    n_batches = 0
    for inputs in batches:
        check_arguments(inputs)
        n_batches += 1
        values = [
            _collect(model, function, {**own, **_known(own, state)}, inputs, readings)
            for state in (first, second)
        ]
        for reading in readings:
            key = (reading.call, reading.operand)
            _accumulate(symmetry, reading, values[0][key], values[1][key], sums)
    if not n_batches:
        raise ValueError("at least one batch of inputs is required, but there is none.")
    return _solved(symmetry, sums, similarity)


def _solved(
    symmetry: PermutationSymmetry,
    sums: Mapping[Any, _Sums],
    similarity: Similarity,
) -> Permutations:
    result = symmetry.identity()
    for group in symmetry.groups.values():
        if group.parent is not None:
            continue
        n = group.size
        costs = Costs(torch.zeros(n, n, dtype=torch.float64))
        for entry in sums.values():
            if entry.group != group.name:
                continue
            fits = entry.matrix(similarity).cpu()
            if entry.child is None:
                costs.units += fits
            else:
                m = symmetry.groups[entry.child].size
                fits = fits.view(n, m, n, m).transpose(1, 2)
                costs.children[entry.child] = costs.children.get(entry.child, 0) + fits
        found = assign(costs)
        result[group.name] = found.permutation
        for child, own in found.children.items():
            result[child] = own
    return result


@dataclass
class _Sums:
    """Sums over samples of two models' units, from which means of products come."""

    group: str
    child: str | None
    n: int = 0
    cross: Tensor | float = 0.0
    totals: tuple[Tensor | float, Tensor | float] = (0.0, 0.0)
    squares: tuple[Tensor | float, Tensor | float] = (0.0, 0.0)

    def add(self, a: Tensor, b: Tensor) -> None:
        self.n += a.shape[1]
        self.cross = self.cross + a @ b.T
        self.totals = (self.totals[0] + a.sum(1), self.totals[1] + b.sum(1))
        self.squares = (
            self.squares[0] + a.square().sum(1),
            self.squares[1] + b.square().sum(1),
        )

    def matrix(self, similarity: Similarity) -> Tensor:
        cross, squares = torch.as_tensor(self.cross), [torch.as_tensor(s) for s in self.squares]
        if similarity == "product":
            scale = (squares[0].sum() * squares[1].sum()).sqrt()
            return cross / scale if scale > 0 else cross
        means = [torch.as_tensor(t) / self.n for t in self.totals]
        covariance = cross / self.n - torch.outer(*means)
        spreads = []
        for square, mean in zip(squares, means, strict=True):
            variance = square / self.n - mean.square()
            # A unit that does not vary leaves rounding of its squared mean.
            alive = variance > 1e-12 * square / self.n
            spreads.append(torch.where(alive, variance.clamp(min=0).rsqrt(), 0.0))
        return covariance * torch.outer(*spreads)


def _accumulate(
    symmetry: PermutationSymmetry,
    reading: ReadActivations,
    first: Tensor,
    second: Tensor,
    sums: dict[Any, _Sums],
) -> None:
    (root,) = _roots(symmetry, reading.axes)
    n = symmetry.groups[root].size
    sized = _sized(symmetry, reading.axes, first.shape)
    for number, block in enumerate(symmetry.blocks_of("z", sized)):
        if root not in block.groups:
            continue
        a, b = (block.read({"z": z}).double() for z in (first, second))
        for value in (a, b):
            if not bool(value.isfinite().all()):
                raise ValueError(
                    f"finite activations are required, but those of {root!r} are not. Did the "
                    "training diverge?"
                )
        place = block.groups.index(root)
        below = [d for d, parent in enumerate(block.parents) if parent == place]
        child = block.groups[below[0]] if below else None
        entry = sums.setdefault((reading, number), _Sums(root, child))
        if below:
            m = block.shape[below[0]]
            a, b = (x.movedim((place, below[0]), (0, 1)).reshape(n * m, -1) for x in (a, b))
        else:
            a, b = (x.movedim(place, 0).reshape(n, -1) for x in (a, b))
        entry.add(a, b)


def _roots(symmetry: PermutationSymmetry, axes: Axes) -> set[str]:
    names = {f for axis in axes for segment in axis for f in segment if isinstance(f, str)}
    return {symmetry.groups[name].parent or name for name in names}


def _sized(symmetry: PermutationSymmetry, axes: Axes, shape: torch.Size) -> Axes:
    """The axes with the lengths of this batch: one of fixed order may be longer than the traced."""
    result = []
    for axis, length in zip(axes, shape, strict=True):
        known = [[f for f in s if isinstance(f, str)] for s in axis]
        if not any(known):
            result.append(((length,),) if length != 1 else ((),))
        elif len(axis) == 1 and sum(isinstance(f, int) for f in axis[0]) == 1:
            rest = length // math.prod(symmetry.groups[f].size for f in known[0])
            result.append((tuple(rest if isinstance(f, int) else f for f in axis[0]),))
        else:
            result.append(axis)
    return tuple(result)


def _known(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: state[name].detach() for name in own if name in state}


def _collect(
    model: nn.Module | Function,
    function: Callable[..., Any],
    state: Mapping[str, Tensor],
    inputs: tuple[Any, ...],
    readings: Iterable[ReadActivations],
) -> dict[tuple[int, int], Tensor]:
    mode = Collecting([(r.call, r.operand) for r in readings])
    context = evaluating(model) if isinstance(model, nn.Module) else torch.no_grad()
    with context, torch.no_grad(), visible_heads(), mode:
        function(state, *inputs)
    return mode.values
