"""Scores of the channels of a network over training, and how much channels move around them.

Units are scored behind their batch norm, as the layers above see them up to a ReLU.
Letters: u units of all layers, t checkpoints, i intervals between them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

import phasescope as ps
from phasescope.analysis.vision_scores import VisionScore
from phasescope.datasets import VisionStimuli, vision_stimuli
from phasescope.experiments.resnet_gradients.config import Config
from phasescope.experiments.resnet_gradients.training import images, network
from phasescope.experiments.resnet_gradients.unit_parts import Units, units_of
from phasescope.interventions import shuffled_weights, vision_null, vision_scores

SCORES = get_args(VisionScore)
N_NULL = 20  # random networks, and as many orders of the final weights
LEVEL = 0.95  # of the largest score of a layer in random networks
BEFORE, AFTER = 2, 6  # intervals before a unit scores, and after it
N_CONTROLS = 3
RANDOM = 3000  # added to the seed of a run for the random networks
_DIRECTIONS = 12
_N_STATISTICS = 512  # images from which batch norms take their statistics
_N_NATURAL = 256  # images from which it is known how strong a response is


def measured_units(recorded: ps.Run, config: Config) -> tuple[dict[str, Any], Tensor]:
    """Numbers of the units of a run, and every score [score, u, t]."""
    model = network(config).eval()
    units = units_of(model)
    (x, _), _, _ = images(config)
    x = x[:_N_STATISTICS]
    stimuli = vision_stimuli(config.image_size, n_directions=_DIRECTIONS)
    kept, table = recorded.weights, recorded.parameters
    steps = np.asarray(kept.steps)
    found = []
    vectors = []
    for row in range(len(steps)):
        vector = torch.from_numpy(np.asarray(kept[row : row + 1]))[0]
        vectors.append(vector.double())
        with torch.no_grad():
            for name, value in table.unflatten(vector).items():
                model.get_parameter(name).copy_(value)
        found.append(_scored(model, units, x, stimuli))
    scores = torch.stack([_joined(s, units) for s in found], -1)
    seeds = [config.seed * 100_000 + RANDOM + i for i in range(N_NULL)]
    null, shuffled = (
        _null(networks, units, x, stimuli)
        for networks in (
            (network(config, seed).eval() for seed in seeds),
            (shuffled_weights(model, seed=seed).eval() for seed in seeds),
        )
    )
    exceeded = _exceeded(scores, null, units)
    beyond = _exceeded(scores[..., -1:], shuffled, units)
    moves = _moves(recorded, units, steps, torch.stack(vectors))
    numbers = {
        "layers": list(units.sites),
        "sizes": list(units.sizes),
        "steps": steps.tolist(),
        "scores": {
            name: {
                "mean": _by_layer(scores[i].numpy(), units).tolist(),
                "scoring": _by_layer(exceeded[i].double().numpy(), units).tolist(),
                "threshold": [n.threshold(name, LEVEL) for n in null],
                "random": [float(n.scores[name].mean()) for n in null],
                "random_scoring": _left_out(null, name),
                "beyond_shuffled": float(beyond[i].double().mean()),
            }
            for i, name in enumerate(SCORES)
        },
        "events": events(exceeded.numpy(), moves, units.layer, seed=config.seed),
    }
    return numbers, scores.float()


def _knowing(model: nn.Module, x: Tensor) -> nn.Module:
    """The network, its batch norms with the statistics of the images."""
    batches = [(part,) for part in x.split(128)]
    model.load_state_dict(ps.reestimate_batch_norm(model, model.state_dict(), batches))
    return model


def _scored(
    model: nn.Module, units: Units, x: Tensor, stimuli: VisionStimuli
) -> dict[str, ps.VisionScores]:
    """Scores of every layer."""
    return vision_scores(_knowing(model, x), units.sites, stimuli=stimuli, images=x[:_N_NATURAL])


def _joined(scores: Mapping[str, ps.VisionScores], units: Units) -> Tensor:
    return torch.stack([torch.cat([scores[s][name] for s in units.sites]) for name in SCORES])


def _null(
    networks: Iterable[nn.Module], units: Units, x: Tensor, stimuli: VisionStimuli
) -> list[ps.VisionNull]:
    """Of every layer."""
    known = (_knowing(model, x) for model in networks)
    found = vision_null(known, units.sites, stimuli=stimuli, images=x[:_N_NATURAL])
    return [found[site] for site in units.sites]


def _exceeded(scores: Tensor, null: list[ps.VisionNull], units: Units) -> Tensor:
    """Which score of which unit is above the threshold of its layer: [score, u, t]."""
    bars = torch.tensor([[n.threshold(name, LEVEL) for n in null] for name in SCORES])
    return scores > bars[:, torch.from_numpy(units.layer), None].double()


def _by_layer(values: np.ndarray, units: Units) -> np.ndarray:
    """Mean over the units of each layer: [layer, t]."""
    return np.stack([values[units.layer == i].mean(0) for i in range(len(units.sizes))])


def _left_out(null: list[ps.VisionNull], name: VisionScore) -> float:
    """Share of units of random networks that exceed the threshold of the other ones."""
    shares = []
    for layer in null:
        found = layer.scores[name]
        for i in range(len(found)):
            others = ps.VisionNull({name: torch.cat([found[:i], found[i + 1 :]])})
            shares.append(float((found[i] > others.threshold(name, LEVEL)).double().mean()))
    return float(np.mean(shares))


@dataclass(frozen=True, eq=False)
class Moves:
    """Squared movement of the filter of every unit and of what reads it: [u, i] each.

    Relative to the norm, per interval between checkpoints: the mean square of single updates, and
    the square of the whole way.
    """

    filter_updates: np.ndarray
    reader_updates: np.ndarray
    filter_ways: np.ndarray
    reader_ways: np.ndarray


def _moves(recorded: ps.Run, units: Units, steps: np.ndarray, weights: Tensor) -> Moves:
    updates_of = recorded["component_norms/updates"]
    names, at = list(updates_of.labels or ()), np.asarray(updates_of.steps)
    moved, size = (
        np.asarray(series[: len(at)], dtype=float)
        for series in (updates_of, recorded["component_norms/weights"])
    )
    squares = (moved / size) ** 2
    inside = [(at >= a) & (at < b) for a, b in itertools.pairwise(steps)]

    def updates(parts: Mapping[str, ps.Component]) -> np.ndarray:
        columns = [names.index(name) for name in parts]
        return np.stack([squares[rows][:, columns].mean(0) for rows in inside], 1)

    def ways(parts: Mapping[str, ps.Component]) -> np.ndarray:
        rows = []
        for part in parts.values():
            w = weights[:, part.columns]
            rows.append((w.diff(dim=0).norm(dim=1) / w[:-1].norm(dim=1)).square().numpy())
        return np.stack(rows)

    return Moves(
        updates(units.filters), updates(units.readers), ways(units.filters), ways(units.readers)
    )


def events(
    exceeded: np.ndarray, moves: Moves, layer: np.ndarray, *, seed: int
) -> list[dict[str, Any]]:
    """Every unit that begins to score, with its change of movement beside that of matched units.

    A unit begins to score at the first checkpoint at which one of its scores exceeds its threshold
    for the second time in succession. It counts if no score of it does so at the first checkpoint,
    if `BEFORE` intervals lie before and `AFTER` behind. It is compared with those `N_CONTROLS`
    units of its layer whose filters moved most alike in the intervals before, among those whose
    scores have never exceeded a threshold so far; what becomes of either later is not looked at.
    Movement is matched because what is about to score moves more, and what moves much comes to
    rest.

    Args:
        exceeded: [score, u, t].
        moves: Of the run.
        layer: Of every unit.
        seed: Of the placebos: per event another unit without a score takes the place of the one
            that scores.

    Returns:
        Per event its unit, layer, checkpoint and scores, and changes in log2 (behind less before):
        ``filter`` and ``reader``, each by ``updates`` and by ``ways``, the same of the matched
        units, and of the placebo and of its own matched units.
    """
    generator = np.random.default_rng([seed, 13])
    above = np.asarray(exceeded.any(0))
    again = exceeded[..., 1:] & exceeded[..., :-1]
    found = []
    for unit in np.flatnonzero(again.any((0, 2)) & ~above[:, 0]):
        start = int(again[:, unit].any(0).argmax()) + 1
        if start < BEFORE or start + AFTER > above.shape[1] - 1:
            continue
        quiet = ~above[:, : start + 1].any(1) & (layer == layer[unit])
        candidates = np.flatnonzero(quiet)
        if len(candidates) < N_CONTROLS + 1:
            continue
        placebo = int(generator.choice(candidates))
        found.append(
            {
                "unit": int(unit),
                "layer": int(layer[unit]),
                "checkpoint": start,
                "scores": [SCORES[i] for i in np.flatnonzero(again[:, unit, start - 1])],
                "change": _changes(moves, [int(unit)], start),
                "matched": _changes(moves, _alike(moves, int(unit), candidates, start), start),
                "placebo": _changes(moves, [placebo], start),
                "placebo_matched": _changes(
                    moves, _alike(moves, placebo, candidates[candidates != placebo], start), start
                ),
            }
        )
    return found


def _alike(moves: Moves, unit: int, candidates: np.ndarray, start: int) -> list[int]:
    before = np.log2(moves.filter_updates[:, start - BEFORE : start].mean(1))
    order = np.argsort(np.abs(before[candidates] - before[unit]), kind="stable")
    return candidates[order[:N_CONTROLS]].tolist()


def _changes(moves: Moves, units: list[int], start: int) -> dict[str, float]:
    """Mean over units of log2 of the movement behind over that before."""
    return {
        name: float(
            0.5
            * np.log2(
                values[units, start : start + AFTER].mean(1)
                / values[units, start - BEFORE : start].mean(1)
            ).mean()
        )
        for name, values in vars(moves).items()
    }
