"""Training under masks: fixed ones, tickets of iterative pruning, and prune-and-grow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from phasescope.interventions.masks import (
    Masks,
    Scope,
    check_masks,
    density,
    drop_and_grow,
    pruned_masks,
)

Grow = Literal["gradient", "random"]
TrainMasked = Callable[[dict[str, Tensor], Masks], Mapping[str, Tensor]]


class SparseTraining:
    r"""An optimizer under masks, fixed or regrown; its `step` takes the place of the optimizer's.

    Masked weights are zero at the start and after every step, and so are their gradients and their
    entries in the optimizer's state, whatever momentum and weight decay do. With `grow`, every
    `every` steps until `until` the smallest $\lfloor d\,n \rfloor$ of the n weights of each tensor
    are dropped, $d = \tfrac\alpha2 (1 + \cos(\pi t / T))$, and as many grown: where the dense
    gradient is largest (RigL), or anywhere (SET). Such a step changes no weight otherwise. What
    grows begins at zero with no momentum, also if it was dropped in the same step.

    It is no `torch.optim.Optimizer`: schedulers of the learning rate, `state_dict` and recorders go
    to the optimizer inside.

    Args:
        model: Trained in place.
        optimizer: Over its parameters.
        masks: Of some parameters, by name; copied, since they change when they are regrown: what
            holds is in `masks` of the result.
        grow: ``"gradient"``, ``"random"``, or None for fixed masks.
        every: Steps between two regrowths.
        until: Step T, from which masks stay.
        fraction: $\alpha$, dropped at first.
        generator: Source of random growth, on the CPU.

    Raises:
        ValueError: A mask has no parameter of its shape, the optimizer does not train it, or a
            setting is missing.

    Example:
        >>> model = nn.Linear(4, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> masks = {"weight": torch.arange(8).view(2, 4) % 2 == 0}
        >>> sparse = SparseTraining(model, optimizer, masks)
        >>> for _ in range(3):
        ...     optimizer.zero_grad()
        ...     model(torch.ones(1, 4)).sum().backward()
        ...     _ = sparse.step()
        >>> bool((model.weight[~masks["weight"]] == 0).all())
        True

    References:
        Mocanu et al. (2018), arXiv:1707.04780 (SET). Evci et al. (2020), "Rigging the lottery",
        arXiv:1911.11134, algorithm 1.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        masks: Masks,
        *,
        grow: Grow | None = None,
        every: int = 100,
        until: int = 0,
        fraction: float = 0.3,
        generator: torch.Generator | None = None,
    ) -> None:
        check_growth(grow, every, until, fraction, generator)
        self.optimizer, self.generator = optimizer, generator
        self.grow: Grow | None = grow
        self.every, self.until, self.fraction = every, until, fraction
        parameters = dict(model.named_parameters())
        check_masks(parameters, masks)
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name in masks:
            if id(parameters[name]) not in trained:
                raise ValueError(
                    f"an optimizer over the masked parameters of the model is required, but "
                    f"{name!r} is not among its {len(trained)} parameters. Was it built for "
                    "another copy of the model?"
                )
        self.masks: Masks = {
            name: mask.to(parameters[name].device, copy=True) for name, mask in masks.items()
        }
        self.parameters = {name: parameters[name] for name in masks}
        self.n_steps = 0
        self._enforce()

    def step(self) -> bool:
        """One update of the weights, or of the masks; whether it was the latter."""
        self.n_steps += 1
        if regrows(self.n_steps, self.grow, self.every, self.until):
            self._regrow()
            return True
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if parameter.grad is not None:
                    parameter.grad.mul_(self.masks[name])
        self.optimizer.step()
        self._enforce()
        return False

    def _regrow(self) -> None:
        share = drop_share(self.n_steps, self.until, self.fraction)
        for name, parameter in self.parameters.items():
            mask = self.masks[name]
            scores = growth_scores(name, parameter.grad, mask, self.grow, self.generator)
            kept, new = drop_and_grow(parameter, mask, scores, math.floor(share * int(mask.sum())))
            with torch.no_grad():
                parameter.mul_(kept)
                for value in self._slots(parameter):
                    value.mul_(kept)
                if parameter.grad is not None:
                    parameter.grad.mul_(new)
            self.masks[name] = new

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the optimizer's parameters."""
        self.optimizer.zero_grad(set_to_none)

    def _enforce(self) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                mask = self.masks[name]
                parameter.masked_fill_(~mask, 0)
                for value in self._slots(parameter):
                    value.masked_fill_(~mask, 0)

    def _slots(self, parameter: Tensor) -> Iterator[Tensor]:
        """What the optimizer remembers of every entry of a parameter."""
        for value in self.optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                yield value


def regrows(step: int, grow: Grow | None, every: int, until: int) -> bool:
    """Whether masks are changed instead of weights at a step, counted from 1."""
    return grow is not None and step % every == 0 and step < until


def drop_share(step: int, until: int, fraction: float) -> float:
    """Share of the weights that is dropped at a step."""
    return fraction / 2 * (1 + math.cos(math.pi * step / until))


def growth_scores(
    name: str,
    grad: Tensor | None,
    mask: Tensor,
    grow: Grow | None,
    generator: torch.Generator | None,
) -> Tensor:
    """Where weights grow first."""
    if grow == "random":
        return torch.rand(mask.shape, generator=generator).to(mask.device)
    if grad is None:
        raise ValueError(
            f"a dense gradient of {name!r} is required to grow by it, but there is none. Call "
            "backward before step, or grow at random."
        )
    return grad.abs()


