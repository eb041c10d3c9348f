"""Permutations that bring the weights of one model as close as possible to those of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from phasescope.analysis.permutations.assignment import Costs, assign
from phasescope.analysis.permutations.symmetry import Block, Permutations, PermutationSymmetry

TOLERANCE = 1e-12
"""Gains smaller than this share of both models' norms are rounding."""


@dataclass(frozen=True, eq=False)
class WeightMatching:
    """Permutations of the second model, and how they were reached."""

    permutations: Permutations
    """What to apply to the second model: ``symmetry.permuted(second, permutations)``."""
    similarity: Float64[Tensor, " sweeps"]
    """Cosine between the weights that may be permuted, before and after every sweep."""
    converged: bool
    """Whether the last sweep changed nothing."""

    @property
    def n_sweeps(self) -> int:
        """Sweeps over the groups, the last one, that changed nothing, included."""
        return len(self.similarity) - 1


def match_weights(
    symmetry: PermutationSymmetry,
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    *,
    start: Mapping[str, Tensor] | None = None,
    max_sweeps: int = 100,
    n_starts: int = 1,
    seed: int = 0,
) -> WeightMatching:
    r"""Permute the units of a second model so that its weights come close to those of the first.

    Coordinate ascent on $\langle\theta_A, \pi(\theta_B)\rangle$: one group after the other, in
    random order, is permuted in the best way while the others are held (a linear assignment), until
    nothing improves. A group in whose members other units are permuted separately (heads, and the
    directions inside them) is solved together with these. Where a group stands on two axes of one
    tensor, the assignment is that of the linearised problem, kept only if the sum really grows. All
    sums are in float64. The sum grows with every step and has local maxima: several orders
    (`n_starts`) may reach better ones. Biases and norms count with their products like all
    parameters; buffers go along.

    Args:
        symmetry: From `permutation_symmetry`.
        first: State dict of the model that stays.
        second: State dict of the model that is permuted.
        start: Where to begin; nothing is permuted by default.
        max_sweeps: Sweeps over all groups at most.
        n_starts: Random orders that are tried; the closest result is returned.
        seed: Of the order of the groups.

    Returns:
        The permutations.

    Raises:
        ValueError: A state dict is of another architecture or not finite.

    Example:
        >>> import phasescope as ps
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 9), torch.nn.ReLU(), torch.nn.Linear(9, 2)
        ... )
        >>> symmetry = ps.permutation_symmetry(model, (torch.ones(1, 4),))
        >>> planted = symmetry.random(torch.Generator().manual_seed(1))
        >>> other = symmetry.permuted(model.state_dict(), planted)
        >>> found = match_weights(symmetry, model.state_dict(), other)
        >>> back = symmetry.permuted(other, found.permutations)
        >>> torch.equal(back["0.weight"], model[0].weight), round(found.similarity[-1].item(), 6)
        (True, 1.0)

    References:
        Ainsworth, Hayase & Srinivasa (2022), "Git Re-Basin", arXiv:2209.04836, algorithm 1.
    """
    for state, what in ((first, "the first state"), (second, "the second state")):
        symmetry.check(state, what)
        check_finite(symmetry, state, what)
    found = [
        _ascent(symmetry, first, second, start, max_sweeps, seed + number)
        for number in range(n_starts)
    ]
    return max(found, key=lambda matching: matching.similarity[-1].item())


def _ascent(
    symmetry: PermutationSymmetry,
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    start: Mapping[str, Tensor] | None,
    max_sweeps: int,
    seed: int,
) -> WeightMatching:
    permutations = symmetry.identity() if start is None else dict(start)
    other = symmetry.permuted(second, permutations)
    aligned = _Aligned(symmetry, first, other)
    order = torch.Generator().manual_seed(seed)
    similarity, stale, converged = [aligned.similarity()], aligned.roots, False
    for _ in range(max_sweeps):
        stale, changed = _sweep(aligned, permutations, stale, order)
        similarity.append(aligned.similarity())
        if not changed:
            converged = True
            break
    return WeightMatching(permutations, torch.tensor(similarity, dtype=torch.float64), converged)


