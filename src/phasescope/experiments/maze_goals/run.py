"""One run: train, measure what the agent does, decompose, ablate."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

import phasescope as ps
from phasescope.datasets import MazeLevels, Walks
from phasescope.experiments.maze_goals.ablations import FROZEN, OTHER, Trained, ablation
from phasescope.experiments.maze_goals.behaviour import (
    Kind,
    counts,
    kinds,
    names,
    probe_config,
    shares,
    walk_with,
)
from phasescope.experiments.maze_goals.config import Config, Detail, Replay, Results
from phasescope.experiments.maze_goals.spectra import (
    TimeParts,
    adam_updates,
    layers_of,
    policy_path,
    time_parts,
)
from phasescope.interventions import AtWeights, ablated, flat_weights

if TYPE_CHECKING:
    from phasescope.experiments.maze_goals.training import Training

Progress = Callable[[float, str], None]

HOLD = 3  # rollouts over which a goal must stay learned
TURN = 0.1  # by which a share must rise and fall for a peak
N_REPLAYED = 8  # levels that the report shows
_PLACES = ("start", "middle", "end")


def run(config: Config, directory: Path, *, progress: Progress | None = None) -> Results:
    """Train an agent, follow its goals, decompose its gradients and take parts of it out.

    Args:
        config: What to train.
        directory: The run's directory; trajectories there are deleted at the end.
        progress: Called with the share of the work done and what is being done.

    Raises:
        ImportError: Stable-Baselines3 is not installed.
    """
    from phasescope.integrations import mazes  # says which extra is missing

    del mazes
    from phasescope.experiments.maze_goals import training

    tell = progress or (lambda share, what: None)
    scratch = directory / "trajectories"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    share = 0.35 if config.interventions else 0.9
    own = training.train(
        config, scratch / "own", progress=lambda done: tell(share * done, "training")
    )
    tell(share, "measuring")
    measured = kinds(config)
    final = shares(measured, own.model, stars=config.stars).tolist()
    before = shares(measured, AtWeights(own.model, own.start), stars=config.stars).tolist()
    numbers: dict[str, Any] = {
        "n_parameters": own.run.parameters.size,
        "final": {
            name: [round(value, 5), n]
            for name, value, n in zip(names(measured), final, counts(measured), strict=True)
        },
        "untrained": dict(zip(names(measured), before, strict=True)),
        "training": _course(config, own),
        "policies": policy_path(own.run["probes/policy"][:], own.run["probes/policy"].steps),
    }
    layers = layers_of(own.run.parameters)
    weights = torch.from_numpy(own.run["weights"][:])
    parts = {
        "gradients": time_parts(own.run.gradients, layers, name="gradients"),
        "updates": time_parts(weights.diff(dim=0), layers, name="updates"),
    }
    numbers["spectra"] = {name: part.numbers for name, part in parts.items()}
    replays = []
    if config.interventions:
        others = _others(config, own, weights, scratch, tell, numbers)
        tell(0.85, "ablations")
        trained = Trained(
            own.model,
            own.start,
            weights,
            lambda model: shares(measured, model, stars=config.stars),
        )
        numbers["ablations"] = _ablations(config, trained, parts, others)
        levels = _shown(measured)
        replays = _replays(config, own, levels, parts)
        numbers["replays"] = _stored(replays, levels)
    shutil.rmtree(scratch)
    tell(1.0, "done")
    return Results(config, numbers, detail_of(config, numbers))


def load(config: Config, directory: Path, numbers: dict[str, Any]) -> Results:
    """The results of a finished run."""
    return Results(config, numbers, detail_of(config, numbers))


def _course(config: Config, own: Training) -> dict[str, Any]:
    """Behaviour over training, and when each goal was learned."""
    series = own.run["probes/goals"]
    measured = kinds(probe_config(config))
    last = shares(measured, own.model, stars=config.stars)
    steps = torch.tensor([*series.steps.tolist(), config.n_rollouts * config.updates_per_rollout])
    rows = torch.cat([torch.from_numpy(series[:]).double(), last[None]])
    curves = {name: rows[:, i] for i, name in enumerate(names(measured))}
    goals = ("cheese", "star") if config.stars else ("corner", "from the corner")
    returns = own.run["metrics/episode_return"]
    peaks = {}
    for name in ("corner first", "cheese first", "star first"):
        if name in curves:
            turns = ps.turning_points(curves[name][None], TURN)
            inner = ~turns.is_trough & ~turns.is_end
            peaks[name] = [int(steps[t]) for t in turns.time[inner]]
    return {
        "steps": steps.tolist(),
        "moves_per_step": config.n_envs * config.rollout / config.updates_per_rollout,
        "curves": {name: [round(x, 4) for x in y.tolist()] for name, y in curves.items()},
        "returns": [round(float(x), 4) for x in returns[:, 0]],
        "learned": {name: _learned(steps, curves[name]) for name in goals},
        "peaks": peaks,
    }


def _learned(steps: Tensor, curve: Tensor) -> list[int] | None:
    """When a share was half way from its first value to its largest, and stayed: with its ends."""
    middle = float(curve[0] + curve.max()) / 2
    if curve.max() - curve[0] < TURN:
        return None
    found = ps.first_reached(steps, curve, middle, hold=HOLD)
    return None if found is None else [found.step, found.low, found.high]


def _others(
    config: Config,
    own: Training,
    weights: Tensor,
    scratch: Path,
    tell: Progress,
    numbers: dict[str, Any],
) -> dict[str, dict[str, TimeParts]]:
    """Components of another run and of frozen policies; their profiles go into the numbers."""
    from phasescope.experiments.maze_goals import training

    other = training.train(
        config,
        scratch / "other",
        other_order=True,
        progress=lambda done: tell(0.35 + 0.3 * done, "training in another order"),
    )
    moved = torch.from_numpy(other.run["weights"][:]).diff(dim=0)
    found = {
        OTHER: {
            "gradients": time_parts(other.run.gradients, name="another run's gradients"),
            "updates": time_parts(moved, name="another run's updates"),
        }
    }
    # Frozen at the start for the null of updates too; stars need the end alone, as a control.
    at = {"start": own.start, "middle": weights[len(weights) // 2], "end": weights[-1]}
    places = ("end",) if config.stars else _PLACES
    frozen: dict[str, Any] = {"gradients": {}, "updates": {}}
    for place in places:
        i = _PLACES.index(place)
        tell(0.65 + 0.06 * i, f"frozen policy, {place}")
        sampled = training.frozen_gradients(config, at[place], scratch / place, i)
        rows = torch.from_numpy(sampled.gradients[:])
        per_row = len(rows) * config.rollouts_per_row // config.n_rollouts
        still = {
            "gradients": time_parts(rows, name="frozen gradients"),
            "updates": time_parts(
                adam_updates(rows, per_row, config.learning_rate), name="frozen updates"
            ),
        }
        for name, part in still.items():
            frozen[name][place] = part.numbers
        found[FROZEN] = still
    numbers["frozen"] = frozen
    return found


def _ablations(
    config: Config,
    trained: Trained,
    parts: dict[str, TimeParts],
    others: dict[str, dict[str, TimeParts]],
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for matrix, own in parts.items():
        for when in ("early", "late"):
            part: ps.Subspace | None = getattr(own, when)
            if part is None:
                continue
            k = len(part.basis)
            frozen = others[FROZEN][matrix].leading
            controls = {
                OTHER: getattr(others[OTHER][matrix], when),
                FROZEN: ps.Subspace(frozen.name, frozen.basis[:k]),
            }
            name = f"{when} {matrix}"
            found[name] = ablation(trained, part, own.leading, controls, seed=config.seed)
    return found


def _shown(measured: dict[str, Kind]) -> MazeLevels:
    return measured["conflict"].levels.select(slice(0, N_REPLAYED))


def _replays(
    config: Config, own: Training, levels: MazeLevels, parts: dict[str, TimeParts]
) -> list[Replay]:
    """The same levels before and after each ablation at strength 1."""
    end = flat_weights(own.model)
    models: dict[str, Tensor] = {"untrained": own.start, "trained": end}
    for matrix, part in parts.items():
        for when in ("early", "late"):
            subspace = getattr(part, when)
            if subspace is not None:
                models[f"without early and late {matrix}".replace("early and late", when)] = (
                    ablated(own.start, end, subspace)
                )
    return [
        Replay(name, walk_with(AtWeights(own.model, w), levels, stars=config.stars))
        for name, w in models.items()
    ]


def _stored(replays: Sequence[Replay], levels: MazeLevels) -> dict[str, Any]:
    """Levels and ways as plain JSON."""
    return {
        "size": levels.size,
        "walls": ["".join("#" if wall else "." for wall in maze.ravel()) for maze in levels.walls],
        "agent": levels.agent.tolist(),
        "cheese": levels.cheese.tolist(),
        "star": levels.star.tolist(),
        "ways": {
            replay.name: [
                way[: end + 1].tolist()
                for way, end in zip(replay.walks.places, replay.walks.ended, strict=True)
            ]
            for replay in replays
        },
    }


def detail_of(config: Config, numbers: dict[str, Any]) -> Detail | None:
    """The replays of a run from its numbers; None if it has none.

    Args:
        config: Of the run.
        numbers: Of the run.
    """
    stored = numbers.get("replays")
    if not stored:
        return None
    n = stored["size"]
    walls = np.array([[mark == "#" for mark in maze] for maze in stored["walls"]])
    agent, cheese, star = (
        np.array(stored[name], dtype=np.int64) for name in ("agent", "cheese", "star")
    )
    shown = np.zeros(len(walls), dtype=bool)
    levels = MazeLevels(walls.reshape(-1, n, n), agent, cheese, star, shown)
    replays = []
    for name, ways in stored["ways"].items():
        longest = max(map(len, ways))
        padded = [way + way[-1:] * (longest - len(way)) for way in ways]
        ended = np.array([len(way) - 1 for way in ways])
        replays.append(Replay(name, Walks(np.array(padded), ended, levels)))
    return Detail(levels, replays)
