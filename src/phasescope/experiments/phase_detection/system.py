"""Ensembles that are watched while they train: signals, and the truth beside them.

Letters: s seeds, t recorded steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

import phasescope as ps
from phasescope.datasets import KnownEvent, KnownRun
from phasescope.training import EnsembleGradients, EnsembleOptimizer, train_ensemble

Params = dict[str, Tensor]
Squares = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""Squared norms of every component, one number per seed, of weights, gradients or updates."""

Moments = tuple[int, int, int]
"""Steps at which a tenth, half and nine tenths of an event have happened."""

# Evaluations over which a progress measure must stay beyond a share of its rise.
HOLD = 5
# Evaluations below the threshold that part one burst from the next.
BETWEEN = 25


@dataclass(frozen=True)
class Progress:
    """A measure that says when events happen, and where in the network they take place."""

    name: str
    least: float
    """What `find` takes: for `rise` the rise below which there was no event."""
    components: Callable[[Params], Sequence[Sequence[str]]] | None = None
    """Components of every seed in which it takes place, from the final weights; None if they are
    not known."""
    find: Callable[[Tensor, Tensor, float], Sequence[Moments]] | None = None
    """Events of one seed from steps, measure and `least`; by default its only `rise`."""

    def events(self, steps: Tensor, values: Tensor) -> Sequence[Moments]:
        """When they happened in one seed."""
        if self.find is not None:
            return self.find(steps, values, self.least)
        found = rise(steps, values, self.least)
        return [] if found is None else [found]


@dataclass(frozen=True)
class System:
    """Networks to be trained as one batch, and everything that is measured on them."""

    name: str
    params: Params
    gradients: EnsembleGradients
    optimizer: EnsembleOptimizer
    n_steps: int
    steps: Sequence[int]
    """Recorded steps, below `n_steps`."""
    squares: Squares
    evaluate: Callable[[Params], dict[str, Tensor]]
    """``test_loss`` and every progress measure under its name; accuracies where there are any."""
    progress: Sequence[Progress] = ()
    decay: float = 0.0
    """Share of the weights that decoupled decay takes at a step: learning rate times decay."""
    rate_changes: tuple[int, ...] = ()
    """Steps at which the learning rate changes."""
    planted: Sequence[Sequence[KnownEvent]] = field(default=())
    """Events of every seed that are known beforehand, instead of progress measures."""