def match_many(
    symmetry: PermutationSymmetry,
    states: Sequence[Mapping[str, Tensor]],
    *,
    max_rounds: int = 100,
    seed: int = 0,
) -> list[Permutations]:
    r"""Permutations that bring several models close to one another; the first one stays.

    All are matched to the first one, and then by coordinate ascent on
    $\sum_{i<j}\langle\pi_i(\theta_i), \pi_j(\theta_j)\rangle$: one model after the other is
    matched to the mean of the rest, until no model changes. The mean of the permuted models is the
    merged one.

    Args:
        symmetry: From `permutation_symmetry`.
        states: Two state dicts or more.
        max_rounds: Rounds over all models at most.
        seed: Of the order of models and groups.

    Returns:
        Permutations of each model, the identity for the first.

    Raises:
        ValueError: There are fewer than two, or one is of another architecture.

    Example:
        >>> import phasescope as ps
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 9), torch.nn.ReLU(), torch.nn.Linear(9, 2)
        ... )
        >>> symmetry = ps.permutation_symmetry(model, (torch.ones(1, 4),))
        >>> state, drawn = model.state_dict(), torch.Generator().manual_seed(1)
        >>> others = [symmetry.permuted(state, symmetry.random(drawn)) for _ in range(3)]
        >>> found = match_many(symmetry, [state, *others])
        >>> back = [symmetry.permuted(o, p) for o, p in zip(others, found[1:])]
        >>> all(torch.equal(b["0.weight"], state["0.weight"]) for b in back)
        True

    References:
        Ainsworth, Hayase & Srinivasa (2022), "Git Re-Basin", arXiv:2209.04836, algorithm 3.
    """
    if len(states) < 2:
        raise ValueError(f"at least two models are required to match, but {len(states)} arrived.")
    generator = torch.Generator().manual_seed(seed)
    originals = [{name: s[name].detach() for name in symmetry.parameters} for s in states]
    found = [symmetry.identity()]
    found += [match_weights(symmetry, states[0], s, seed=seed).permutations for s in states[1:]]
    placed = [symmetry.permuted(s, p) for s, p in zip(originals, found, strict=True)]
    for _ in range(max_rounds):
        changed = False
        for i in (torch.randperm(len(states) - 1, generator=generator) + 1).tolist():
            others = [p for j, p in enumerate(placed) if j != i]
            mean = {n: torch.stack([o[n] for o in others]).mean(0) for n in symmetry.parameters}
            matched = match_weights(symmetry, mean, originals[i], start=found[i], seed=seed)
            if any(not torch.equal(p, found[i][n]) for n, p in matched.permutations.items()):
                changed = True
                found[i] = matched.permutations
                placed[i] = symmetry.permuted(originals[i], found[i])
        if not changed:
            break
    return found


def check_finite(symmetry: PermutationSymmetry, state: Mapping[str, Tensor], what: str) -> None:
    """Raise where a parameter is not a number."""
    for name in symmetry.parameters:
        if not bool(state[name].isfinite().all()):
            raise ValueError(
                f"finite weights are required for matching, but {name!r} of {what} is not. Did "
                "the training diverge?"
            )


