"""Permutations found through the loss half-way between two models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from phasescope.analysis.permutations.symmetry import Permutations, PermutationSymmetry
from phasescope.analysis.permutations.weights import match_weights


@dataclass(frozen=True, eq=False)
class StraightThroughMatching:
    """Permutations of the second model, and the barriers on the way to them."""

    permutations: Permutations
    """Those of the smallest barrier."""
    barriers: Float64[Tensor, " batches"]
    """Loss half-way minus the mean of both ends, on the batch of every step."""
    best: int
    """The step at which the permutations were found; 0 is plain weight matching."""


def match_straight_through(
    symmetry: PermutationSymmetry,
    loss: Callable[[dict[str, Tensor], Any], Tensor],
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    batches: Iterable[Any],
    *,
    lr: float = 0.01,
    momentum: float = 0.9,
    seed: int = 0,
) -> StraightThroughMatching:
    r"""Permute a second model so that the loss half-way between the two becomes small.

    Weights $\tilde\theta$, at first those of the first model, are trained. In each step the second
    model is matched to them ($\pi$, from the last one on), and the gradient of
    $L(\tfrac12(\theta_A + \pi(\theta_B)))$ passes the matching as if $\pi(\theta_B)$ were
    $\tilde\theta$. The permutations with the smallest barrier on the batch of their step are kept:
    give batches large enough for that to mean something.

    Args:
        symmetry: From `permutation_symmetry`.
        loss: Scalar loss of a state and a batch.
        first: State dict of the model that stays; buffers come from it too.
        second: State dict of the model that is permuted.
        batches: One step for each.
        lr: Learning rate of the gradient descent.
        momentum: Share of the velocity that is kept.
        seed: Of the order of groups in the matchings.

    Returns:
        The permutations; the first step's are those of `match_weights`.

    Raises:
        ValueError: There is no batch, or a state dict is of another architecture.

    Example:
        >>> import phasescope as ps
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 9), torch.nn.ReLU(), torch.nn.Linear(9, 2)
        ... )
        >>> symmetry = ps.permutation_symmetry(model, (torch.ones(1, 4),))
        >>> state = model.state_dict()
        >>> other = symmetry.permuted(state, symmetry.random(torch.Generator().manual_seed(1)))
        >>> def loss(state, x):
        ...     return torch.func.functional_call(model, state, x).square().mean()
        >>> found = match_straight_through(symmetry, loss, state, other, [torch.ones(8, 4)])
        >>> round(abs(found.barriers[0].item()), 6)
        0.0

    References:
        Ainsworth, Hayase & Srinivasa (2022), "Git Re-Basin", arXiv:2209.04836, section 3.3.
    """
    names = symmetry.parameters
    ends = [{n: s[n].detach() for n in s} for s in (first, second)]
    theta = {n: ends[0][n].clone().requires_grad_() for n in names}
    velocity = {n: torch.zeros_like(theta[n]) for n in names}
    permutations, best, barriers = symmetry.identity(), None, []
    for step, batch in enumerate(batches):
        detached = {n: t.detach() for n, t in theta.items()}
        permutations = match_weights(
            symmetry, detached, ends[1], start=permutations, seed=seed
        ).permutations
        projected = symmetry.permuted(ends[1], permutations)
        half = {n: (ends[0][n] + projected[n] + (theta[n] - detached[n])) / 2 for n in names}
        value = loss({**ends[0], **half, **_aliases(symmetry, half, ends[0])}, batch)
        grads = torch.autograd.grad(value, list(theta.values()), allow_unused=True)
        with torch.no_grad():
            at_ends = sum(loss(end, batch).item() for end in ends) / 2
            barriers.append(value.item() - at_ends)
            if best is None or barriers[-1] < barriers[best[0]]:
                best = step, {n: p.clone() for n, p in permutations.items()}
            for (name, parameter), grad in zip(theta.items(), grads, strict=True):
                if grad is not None:
                    velocity[name].mul_(momentum).add_(grad)
                    parameter.sub_(velocity[name], alpha=lr)
    if best is None:
        raise ValueError("at least one batch is required, but there is none.")
    return StraightThroughMatching(best[1], torch.tensor(barriers, dtype=torch.float64), best[0])


def _aliases(
    symmetry: PermutationSymmetry, state: Mapping[str, Tensor], like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    return {name: state[origin] for name, origin in symmetry.tied.items() if name in like}
