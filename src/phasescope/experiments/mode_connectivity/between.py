"""What lies between the models of a toy seed: barriers, maps, hops, and ways out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

import phasescope as ps
from phasescope.datasets import SparseFeatures, feature_frequencies
from phasescope.experiments.mode_connectivity.config import Config
from phasescope.experiments.mode_connectivity.family import (
    KINDS,
    LEVELS,
    THRESHOLD,
    Family,
    State,
)
from phasescope.interventions import fine_tune_away, hop_strength, train_curve
from phasescope.models import feature_outputs
from phasescope.training import cosine_cycles

MATCHED = 0.02
"""Largest relative difference of two held-out losses that count as equal."""
CONTRAST = 0.1
"""Least difference of mono/N by which a start and a target can be told apart."""
RISES = (0.01, 0.05)
"""Shares of the zero predictor's loss that are added to the tolerance, to see what it does."""
MAP_POINTS = 13
"""Places on the lines of the map."""
LANDING_POINTS = 9
"""Places on the line from a released model to its target."""

Number = float | list[float] | list[list[float]]


class Between:
    """The measures of one family."""

    def __init__(self, config: Config, family: Family, seed: int) -> None:
        self.config, self.family, self.seed = config, family, seed
        first = family.records["poly base"][-1]
        rows = family.inputs[:, :2]
        self.symmetry = ps.permutation_symmetry(feature_outputs, (rows,), state=first)
        self.zero_loss = family.targets.square().sum(-1).mean().item()  # of the zero predictor
        self.found: dict[str, Number] = {}

    def everything(self) -> dict[str, Number]:
        """All numbers of the seed."""
        self._forks()
        self._pairs()
        self._map()
        self._hops()
        self._away()
        return self.found

    def mono(self, state: State) -> float:
        """mono/N at the threshold."""
        S = self.family.activations(state).clamp(min=0)
        return float(ps.mono_fraction(S, threshold=THRESHOLD))

    def barrier(self, first: State, second: State, n_points: int) -> float:
        """On the straight line."""
        path = ps.linear_path(first, second)
        return ps.path_values(self.family.measure, path, n_points=n_points).barrier()

    def aligned(self, first: State, second: State) -> dict[str, State]:
        """The second model as it is, and with its neurons permuted."""
        weights = ps.match_weights(self.symmetry, first, second, seed=self.seed).permutations
        doing = ps.match_activations(
            self.symmetry, feature_outputs, first, second, [(self.family.inputs,)]
        )
        return {
            "naive": second,
            "weights": self.symmetry.permuted(second, weights),
            "activations": self.symmetry.permuted(second, doing),
        }

    def nearest(self, first: State, second: State, n_points: int) -> tuple[State, float]:
        """The second model in the order of the lowest barrier."""
        ends = self.aligned(first, second).values()
        found = [(end, self.barrier(first, end, n_points)) for end in ends]
        return min(found, key=lambda pair: pair[1])

    def loss(self, state: State, x_and_t: tuple[Tensor, Tensor]) -> Tensor:
        """Of a batch, with gradients."""
        x, target = x_and_t
        return (feature_outputs(state, x) - target).square().sum(-1).mean()

    def batches(self, stream: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Fresh batches without end."""
        frequencies = feature_frequencies(self.config.n_features, self.config.density)
        features = SparseFeatures(
            frequencies,
            n_models=1,
            batch_size=self.config.batch_size,
            seed=1_000_003 * (stream + 1) + self.seed,
        )
        while True:
            target = features.draw().clone()
            yield target @ self.family.P.mT, target

    def _forks(self) -> None:
        """The tolerance: 95th percentile of the barriers between forks of one run."""
        barriers = []
        for level in LEVELS:
            models = [self.family.records[f"{level} base"][-1], *self.family.forks[level]]
            barriers += [
                self.barrier(a, b, self.config.n_points)
                for a, b in itertools.combinations(models, 2)
            ]
        self.tolerance = float(torch.tensor(barriers, dtype=torch.float64).quantile(0.95))
        self.found["tolerance"] = self.tolerance
        self.found["largest fork"] = max(barriers)

    def _pairs(self) -> None:
        """The deciding paths: between the levels, and between two models of each."""
        pairs = {
            "cross": ("poly base", "mono base"),
            "poly": ("poly base", "poly both"),
            "mono": ("mono base", "mono both"),
        }
        self.chosen: dict[str, tuple[State, State]] = {}
        for name, (a, b) in pairs.items():
            first, second, gap = self._matched(a, b)
            self.chosen[name] = first, second
            self.found[f"{name} gap"] = gap
            ends = self.aligned(first, second)
            barriers = {
                how: self.barrier(first, end, self.config.n_points) for how, end in ends.items()
            }
            best = min(barriers, key=barriers.__getitem__)
            curve = train_curve(
                self.loss,
                first,
                ends[best],
                self.batches(0),
                n_steps=self.config.curve_steps,
                lr=self.config.sgd_rate,
                seed=self.seed,
            ).curve
            path = ps.path_values(self.family.measure, curve, n_points=self.config.n_points)
            self.found |= {f"{name} {how}": value for how, value in barriers.items()}
            self.found[f"{name} best"] = barriers[best]
            self.found[f"{name} curve"] = path.barrier()
            for which, state in (("first", first), ("second", second)):
                self.found[f"{name} loss {which}"] = self.family.measure(state)["loss"]
                self.found[f"{name} mono {which}"] = self.mono(state)
        first, second = self.chosen["cross"]
        target = ps.random_target(first, second, torch.Generator().manual_seed(self.seed))
        values = ps.path_values(
            self.family.measure, ps.linear_path(first, target), n_points=self.config.n_points
        )
        y = values.values["loss"][values.t <= 0.5]
        self.found["random rise"] = float((y - y[0]).max())

    def _matched(self, a: str, b: str) -> tuple[State, State, float]:
        """The annealed records of equal held-out loss, the lowest; else the closest."""
        late = len(self.config.annealed) // 4
        sides = [self.family.records[name][late:] for name in (a, b)]
        losses = [[self.family.measure(s)["loss"] for s in side] for side in sides]
        pairs = list(itertools.product(range(len(sides[0])), range(len(sides[1]))))

        def gap(i: int, j: int) -> float:
            return abs(math.log(losses[0][i] / losses[1][j]))

        equal = [(i, j) for i, j in pairs if gap(i, j) <= MATCHED]
        if equal:
            i, j = min(equal, key=lambda p: losses[0][p[0]] + losses[1][p[1]])
        else:
            i, j = min(pairs, key=lambda p: gap(*p))
        return sides[0][i], sides[1][j], gap(i, j)

    def _map(self) -> None:
        """Components of the graph of low barriers over all final models of the seed."""
        names = [f"{level} {kind}" for level in LEVELS for kind in KINDS]
        states = [self.family.records[name][-1] for name in names]
        n = len(names)
        barriers = torch.zeros(n, n, dtype=torch.float64)
        for i, j in itertools.combinations(range(n), 2):
            barriers[i, j] = barriers[j, i] = self.nearest(states[i], states[j], MAP_POINTS)[1]
        found = ps.basin_map(barriers, self.tolerance)
        per_level = len(KINDS)
        self.found["map barriers"] = barriers.tolist()
        self.found["map mono"] = [self.mono(state) for state in states]
        self.found["basins"] = float(found.n_basins)
        for number, level in enumerate(LEVELS):
            own = slice(number * per_level, (number + 1) * per_level)
            inside = ps.basin_map(barriers[own, own], self.tolerance)
            self.found[f"basins {level}"] = float(inside.n_basins)
            for share in RISES:
                rise = self.tolerance + share * self.zero_loss
                looser = ps.basin_map(barriers[own, own], rise)
                self.found[f"basins {level} {share:g}"] = float(looser.n_basins)
            for k, kind in enumerate(KINDS[1:], start=1):
                base = number * per_level
                self.found[f"{level} {kind} barrier"] = barriers[base, base + k].item()
                self.found[f"{level} {kind} joined"] = float(found.joined[base, base + k])
        self.found["levels joined"] = float(
            bool(set(found.basin[:per_level].tolist()) & set(found.basin[per_level:].tolist()))
        )

    def _hops(self) -> None:
        """The smallest pull from one model to another, both ways, and its nulls."""
        first, second = self.chosen["cross"]
        near, _ = self.nearest(first, second, self.config.n_points)
        back, _ = self.nearest(second, first, self.config.n_points)
        fork, other = self.family.forks["poly"][:2]
        aside = ps.random_target(first, near, torch.Generator().manual_seed(self.seed))
        for name, start, end, pull in (
            ("poly to mono", first, near, near),
            ("mono to poly", second, back, back),
            ("same basin", fork, other, other),
            ("random", first, near, aside),
        ):
            self.found[f"hop {name}"] = self._hop(start, end, pull)

    def _hop(self, start: State, end: State, pull: State) -> float:
        """The smallest pull, towards one state, after which a model has landed at another."""
        goal, origin = self.mono(end), self.mono(start)
        config = self.config
        # Two models that are alike in this, such as forks, are told apart by the barrier alone.
        alike = abs(goal - origin) < CONTRAST

        def landed(state: State) -> bool:
            mono = self.mono(state)
            near = alike or abs(mono - goal) <= abs(mono - origin)
            return near and self.barrier(state, end, LANDING_POINTS) <= self.tolerance

        found = hop_strength(
            self.loss,
            start,
            pull,
            lambda: self.batches(1),
            landed,
            n_pull=config.hop_pull,
            n_release=config.hop_release,
            low=1e-4,
            high=10.0,
            precision=1.5,
            lr=config.sgd_rate,
        )
        return found.value

    def _away(self) -> None:
        """Fine-tuning to a disconnected solution, beside training on in the same way."""
        start = self.family.records["poly base"][-1]
        level = 0.5 * self.zero_loss
        away, on = (
            fine_tune_away(
                self.loss,
                start,
                itertools.islice(self.batches(2), self.config.away_steps),
                level=wanted,
                lr=self.config.away_rate,
                momentum=0.9,
                schedule=cosine_cycles(self.config.away_steps),
                seed=self.seed,
            ).state
            for wanted in (level, None)
        )
        independent = self.family.records["poly both"][-1]
        self.found["away start mono"] = self.mono(start)
        self.found["away level"] = level
        for name, state in (("away", away), ("on", on), ("independent", independent)):
            self.found[f"{name} mono"] = self.mono(state)
            self.found[f"{name} loss"] = self.family.measure(state)["loss"]
            end, barrier = self.nearest(start, state, self.config.n_points)
            self.found[f"{name} barrier naive"] = self.barrier(start, state, self.config.n_points)
            self.found[f"{name} barrier"] = barrier
            self.found[f"{name} overlap"] = self._overlap(start, end)

    def _overlap(self, first: State, second: State) -> float:
        """Mean cosine between what matched neurons make of every single feature."""
        a, b = (self.family.activations(s).clamp(min=0) for s in (first, second))
        return functional.cosine_similarity(a, b, dim=1).mean().item()
