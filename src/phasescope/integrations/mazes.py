"""The mazes as environments of Gymnasium and of Stable-Baselines3.

Importing this module registers ``phasescope/Maze-v0`` with Gymnasium.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, UInt8

from phasescope.datasets.maze_pictures import maze_picture
from phasescope.datasets.maze_walks import MOVES, MazeBatch
from phasescope.datasets.mazes import MazeLevels, MazeMix, draw_mazes
from phasescope.integrations.extras import missing

try:
    import gymnasium
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise missing(__name__, "rl", error) from error

__all__ = ["MazeEnv", "MazeVecEnv"]

NAME = "phasescope/Maze-v0"


class MazeEnv(gymnasium.Env):
    """One agent in mazes, as a Gymnasium environment.

    ``gymnasium.make("phasescope.integrations.mazes:phasescope/Maze-v0")`` makes one without an
    import. Observations, rewards and ends are those of `MazeBatch`. ``reset(seed=...)`` sets the
    draws of levels, ``reset(options={"level": 3})`` begins a given one; `info` tells the level and
    the places of agent, cheese and star.

    Args:
        levels: From which levels are drawn; by default `n_levels` of `mix`.
        mix: What kinds of levels to draw.
        size: Side of the mazes drawn.
        braid: How many loops they have.
        n_levels: How many are drawn.
        level_seed: Of the levels drawn.
        time_limit: Moves after which an episode is truncated; six times the side by default.
        corner_ends: Whether reaching the corner ends the episode.
        render_mode: None or ``"rgb_array"``.

    Raises:
        ValueError: The render mode is another, or no such level exists.

    Example:
        >>> env = gymnasium.make("phasescope.integrations.mazes:phasescope/Maze-v0", size=5)
        >>> observation, info = env.reset(seed=0)
        >>> observation.shape
        (3, 5, 5)
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012

    def __init__(
        self,
        levels: MazeLevels | None = None,
        *,
        mix: MazeMix | None = None,
        size: int = 7,
        braid: float = 0.3,
        n_levels: int = 1000,
        level_seed: int = 0,
        time_limit: int | None = None,
        corner_ends: bool = False,
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(
                f"render_mode must be None or 'rgb_array', but {render_mode!r} arrived. The frames "
                "are pictures; show them with any library."
            )
        if levels is None:
            levels = draw_mazes(n_levels, mix, size=size, braid=braid, seed=level_seed)
        self.levels, self.render_mode = levels, render_mode
        self._batch = MazeBatch(levels, 1, seed=0, time_limit=time_limit, corner_ends=corner_ends)
        self.observation_space = _observation_space(self._batch)
        self.action_space = gymnasium.spaces.Discrete(len(MOVES))
        self._info: dict[str, Any] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32[np.ndarray, "channel n n"], dict[str, Any]]:
        """Begin an episode: the first observation, and where things are."""
        super().reset(seed=seed)
        level = (options or {}).get("level")
        if level is not None and not 0 <= level < len(self.levels):
            raise ValueError(
                f"options['level'] must be the number of a level, from 0 to {len(self.levels) - 1},"
                f" but {level} arrived."
            )
        if level is None:
            level = int(self.np_random.integers(len(self.levels)))
        seen = self._batch.reset(np.array([level]))[0]
        self._info = self._batch.where(0)
        return seen, dict(self._info)

    def step(
        self, action: int | np.integer
    ) -> tuple[Float32[np.ndarray, "channel n n"], float, bool, bool, dict[str, Any]]:
        """Move: observation, reward, whether everything is found, whether time is up, places."""
        lead = self._batch.lead(0, int(action))
        if lead == self._info["cheese"]:
            self._info["cheese"] = -1
        if lead == self._info["star"]:
            self._info["star"] = -1
        self._info["agent"] = lead
        moved = self._batch.step(np.array([action]))
        seen = moved.last_observation[0] if moved.done[0] else moved.observation[0]
        ends = bool(moved.terminated[0]), bool(moved.truncated[0])
        return seen, float(moved.reward[0]), *ends, dict(self._info)

    def render(self) -> UInt8[np.ndarray, "height width 3"] | None:
        """The maze as it is now, as a picture; None without a render mode."""
        if self.render_mode is None:
            return None
        places = {name: self._info[name] for name in ("agent", "cheese", "star")}
        return maze_picture(self.levels, self._info["level"], **places)


class MazeVecEnv(VecEnv):
    """Many agents in mazes at once, as Stable-Baselines3 wants them.

    Args:
        batch: The mazes.

    Example:
        >>> batch = MazeBatch(draw_mazes(50, size=5, seed=0), n_envs=4, seed=0)
        >>> MazeVecEnv(batch).reset().shape
        (4, 3, 5, 5)
    """

    def __init__(self, batch: MazeBatch) -> None:
        self.batch = batch
        self.render_mode = None
        space = gymnasium.spaces.Discrete(len(MOVES))
        super().__init__(batch.n_envs, _observation_space(batch), space)
        self._returns = np.zeros(batch.n_envs)
        self._lengths = np.zeros(batch.n_envs, dtype=np.int64)

    def reset(self) -> Float32[np.ndarray, "env channel n n"]:
        """Begin an episode everywhere."""
        self._returns[:], self._lengths[:] = 0, 0
        return self.batch.reset()

    def step_async(self, actions: Int[np.ndarray, " env"]) -> None:
        """Take the actions of `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Observations, rewards, ends, and what the agent needs to know of ended episodes."""
        moved = self.batch.step(self._actions)
        self._returns += moved.reward
        self._lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = np.flatnonzero(moved.done)
        for env, last in zip(ended, moved.last_observation, strict=True):
            episode = {"r": float(self._returns[env]), "l": int(self._lengths[env])}
            infos[env] = {
                "terminal_observation": last,
                "TimeLimit.truncated": bool(moved.truncated[env]),
                "episode": episode,
            }
        self._returns[ended], self._lengths[ended] = 0, 0
        return moved.observation, moved.reward, moved.done, infos

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Draw the coming levels from another seed."""
        if seed is not None:
            self.batch.reseed(seed)
        return [seed] * self.num_envs

    def close(self) -> None:
        """Nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the batch, once for each environment asked for."""
        value = None if attr_name == "render_mode" else getattr(self.batch, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse: all environments are one batch."""
        raise AttributeError(
            f"attributes of single environments cannot be set, but {attr_name!r} was to be: they "
            "are one MazeBatch. Make another one."
        )

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        """Refuse: there is no environment of which a method could be called."""
        raise AttributeError(
            f"there are no single environments whose {method_name!r} could be called: they are one "
            "MazeBatch. Call a method of `batch`."
        )

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """False everywhere."""
        return [False for _ in self._get_indices(indices)]


def _observation_space(batch: MazeBatch) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(0.0, 1.0, batch.shape, np.float32)


gymnasium.register(NAME, entry_point=f"{__name__}:MazeEnv")