class _Aligned:
    """Two models as float64 blocks, the second in its present order."""

    def __init__(
        self,
        symmetry: PermutationSymmetry,
        first: Mapping[str, Tensor],
        second: Mapping[str, Tensor],
    ) -> None:
        self.symmetry = symmetry
        blocks = [b for n in symmetry.parameters for b in symmetry.blocks[n] if any(b.groups)]
        self.blocks: list[Block] = blocks
        self.first = [b.read(first).detach().double() for b in blocks]
        self.second = [b.read(second).detach().double() for b in blocks]
        norms = [sum(x.square().sum() for x in side) for side in (self.first, self.second)]
        self.scale = float(torch.as_tensor(norms[0] * norms[1]).sqrt().clamp(min=1e-300))
        self.roots = {g.name for g in symmetry.groups.values() if g.parent is None}
        self.of = {name: self._with(name) for name in self.roots}

    def similarity(self) -> float:
        pairs = zip(self.first, self.second, strict=True)
        return sum(torch.vdot(a.flatten(), b.flatten()).item() for a, b in pairs) / self.scale

    def neighbours(self, name: str) -> set[str]:
        """Groups, other than this one and those below it, whose fit depends on its order."""
        found = {g for i in self.of[name] for g in self.blocks[i].groups if g is not None}
        groups = self.symmetry.groups
        return {groups[g].parent or g for g in found} - {name}

    def fit(self, name: str) -> float:
        pairs = ((self.first[i], self.second[i]) for i in self.of[name])
        return sum(torch.vdot(a.flatten(), b.flatten()).item() for a, b in pairs)

    def moves(self, name: str) -> list[set[str]]:
        """Groups below this one that may be permuted along with it: never two in one block."""
        children = self.symmetry.children(name)
        together = [set(self.blocks[i].groups) & set(children) for i in self.of[name]]
        found: list[set[str]] = []
        for number in range(max(len(children), 1)):
            active = set[str]()
            for child in children[number:] + children[:number]:
                if not any(child in t and t & active for t in together):
                    active.add(child)
            if active not in found:
                found.append(active)
        return found

    def stands_twice(self, name: str) -> bool:
        """Whether a tensor has the group on two axes, so that its fit is no linear assignment."""
        return any(self.blocks[i].groups.count(name) > 1 for i in self.of[name])

    def costs(self, name: str, active: set[str]) -> Costs:
        """The fits of a group and of some below it."""
        n = self.symmetry.groups[name].size
        device = self.first[0].device
        costs = Costs(torch.zeros(n, n, dtype=torch.float64, device=device))
        for i in self.of[name]:
            block, a, b = self.blocks[i], self.first[i], self.second[i]
            places = [d for d, group in enumerate(block.groups) if group == name]
            for place in places:
                below = [
                    d
                    for d, group in enumerate(block.groups)
                    if group in active and block.parents[d] == place
                ]
                if not below:
                    a_rows, b_rows = (x.movedim(place, 0).reshape(n, -1) for x in (a, b))
                    costs.units += a_rows @ b_rows.T
                    continue
                child, m = block.groups[below[0]], block.shape[below[0]]
                assert child is not None
                a_rows, b_rows = (
                    x.movedim((place, below[0]), (0, 1)).reshape(n * m, -1) for x in (a, b)
                )
                fits = (a_rows @ b_rows.T).view(n, m, n, m).transpose(1, 2)
                costs.children[child] = costs.children.get(child, 0) + fits
        return costs

    def permute(self, name: str, delta: Mapping[str, Tensor]) -> None:
        for i in self.of[name]:
            self.second[i] = self.blocks[i].permuted(self.second[i], delta)

    def _with(self, name: str) -> list[int]:
        return [i for i, block in enumerate(self.blocks) if name in block.groups]


def _sweep(
    aligned: _Aligned, permutations: Permutations, stale: set[str], generator: torch.Generator
) -> tuple[set[str], bool]:
    """Improve every group whose surroundings changed; which have to be looked at again."""
    names = sorted(stale)
    stale, changed = set(stale), False
    for number in torch.randperm(len(names), generator=generator).tolist():
        name = names[number]
        stale.discard(name)
        moved = [_improve(aligned, permutations, name, active) for active in aligned.moves(name)]
        if any(moved):
            changed = True
            stale |= aligned.neighbours(name)
            if len(moved) > 1 or aligned.stands_twice(name):
                stale.add(name)
    return stale, changed


def _improve(aligned: _Aligned, permutations: Permutations, name: str, active: set[str]) -> bool:
    """Permute a group, and some below it, in the best way; whether that gained anything."""
    found = assign(aligned.costs(name, active))
    value, least = aligned.fit(name), TOLERANCE * aligned.scale
    kept = [aligned.second[i] for i in aligned.of[name]]
    aligned.permute(name, {name: found.permutation, **found.children})
    if aligned.fit(name) <= value + least:
        for i, block in zip(aligned.of[name], kept, strict=True):
            aligned.second[i] = block
        return False
    for child in aligned.symmetry.children(name):
        carried = permutations[child][found.permutation]
        own = found.children.get(child)
        permutations[child] = carried if own is None else carried.gather(-1, own)
    permutations[name] = permutations[name][found.permutation]
    return True