class Watched:
    """An optimizer that measures gradients, updates and weights at the recorded steps.

    Args:
        system: What is trained.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._due = set(system.steps)
        self._step = 0
        self._before: Params = {}
        self.rows: list[dict[str, Tensor]] = []

    def update(self, params: Params, grads: Mapping[str, Tensor]) -> None:
        """One step of the optimizer; the decay is left out of the measured update."""
        due, soon = self._step in self._due, self._step + 1 in self._due
        self._step += 1
        if not due and not soon:
            self._system.optimizer.update(params, grads)
            return
        old = {name: value.clone() for name, value in params.items()}
        row = self._measures(old, grads) if due else {}
        self._system.optimizer.update(params, grads)
        kept = 1 - self._system.decay
        moved = {name: value - kept * old[name] for name, value in params.items()}
        if due:
            row |= _of_updates(moved, self._before, self._system.squares)
            row["relative_update"] = row["update_norm"] / row["weight_norm"]
            self.rows.append(row)
        self._before = moved if soon else {}

    def _measures(self, params: Params, grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
        measured = self._system.evaluate(params)
        named = {f"gradient_norm/{k}": v.sqrt() for k, v in self._system.squares(grads).items()}
        return {
            **measured,
            "gradient_norm": _norm(grads),
            "weight_norm": _norm(params),
            "stable_rank": stable_rank(params),
            **named,
        }

    def state_dict(self) -> dict[str, Tensor]:
        """That of the optimizer."""
        return self._system.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """That of the optimizer."""
        self._system.optimizer.load_state_dict(state)


def record(
    system: System, seeds: Sequence[int], progress: Callable[[float], None] | None = None
) -> list[KnownRun]:
    """Train the batch; one run per seed, with its signals at the recorded steps and its events."""
    watched = Watched(system)
    losses = train_ensemble(
        system.params, system.gradients, watched, system.n_steps, progress=progress
    )
    steps = torch.tensor(list(system.steps))
    curves = {name: torch.stack([row[name] for row in watched.rows], 1) for name in watched.rows[0]}
    # Nothing comes before the first update.
    curves["update_cosine"][:, 0] = curves["update_cosine"][:, 1]
    measures = {p.name: curves.pop(p.name) for p in system.progress}
    curves = {"train_loss": losses[:, steps], **curves}
    where = [p.components(system.params) if p.components else None for p in system.progress]
    runs = []
    for i, seed in enumerate(seeds):
        events = list(system.planted[i]) if system.planted else []
        for p, known in zip(system.progress, where, strict=True):
            places = tuple(known[i]) if known else ()
            found = p.events(steps, measures[p.name][i])
            events += [KnownEvent(p.name, *moments, places) for moments in found]
        signals = {name: curve[i].float().cpu() for name, curve in curves.items()}
        shown = {name: curve[i].float().cpu() for name, curve in measures.items()}
        runs.append(
            KnownRun(system.name, seed, steps, signals, shown, tuple(events), system.rate_changes)
        )
    return runs


def rise(steps: Tensor, values: Tensor, least: float) -> Moments | None:
    """Steps from which a measure has made 10, 50 and 90 % of its rise for good.

    The rise goes from the mean of the first to the mean of the last `HOLD` evaluations.

    Args:
        steps: Of the evaluations.
        values: The measure.
        least: Rise below which there is none.
    """
    low, high = values[:HOLD].mean(), values[-HOLD:].mean()
    if not float(high - low) >= least:
        return None
    share = (values - low) / (high - low)
    moments = [ps.first_reached(steps, share, q, hold=HOLD) for q in (0.1, 0.5, 0.9)]
    found = [moment.step for moment in moments if moment is not None]
    return (found[0], found[1], found[2]) if len(found) == 3 else None


def bursts(steps: Tensor, values: Tensor, least: float) -> list[Moments]:
    """Stretches in which a measure of change per record exceeds a threshold, after it was low.

    What comes before the first `BETWEEN` records below the threshold is the beginning of the
    training and no burst; burst follows burst when as many lie between. A burst that is not over at
    the end is none. Its shares are those of the sum of the measure.

    Args:
        steps: Of the records.
        values: Change since the record before.
        least: The threshold.
    """
    high = (values > least).tolist()
    found: list[Moments] = []
    low, first = 0, None  # records below in a row; the first one above of the burst, if one is on
    settled = False
    for i, above in enumerate(high):
        if above:
            first = i if settled and first is None else first
            low = 0
            continue
        low += 1
        if low == BETWEEN:
            if first is not None:
                share = values[first : i + 1 - BETWEEN].double().cumsum(0)
                at = torch.searchsorted(share, share[-1] * share.new_tensor([0.1, 0.5, 0.9]))
                start, middle, end = (int(x) for x in steps[first + at])
                found.append((start, middle, end))
            settled, first = True, None
    return found


def tensor_squares(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor is a component."""
    return {name: value.flatten(1).square().sum(1) for name, value in tensors.items()}


def stable_rank(params: Mapping[str, Tensor]) -> Tensor:
    """Squared Frobenius over squared spectral norm, mean over the matrices of every seed."""
    ranks = []
    for value in params.values():
        matrices = value.flatten(2) if value.ndim > 3 else value
        if matrices.ndim == 3 and min(matrices.shape[1:]) > 1:
            small = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
            largest = torch.linalg.eigvalsh((small @ small.mT).double())[:, -1]
            ranks.append(matrices.double().square().sum((1, 2)) / largest.clamp(min=1e-300))
    if not ranks:
        return torch.ones(len(next(iter(params.values()))))
    return torch.stack(ranks).mean(0)


def _of_updates(moved: Params, before: Params, squares: Squares) -> dict[str, Tensor]:
    named = {f"update_norm/{k}": v.sqrt() for k, v in squares(moved).items()}
    norm = _norm(moved)
    cosine = torch.zeros_like(norm)
    if before:
        inner = sum((moved[k] * before[k]).flatten(1).sum(1) for k in moved)
        cosine = inner / (norm * _norm(before)).clamp(min=1e-30)
    return {"update_norm": norm, "update_cosine": cosine, **named}


def _norm(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(tensor_squares(tensors).values())).sum(0).sqrt()
