"""Moving in mazes: many agents at once, as an endless environment or once through given levels.

Axes: env (or level), channel of the observation, row and column of the maze, move.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int64

from phasescope.datasets.mazes import NOWHERE, MazeLevels, Thing

MOVES = ("up", "right", "down", "left")
"""The four actions, by number."""
CHANNELS = ("wall", "agent", "cheese", "star")
"""What the channels of an observation mark with ones."""
_WALL, _AGENT, _CHEESE, _STAR = range(4)

Policy = Callable[[Float32[np.ndarray, "env channel n n"]], Float[np.ndarray, "env 4"]]
"""Observations to logits of the four moves."""


@dataclass(frozen=True, eq=False)
class MazeStep:
    """What one move of every agent brought."""

    observation: Float32[np.ndarray, "env channel n n"]
    """After the move; where an episode ended, the first one of the next."""
    reward: Float32[np.ndarray, " env"]
    """1 for each goal that was found by the move."""
    terminated: Bool[np.ndarray, " env"]
    """All goals of the level are found (or the corner is reached, if it ends episodes)."""
    truncated: Bool[np.ndarray, " env"]
    """The time was up."""
    last_observation: Float32[np.ndarray, "ended channel n n"]
    """The last observation of every episode that ended, in order of the environments."""

    @property
    def done(self) -> Bool[np.ndarray, " env"]:
        """Episodes that ended."""
        return self.terminated | self.truncated


class MazeBatch:
    """Many agents in mazes at once; each goes on to another level when its episode ends.

    An observation has a channel each for walls, the agent, the cheese and, if there are stars, the
    star. Moves into walls leave the agent where it is. Cheese and star pay 1 each and are gone once
    found; the corner pays nothing. An episode ends when nothing is left to be found, or with the
    time.

    Args:
        levels: From which levels are drawn at random, with replacement.
        n_envs: How many agents.
        seed: Of the draws of levels.
        time_limit: Moves after which an episode is cut off; six times the side by default.
        corner_ends: Whether reaching the corner ends the episode, whatever has been found.
        stars: Whether observations have the channel of stars; by default, if there are any.

    Raises:
        ValueError: There are no environments or no time, or a star would not be seen.

    Example:
        >>> from phasescope.datasets.mazes import draw_mazes
        >>> batch = MazeBatch(draw_mazes(50, seed=0), n_envs=8, seed=0)
        >>> batch.reset().shape, batch.step(np.zeros(8, dtype=np.int64)).reward.shape
        ((8, 3, 7, 7), (8,))
    """

    def __init__(
        self,
        levels: MazeLevels,
        n_envs: int,
        *,
        seed: int,
        time_limit: int | None = None,
        corner_ends: bool = False,
        stars: bool | None = None,
    ) -> None:
        any_star = bool((levels.star >= 0).any())
        stars = any_star if stars is None else stars
        limit = 6 * levels.size if time_limit is None else time_limit
        if n_envs < 1 or limit < 1 or (any_star and not stars):
            raise ValueError(
                "a batch of mazes needs an environment, a time limit of at least one move and a "
                f"channel for stars where there are any, but n_envs={n_envs}, time_limit={limit} "
                f"and stars={stars} arrived."
            )
        self.levels, self.n_envs, self.time_limit = levels, n_envs, limit
        self.corner_ends, self.n_channels = corner_ends, 3 + stars
        n = levels.size
        self.shape = (self.n_channels, n, n)
        """Shape of one observation."""
        # A level's observation without the agent, and where each move leads from each place.
        self._pictures = observations(levels, stars=stars)
        self._pictures[:, _AGENT] = 0
        self._pictures = self._pictures.reshape(len(levels), -1)
        self._leads = _destinations(levels.walls)
        self._rng = np.random.default_rng(seed)
        self._envs = np.arange(n_envs)
        self._seen = np.zeros((n_envs, self.n_channels * n * n), dtype=np.float32)
        self._level = np.zeros(n_envs, dtype=np.int64)
        self._place = np.zeros(n_envs, dtype=np.int64)
        self._goals = np.zeros((2, n_envs), dtype=np.int64)
        self._moves = np.zeros(n_envs, dtype=np.int64)

    def reset(
        self, levels: Int64[np.ndarray, " env"] | None = None
    ) -> Float32[np.ndarray, "env channel n n"]:
        """New episodes everywhere; returns their first observations.

        Args:
            levels: Numbers of the levels to begin; drawn at random by default.
        """
        self._begin(self._envs, levels)
        return self._observation()

    def where(self, env: int) -> dict[str, int]:
        """Number of an environment's level, and the places of agent, cheese and star now.

        Args:
            env: Number of the environment.
        """
        places = (self._level, self._place, *self._goals)
        names = ("level", "agent", "cheese", "star")
        return {name: int(values[env]) for name, values in zip(names, places, strict=True)}

    def lead(self, env: int, action: int) -> int:
        """Place to which a move would lead an agent.

        Args:
            env: Number of its environment.
            action: Number of the move.
        """
        return int(self._leads[self._level[env], self._place[env], action])

    def reseed(self, seed: int) -> None:
        """Draw the coming levels from another seed."""
        self._rng = np.random.default_rng(seed)

    def step(self, actions: Int[np.ndarray, " env"]) -> MazeStep:
        """Move every agent; where an episode ends, the next one begins.

        Args:
            actions: Numbers of `MOVES`.
        """
        envs, n2 = self._envs, self.levels.size**2
        here = self._place
        there = self._leads[self._level, here, actions]
        self._seen[envs, n2 + here] = 0
        self._seen[envs, n2 + there] = 1
        self._place = there
        self._moves += 1
        found = self._goals == there
        reward = found.sum(0, dtype=np.float32)
        if found.any():
            for channel, which in zip((_CHEESE, _STAR), found, strict=True):
                if channel < self.n_channels:
                    self._seen[envs[which], channel * n2 + there[which]] = 0
            self._goals[found] = NOWHERE
        terminated = np.all(self._goals < 0, axis=0)
        if self.corner_ends:
            terminated = terminated | (there == self.levels.corner)
        truncated = ~terminated & (self._moves >= self.time_limit)
        ended = np.flatnonzero(terminated | truncated)
        last = self._seen[ended].reshape(-1, *self.shape)
        if len(ended):
            self._begin(ended)
        return MazeStep(self._observation(), reward, terminated, truncated, last)

    def _begin(
        self, envs: Int64[np.ndarray, " env"], level: Int64[np.ndarray, " env"] | None = None
    ) -> None:
        if level is None:
            level = self._rng.integers(len(self.levels), size=len(envs))
        place = self.levels.agent[level]
        self._level[envs], self._place[envs], self._moves[envs] = level, place, 0
        self._goals[0, envs], self._goals[1, envs] = (
            self.levels.cheese[level],
            self.levels.star[level],
        )
        self._seen[envs] = self._pictures[level]
        self._seen[envs, self.levels.size**2 + place] = 1

    def _observation(self) -> Float32[np.ndarray, "env channel n n"]:
        return self._seen.copy().reshape(self.n_envs, *self.shape)


def observations(
    levels: MazeLevels, *, stars: bool | None = None
) -> Float32[np.ndarray, "level channel n n"]:
    """What an agent sees at the start of every level.

    Args:
        levels: The levels.
        stars: Whether there is a channel of stars; by default, if there are any.

    Returns:
        Ones and zeros: walls, agent, cheese and, if wanted, star.

    Example:
        >>> from phasescope.datasets.mazes import draw_mazes
        >>> observations(draw_mazes(2, size=5, seed=0)).shape
        (2, 3, 5, 5)
    """
    stars = bool((levels.star >= 0).any()) if stars is None else stars
    seen = np.zeros((len(levels), 3 + stars, levels.size**2), dtype=np.float32)
    seen[:, _WALL] = levels.walls.reshape(len(levels), -1)
    rows = np.arange(len(levels))
    seen[rows, _AGENT, levels.agent] = 1
    for channel, places in ((_CHEESE, levels.cheese), (_STAR, levels.star))[: 1 + stars]:
        shown = (places >= 0) & ~levels.hidden
        seen[rows[shown], channel, places[shown]] = 1
    return seen.reshape(len(levels), -1, levels.size, levels.size)


@dataclass(frozen=True, eq=False)
class Walks:
    """Where the agents of given levels went, once through each."""

    places: Int64[np.ndarray, "level moves"]
    """Place after so many moves, the first one the start; the last one repeats after the end."""
    ended: Int64[np.ndarray, " level"]
    """Number of moves until everything was found, or the number of all moves."""
    levels: MazeLevels
    """The levels."""

    def first_visit(self, thing: Thing) -> Int64[np.ndarray, " level"]:
        """Moves until the agent was first at a goal; -1 where it never was, or there is none."""
        there = self.places == self.levels.places(thing)[:, None]
        there &= (self.levels.places(thing) >= 0)[:, None]
        return np.where(there.any(1), there.argmax(1), -1)

    def reached(self, thing: Thing) -> Bool[np.ndarray, " level"]:
        """Whether the agent ever was at a goal."""
        return self.first_visit(thing) >= 0

    def first(self, one: Thing, other: Thing) -> Bool[np.ndarray, " level"]:
        """Whether the agent was at one goal, and not at the other before."""
        a, b = self.first_visit(one), self.first_visit(other)
        return (a >= 0) & ((b < 0) | (a < b))


def walk(
    levels: MazeLevels,
    policy: Policy,
    *,
    n_moves: int | None = None,
    seed: int = 0,
    stars: bool | None = None,
) -> Walks:
    """Send an agent through every level once, moves drawn from its policy.

    The random numbers depend on the seed and on the number of levels and moves alone: two policies
    are compared on the same luck.

    Args:
        levels: The levels.
        policy: Observations to logits of the four moves.
        n_moves: Moves that it has; six times the side by default.
        seed: Of the draws.
        stars: Whether observations have the channel of stars; by default, if there are any.

    Returns:
        The walks.

    Example:
        >>> from phasescope.datasets.mazes import draw_mazes
        >>> levels = draw_mazes(200, seed=0)
        >>> at_random = walk(levels, lambda seen: np.zeros((len(seen), 4)))
        >>> bool(0.05 < at_random.reached("cheese").mean() < 0.5)
        True
    """
    n_moves = 6 * levels.size if n_moves is None else n_moves
    n_levels, n2 = len(levels), levels.size**2
    uniform = np.random.default_rng(seed).random((n_moves, n_levels, 4))
    seen = observations(levels, stars=stars)
    flat = seen.reshape(n_levels, -1)
    leads = _destinations(levels.walls)
    goals = np.stack([levels.cheese, levels.star])
    place, rows = levels.agent.copy(), np.arange(n_levels)
    places = np.empty((n_levels, n_moves + 1), dtype=np.int64)
    places[:, 0] = place
    ended = np.full(n_levels, n_moves)
    active = rows
    for move in range(n_moves):
        places[:, move + 1] = place
        if not len(active):
            continue
        logits = np.asarray(policy(seen[active]), dtype=np.float64)
        # The largest of logits plus Gumbel noise is a draw from their softmax.
        actions = (logits - np.log(-np.log(uniform[move, active]))).argmax(1)
        here = place[active]
        there = leads[active, here, actions]
        flat[active, n2 + here] = 0
        flat[active, n2 + there] = 1
        place[active] = places[active, move + 1] = there
        for channel, goal in zip((_CHEESE, _STAR), goals, strict=True):
            found = active[goal[active] == there]
            if channel < seen.shape[1]:
                flat[found, channel * n2 + goal[found]] = 0
            goal[found] = NOWHERE
        done = (goals[:, active] < 0).all(0)
        ended[active[done]] = move + 1
        active = active[~done]
    return Walks(places, ended, levels)


def _destinations(walls: Bool[np.ndarray, "level n n"]) -> Int64[np.ndarray, "level place 4"]:
    """Place to which each move leads from each place."""
    n = walls.shape[1]
    closed = np.pad(walls, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    rows, columns = np.divmod(np.arange(n * n), n)
    leads = np.empty((len(walls), n * n, 4), dtype=np.int64)
    for move, (down, right) in enumerate(((-1, 0), (0, 1), (1, 0), (0, -1))):
        blocked = closed[:, rows + 1 + down, columns + 1 + right]
        stay = np.arange(n * n)
        leads[..., move] = np.where(blocked, stay, stay + down * n + right)
    return leads
