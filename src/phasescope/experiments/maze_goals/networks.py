"""The networks of the agents, and the agents: PPO of Stable-Baselines3.

Only `run` imports this module, since it needs the extra `rl`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from phasescope.datasets import MazeBatch, MazeLevels
from phasescope.experiments.maze_goals.config import Config
from phasescope.integrations.mazes import MazeVecEnv

_IMPALA = (16, 32, 32)  # channels of the blocks


class Trunk(BaseFeaturesExtractor):
    """What the heads for moves and for the value share.

    Args:
        space: Space of the observations.
        network: ``"mlp"``: two hidden layers. ``"conv"``: two 3 × 3 convolutions, the second with
            stride two, and one layer. ``"impala"``: three blocks of a convolution, a maximum and
            two residual parts, and one layer (Espeholt et al. 2018, figure 3, without memory).
        width: Units of the last layer.
        channels: Of the convolutions of ``"conv"``.
    """

    def __init__(self, space: spaces.Box, network: str, width: int, channels: int) -> None:
        super().__init__(space, width)
        n_channels, n, _ = space.shape
        if network == "mlp":
            layers: list[nn.Module] = [
                nn.Flatten(), nn.Linear(n_channels * n * n, width), nn.ReLU(),
                nn.Linear(width, width), nn.ReLU(),
            ]  # fmt: skip
        elif network == "conv":
            layers = [
                nn.Conv2d(n_channels, channels, 3, padding=1), nn.ReLU(),
                nn.Conv2d(channels, channels, 3, stride=2, padding=1), nn.ReLU(),
                nn.Flatten(), nn.Linear(channels * ((n + 1) // 2) ** 2, width), nn.ReLU(),
            ]  # fmt: skip
        else:
            layers, before = [], n_channels
            for after in _IMPALA:
                layers += [nn.Conv2d(before, after, 3, padding=1), nn.MaxPool2d(3, 2, 1)]
                layers += [Residual(after), Residual(after)]
                before, n = after, (n + 1) // 2
            layers += [nn.ReLU(), nn.Flatten(), nn.Linear(before * n * n, width), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, seen: Tensor) -> Tensor:
        """The last hidden layer."""
        return self.layers(seen)


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        return x + self.second(torch.relu(self.first(torch.relu(x))))


class Logits(nn.Module):
    """The moves' logits of a policy, with its parameters in its order: what `AtWeights` calls."""

    def __init__(self, policy: ActorCriticPolicy) -> None:
        super().__init__()
        self.trunk = policy.features_extractor
        self.action_net, self.value_net = policy.action_net, policy.value_net

    def forward(self, seen: Float[Tensor, "env channel n n"]) -> Float[Tensor, "env 4"]:
        """Logits of the four moves."""
        return self.action_net(self.trunk(seen))


def agent(config: Config, levels: MazeLevels, seed: int, *, frozen: bool = False) -> PPO:
    """An untrained agent in its mazes.

    Args:
        config: Of the training.
        levels: What it is trained on.
        seed: Of its initial weights, its moves, its minibatches and of the order of levels.
        frozen: With a learning rate of zero: gradients are taken, once over each rollout, and
            nothing moves.
    """
    return PPO(
        "MlpPolicy",
        environment(config, levels, seed),
        n_steps=config.rollout,
        batch_size=config.batch_size,
        n_epochs=1 if frozen else config.n_epochs,
        learning_rate=0.0 if frozen else config.learning_rate,
        gamma=config.gamma,
        gae_lambda=0.95,
        clip_range=0.2,
        ent_coef=config.entropy,
        max_grad_norm=0.5,
        seed=seed,
        device="cpu",
        policy_kwargs={
            "features_extractor_class": Trunk,
            "features_extractor_kwargs": {
                "network": config.network,
                "width": config.width,
                "channels": config.channels,
            },
            "net_arch": [],
        },
    )


def environment(config: Config, levels: MazeLevels, seed: int) -> MazeVecEnv:
    """The mazes as the agent sees them.

    Args:
        config: Of the training.
        levels: What is played.
        seed: Of the order of levels.
    """
    batch = MazeBatch(
        levels, config.n_envs, seed=seed, corner_ends=config.corner_ends, stars=config.stars
    )
    return MazeVecEnv(batch)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put the global random states back afterwards, which Stable-Baselines3 sets and uses."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002
