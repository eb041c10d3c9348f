"""Train an agent with everything recorded, and sample gradients where its policy stands still.

Only `run` imports this module, since it needs the extra `rl`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor, nn

import phasescope as ps
from phasescope.datasets import MazeLevels, MazeMix, draw_mazes, observations
from phasescope.experiments.maze_goals.behaviour import kinds, probe_config, shares
from phasescope.experiments.maze_goals.config import Config
from phasescope.experiments.maze_goals.networks import (
    Logits,
    agent,
    environment,
    random_state_kept,
)
from phasescope.interventions import flat_weights

N_PICTURES = 128  # observations on which the policy is followed
_ORDER, _FROZEN = 500_000, 700_000  # added to the seed of another order, and of frozen policies


@dataclass(frozen=True)
class Training:
    """A recorded training."""

    run: ps.Run
    """What was recorded."""
    start: Float[Tensor, " P"]
    """Weights before it."""
    model: Logits
    """The trained policy."""


class _Watch(BaseCallback):
    """After each rollout: files returns, lets the recorder take checkpoints, tells the progress."""

    def __init__(self, recorder: ps.Recorder, n_moves: int, tell: Callable[[float], None]) -> None:
        super().__init__()
        self.recorder, self.n_moves, self.tell = recorder, n_moves, tell

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.recorder.end_step()  # the updates of the rollout before are done
        episodes = self.model.ep_info_buffer or ()
        if episodes:
            mean = float(np.mean([episode["r"] for episode in episodes]))
            self.recorder.log(step=self.recorder.step, episode_return=mean)
        self.tell(self.num_timesteps / self.n_moves)


def train(
    config: Config,
    directory: Path,
    *,
    other_order: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> Training:
    """Train an agent by PPO and record it.

    Args:
        config: What to train.
        directory: The run's directory.
        other_order: Start from the same weights, with other levels, moves and minibatches; without
            the measures of behaviour.
        progress: Called with the share that is done.
    """
    with random_state_kept():
        seed = config.seed + _ORDER * other_order
        model = agent(config, _levels(config, seed), seed)
        if other_order:
            model.policy.load_state_dict(
                agent(config, _levels(config, 0), config.seed).policy.state_dict()
            )
        start = flat_weights(model.policy)
        save, probes = _what_to_save(config), {}
        if not other_order:
            save["probes"] = save["weights"]
            probes = _probes(config)
        with ps.Recorder(
            directory,
            model.policy,
            model.policy.optimizer,
            save=save,
            probes=probes,
            n_steps=config.n_rollouts * config.updates_per_rollout,
            checkpoint=ps.every(max(1, config.n_rollouts // 4) * config.updates_per_rollout),
            loss_reduction="mean",
            config=config,
        ) as recorder:
            learn(model, config, seed, _Watch(recorder, config.n_moves, progress))
    return Training(ps.open_run(directory), start, Logits(model.policy))


def learn(model: PPO, config: Config, seed: int, callback: BaseCallback | None = None) -> None:
    """Train for as long as the configuration says, stars coming in when it says.

    Args:
        model: From `agent`.
        config: The same configuration.
        seed: That of the agent.
        callback: Of Stable-Baselines3.
    """
    per_rollout = config.n_envs * config.rollout
    before = round(config.stars_from * config.n_rollouts)
    if before:
        plain = draw_mazes(
            config.n_levels, MazeMix(elsewhere=1.0), size=config.size, braid=config.braid, seed=seed
        )
        later = model.get_env()
        model.set_env(environment(config, plain, seed))
        model.learn(before * per_rollout, callback=callback)
        assert later is not None  # `agent` sets one
        model.set_env(later)
    rest = (config.n_rollouts - before) * per_rollout
    model.learn(rest, callback=callback, reset_num_timesteps=not before)


def frozen_gradients(
    config: Config, weights: Float[Tensor, " P"], directory: Path, place: int
) -> ps.Run:
    """As many gradients as a training records, of rollouts of a policy that does not change.

    PPO's own gradients: the same agent at the given weights with a learning rate of zero, trained
    once over every rollout, so that every minibatch is new.

    Args:
        config: Of the training.
        weights: Of the policy and its value.
        directory: Where they are recorded.
        place: A number that makes the levels and moves those of this place.
    """
    with random_state_kept():
        seed = config.seed + _FROZEN + 1_000_000 * place
        model = agent(config, _levels(config, seed), seed, frozen=True)
        load(model.policy, weights)
        n_updates = config.updates_per_rollout // config.n_epochs
        save = {"gradients": _first_of(config, n_updates)}
        n_rows = config.n_rollouts // config.rollouts_per_row
        total = n_rows * config.n_envs * config.rollout
        with ps.Recorder(directory, model.policy, model.policy.optimizer, save=save):
            model.learn(total)
    return ps.open_run(directory)


def load(model: nn.Module, weights: Float[Tensor, " P"]) -> None:
    """Set a model's weights.

    Args:
        model: The model; changed in place.
        weights: In ``named_parameters()`` order.
    """
    table = ps.ParameterTable.from_module(model)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in table.unflatten(weights).items():
            parameters[name].copy_(value)


def _levels(config: Config, seed: int) -> MazeLevels:
    return draw_mazes(config.n_levels, config.mix, size=config.size, braid=config.braid, seed=seed)


def _what_to_save(config: Config) -> dict[str, ps.Schedule]:
    u = config.updates_per_rollout
    first = _first_of(config, u, config.rollouts_per_row)
    rows = ps.every(u * config.rollouts_per_row)
    return {"gradients": first, "updates": first, "weights": rows, "norms": rows}


def _first_of(config: Config, n_updates: int, every: int = 1) -> ps.Schedule:
    """The first minibatches of each rollout: all of one pass, so that no move counts twice."""
    kept = min(config.n_kept, n_updates)
    rollouts = range(0, config.n_rollouts, every)
    return ps.at(*(n_updates * rollout + i for rollout in rollouts for i in range(kept)))


def _probes(config: Config) -> dict[str, Callable[[nn.Module], Tensor]]:
    measured = kinds(probe_config(config))
    seen = torch.from_numpy(
        observations(measured["ordinary"].levels, stars=config.stars)[:N_PICTURES]
    )

    def policy(model: nn.Module) -> Tensor:
        return Logits(model)(seen).log_softmax(1)  # pyright: ignore[reportArgumentType]

    def goals(model: nn.Module) -> Tensor:
        return shares(measured, Logits(model), stars=config.stars)  # pyright: ignore[reportArgumentType]

    return {"policy": policy, "goals": goals}
