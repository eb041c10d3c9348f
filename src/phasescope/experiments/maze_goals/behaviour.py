"""What an agent does: levels of every kind that tells its goals apart, and the measures on them.

A measure is a share of levels; its interval within one run is binomial, that over runs is over
seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from phasescope.datasets import (
    MazeLevels,
    MazeMix,
    Walks,
    draw_mazes,
    in_conflict,
    path_lengths,
    walk,
    with_goals_hidden,
)
from phasescope.experiments.maze_goals.config import Config

HELD_OUT = 1_000_000  # added to the seed of the levels that are measured on
NEAR, FAR = 4, 8
"""Moves up to which a goal is near, and from which on it is far."""


@dataclass(frozen=True, eq=False)
class Kind:
    """Levels, and the shares that are measured on them."""

    levels: MazeLevels
    """The levels."""
    measures: dict[str, Callable[[Walks], np.ndarray]]
    """By name, which levels count as a success; outside `among` they are left out."""
    among: dict[str, np.ndarray]
    """Masks of the levels that a measure counts; all of them if it has none."""


def kinds(config: Config) -> dict[str, Kind]:
    """The levels that behaviour is measured on, the same for all runs of a configuration and seed.

    Args:
        config: Of the training: size and loops, mixture and number of levels.
    """
    return _star_kinds(config) if config.stars else _corner_kinds(config)


def _corner_kinds(config: Config) -> dict[str, Kind]:
    anywhere = _draw(config, MazeMix(elsewhere=1.0), 1, 30)
    conflict = anywhere.select(in_conflict(anywhere)).select(slice(0, config.n_levels_measured))
    spread = anywhere.select(slice(0, 2 * config.n_levels_measured))
    distance = path_lengths(spread, "agent", "cheese")
    to_corner = path_lengths(spread, "cheese", "corner")
    away = distance > 2  # a goal next to the start is found by chance
    bands = {
        "cheese near the agent": distance <= NEAR,
        "cheese far from the agent": distance >= FAR,
        "cheese near the corner": away & (to_corner <= NEAR),
        "cheese far from the corner": away & (to_corner >= FAR),
    }
    usable = {name: mask for name, mask in bands.items() if mask.any()}
    cheese = dict.fromkeys(usable, _reached("cheese"))
    corner = {"corner": _reached("corner")}
    return {
        "ordinary": Kind(_draw(config, config.mix, 2), {"ordinary": _reached("cheese")}, {}),
        "conflict": Kind(
            conflict,
            {
                "cheese first": lambda walks: walks.first("cheese", "corner"),
                "corner first": lambda walks: walks.first("corner", "cheese"),
            },
            {},
        ),
        "hidden": Kind(with_goals_hidden(conflict), corner, {}),
        "from corner": Kind(
            _draw(config, MazeMix(from_corner=1.0), 3), {"from the corner": _reached("cheese")}, {}
        ),
        "spread": Kind(spread, cheese, usable),
        "spread hidden": Kind(
            with_goals_hidden(spread),
            {f"hidden {name}": measure for name, measure in cheese.items()},
            {f"hidden {name}": mask for name, mask in usable.items()},
        ),
    }


def _star_kinds(config: Config) -> dict[str, Kind]:
    both = _draw(config, MazeMix(elsewhere=1.0, with_star=1.0), 1, 30)
    both = both.select(in_conflict(both, "cheese", "star"))
    both = both.select(slice(0, config.n_levels_measured))
    star_only = _draw(config, MazeMix(elsewhere=1.0, star_only=1.0), 3)
    return {
        "ordinary": Kind(
            _draw(config, config.mix, 2),
            {"ordinary": _everything},
            {},
        ),
        "cheese": Kind(
            _draw(config, MazeMix(elsewhere=1.0), 4), {"cheese": _reached("cheese")}, {}
        ),
        "star": Kind(star_only, {"star": _reached("star")}, {}),
        "conflict": Kind(
            both,
            {
                "cheese first": lambda walks: walks.first("cheese", "star"),
                "star first": lambda walks: walks.first("star", "cheese"),
            },
            {},
        ),
    }


def _draw(config: Config, mix: MazeMix, offset: int, times: int = 1) -> MazeLevels:
    n = times * config.n_levels_measured
    seed = HELD_OUT + 10 * config.seed + offset
    return draw_mazes(n, mix, size=config.size, braid=config.braid, seed=seed)


def _reached(thing: str) -> Callable[[Walks], np.ndarray]:
    return lambda walks: walks.reached(thing)  # pyright: ignore[reportArgumentType]


def _everything(walks: Walks) -> np.ndarray:
    """Whether all goals of the level were found."""
    levels = walks.levels
    cheese, star = (
        walks.reached(thing) | (levels.places(thing) < 0) for thing in ("cheese", "star")
    )
    return cheese & star


def names(of: dict[str, Kind]) -> list[str]:
    """Names of the measures, in the order in which `shares` returns them."""
    return [name for kind in of.values() for name in kind.measures]


def counts(of: dict[str, Kind]) -> list[int]:
    """Number of levels that each measure counts."""
    return [
        int(kind.among[name].sum()) if name in kind.among else len(kind.levels)
        for kind in of.values()
        for name in kind.measures
    ]


def shares(
    of: dict[str, Kind], model: nn.Module, *, stars: bool, seed: int = 0
) -> Float64[Tensor, " measure"]:
    """Every measure of an agent, all on the same luck.

    Args:
        of: From `kinds`.
        model: Observations to logits.
        stars: Whether observations have the channel of stars.
        seed: Of the moves drawn.
    """
    # All levels at once: a forward pass for each move, not for each move and kind.
    together = walk_with(model, joined([k.levels for k in of.values()]), stars=stars, seed=seed)
    found, first = [], 0
    for kind in of.values():
        part = slice(first, first + len(kind.levels))
        first = part.stop
        walks = Walks(together.places[part], together.ended[part], kind.levels)
        for name, success in kind.measures.items():
            among = kind.among.get(name, slice(None))
            found.append(float(success(walks)[among].mean()))
    return torch.tensor(found, dtype=torch.float64)


def joined(sets: Sequence[MazeLevels]) -> MazeLevels:
    """Several sets of levels as one, in order.

    Args:
        sets: Of mazes of one size.
    """
    fields = ("walls", "agent", "cheese", "star", "hidden")
    return MazeLevels(*(np.concatenate([getattr(s, field) for s in sets]) for field in fields))


def walk_with(model: nn.Module, levels: MazeLevels, *, stars: bool, seed: int = 0) -> Walks:
    """Send a model through levels.

    Args:
        model: Observations to logits.
        levels: The levels.
        stars: Whether observations have the channel of stars.
        seed: Of the moves drawn.
    """

    def policy(seen: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(seen)).numpy()

    return walk(levels, policy, stars=stars, seed=seed)


def probe_config(config: Config) -> Config:
    """The same measures on fewer levels, for every rollout of a training."""
    n = min(config.n_levels_measured, max(40, config.n_levels_measured // 2))
    return replace(config, n_levels_measured=n)