def check_growth(
    grow: str | None, every: int, until: int, fraction: float, generator: torch.Generator | None
) -> None:
    """Raise where settings of a regrowth are missing or out of range."""
    if grow not in (None, "gradient", "random") or every < 1 or not 0 <= fraction <= 1:
        raise ValueError(
            "grow must be 'gradient', 'random' or None, every at least 1 and fraction between 0 "
            f"and 1, but they are {grow!r}, {every} and {fraction}."
        )
    if grow is not None and until < 1:
        raise ValueError(
            "a regrowth needs the step from which masks stay, but until is "
            f"{until}. Three quarters of the training are usual."
        )
    if grow == "random" and generator is None:
        raise ValueError("growth at random needs generator=torch.Generator(), but there is none.")


@dataclass(frozen=True, eq=False)
class PruningLevel:
    """One round of iterative pruning."""

    masks: Masks = field(repr=False)
    """What the round was trained with."""
    density: float
    """Share of the prunable weights that was left."""
    start: dict[str, Tensor] = field(repr=False)
    """Where it started, masked."""
    trained: dict[str, Tensor] = field(repr=False)
    """Where it ended."""


def prune_iteratively(
    train: TrainMasked,
    rewind: Mapping[str, Tensor],
    prunable: Sequence[str],
    *,
    n_levels: int,
    fraction: float = 0.2,
    scope: Scope = "global",
) -> list[PruningLevel]:
    """Iterative magnitude pruning with rewinding: the search for a lottery ticket.

    Train, take the smallest share of the weights that are left away, set the others back to the
    rewind point, and again. Levels are trained from the same point, bit for bit; an optimizer of
    its own in every call of `train` begins afresh.

    Args:
        train: Trains a masked state under masks and returns the trained one; such as with
            `SparseTraining`. Weights that the masks exclude must come back as zeros.
        rewind: Weights at the rewind point: the initialisation, or a few steps after it.
        prunable: Names of the tensors that are pruned.
        n_levels: Prunings; the first round, 0, is dense.
        fraction: Share that goes at each level, of what is left.
        scope: Whether magnitudes are compared across all tensors or within each.

    Returns:
        The rounds, the dense one first.

    Raises:
        ValueError: A name is unknown, or training did not respect the masks.
        TypeError: Training returned no weights.

    Example:
        >>> state = {"w": torch.tensor([1.0, -2.0, 3.0, 0.5, 4.0])}
        >>> train = lambda start, masks: {"w": start["w"] * 2}
        >>> rounds = prune_iteratively(train, state, ["w"], n_levels=2, fraction=0.4)
        >>> [round.density for round in rounds], rounds[-1].start["w"]
        ([1.0, 0.6, 0.2], tensor([0., 0., 0., 0., 4.]))

    References:
        Frankle & Carbin (2019), arXiv:1803.03635; Frankle et al. (2020), arXiv:1912.05671
        (rewinding).
    """
    if isinstance(prunable, str):
        raise ValueError(
            f"a sequence of names is required, but prunable is the text {prunable!r}. Pass "
            f"[{prunable!r}]."
        )
    unknown = [name for name in prunable if name not in rewind]
    if unknown or not prunable or n_levels < 0:
        raise ValueError(
            "names of tensors of the rewind point are required, and n_levels from 0 up, but "
            f"prunable holds {unknown or 'nothing'} and n_levels is {n_levels}."
        )
    masks = {n: torch.ones_like(rewind[n], dtype=torch.bool) for n in prunable}
    levels = []
    for level in range(n_levels + 1):
        if level:
            masks = pruned_masks(levels[-1].trained, masks, fraction, scope=scope)
        levels.append(train_masked(train, rewind, masks))
    return levels


def train_masked(
    train: TrainMasked, start: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> PruningLevel:
    """One training under masks: a ticket, or one of its controls.

    A ticket's controls are the same masks at another initialisation, and `shuffled_masks` at its
    own.

    Args:
        train: As in `prune_iteratively`.
        start: Weights before masking.
        masks: What is kept.

    Returns:
        The round.

    Raises:
        ValueError: Training did not respect the masks.

    Example:
        >>> masks = {"w": torch.tensor([True, False])}
        >>> train_masked(lambda s, m: s, {"w": torch.ones(2)}, masks).trained["w"]
        tensor([1., 0.])
    """
    kept = {n: m.clone() for n, m in masks.items()}
    state = {n: v.detach().clone() for n, v in start.items()}
    for name, mask in kept.items():
        state[name].masked_fill_(~mask, 0)
    begun = {n: v.clone() for n, v in state.items()}
    found = train(state, dict(kept))
    if not isinstance(found, Mapping):
        raise TypeError(
            "train must return the trained weights by name, such as a state_dict(), but it "
            f"returned {type(found).__name__}."
        )
    trained = {n: v.detach().clone() for n, v in found.items()}
    for name, mask in kept.items():
        off = int((trained[name][~mask] != 0).sum())
        if off:
            raise ValueError(
                f"weights outside the mask must stay zero, but training moved {off} of "
                f"{int((~mask).sum())} in {name!r}. Use SparseTraining.step in place of "
                "optimizer.step: weight decay and momentum move what only the forward pass masks."
            )
    return PruningLevel(kept, density(kept), begun, trained)
