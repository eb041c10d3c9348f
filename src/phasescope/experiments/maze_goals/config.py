"""What is trained, on which mazes, and what comes out of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from phasescope.datasets import MazeLevels, MazeMix, Walks
from phasescope.experiments.settings import grouped

SOURCE = "G. Baker, SVD of a time series of gradient updates (LessWrong): its plan for an RL maze"
RUNTIME = (
    "one core: a minute and a half a seed, half a minute with stars; preset procgen: four days"
)
CLAIM_IDS = ("A24", "A25", "A26", "A27", "A28")


@dataclass(frozen=True)
class Config:
    """One agent on one mixture of mazes."""

    size: int = 7  # side of the mazes, odd
    braid: float = 0.3  # how many walls are opened: loops
    region: int = 1  # the cheese lies in the region² places at the corner; 1: in the corner
    elsewhere: float = 0.25  # share of the levels whose cheese is anywhere
    hidden: float = 0.25  # share of the levels whose cheese is in the corner and not shown
    from_corner: float = 0.0  # share of the levels that start in the corner
    star_only: float = 0.0  # share of the levels with a star and no cheese
    with_star: float = 0.0  # share of the levels with a star beside the cheese
    stars_from: float = 0.0  # share of the training before any level has a star
    corner_ends: bool = False  # whether reaching the corner ends an episode
    n_levels: int = 20_000  # levels that are trained on
    network: Literal["conv", "mlp", "impala"] = "conv"
    width: int = 64  # units of the last layer before the heads
    channels: int = 16  # of the convolutions; the MLP has none
    n_envs: int = 256  # agents at once
    rollout: int = 32  # moves of each agent between two trainings
    batch_size: int = 2048  # moves in a minibatch
    n_epochs: int = 4  # passes over the moves of a rollout
    learning_rate: float = 2e-3  # of Adam
    gamma: float = 0.97  # discount for each move
    entropy: float = 0.01  # weight of the entropy in the loss
    n_moves: int = 401_408  # moves of the whole training: 49 rollouts
    n_kept: int = 4  # gradients of each rollout that are recorded: those of the first minibatches
    rollouts_per_row: int = 1  # of how many rollouts one is recorded
    n_levels_measured: int = 200  # levels of each kind that behaviour is measured on
    interventions: bool = True  # whether to record beside it another run and frozen policies
    seed: int = 0

    @property
    def mix(self) -> MazeMix:
        """The levels that are trained on."""
        return MazeMix(
            self.region,
            self.elsewhere,
            self.hidden,
            self.from_corner,
            self.star_only,
            self.with_star,
        )

    @property
    def stars(self) -> bool:
        """Whether there are stars in any level."""
        return self.star_only + self.with_star > 0

    @property
    def n_rollouts(self) -> int:
        """Number of rollouts of the whole training."""
        return -(-self.n_moves // (self.n_envs * self.rollout))

    @property
    def updates_per_rollout(self) -> int:
        """Number of updates after each rollout."""
        return self.n_epochs * -(-self.n_envs * self.rollout // self.batch_size)


DEFAULT = Config()
SMOKE = Config(
    size=5,
    n_levels=50,
    width=16,
    channels=4,
    n_envs=16,
    rollout=16,
    batch_size=128,
    n_epochs=2,
    n_moves=16 * 16 * 12,
    n_kept=2,
    n_levels_measured=40,
)
REGION = replace(DEFAULT, region=3, elsewhere=0.0, hidden=0.0, interventions=False)
STARS = replace(DEFAULT, size=5, elsewhere=1.0, hidden=0.0, n_moves=30 * 8192)
MIXTURES: dict[str, Config] = {
    "one goal a level, half stars": replace(STARS, star_only=0.5),
    "one goal a level, a tenth stars": replace(STARS, star_only=0.1),
    "both goals in every level": replace(STARS, with_star=1.0),
    "cheese first, half stars from the middle on": replace(STARS, star_only=0.5, stars_from=0.5),
}
"""The training mixtures of A28, by name."""
PROCGEN = Config(
    size=25,
    braid=0.0,
    region=5,
    elsewhere=0.0,
    hidden=0.0,
    n_levels=100_000,
    network="impala",
    width=256,
    rollout=256,
    batch_size=8192,
    n_epochs=3,
    learning_rate=5e-4,
    gamma=0.999,
    n_moves=200_000_000,
    n_kept=1,
    rollouts_per_row=8,
    n_levels_measured=100,
    interventions=False,
)
PRESETS: dict[str, tuple[Config, ...]] = {
    "smoke": (SMOKE,),
    "default": (DEFAULT,),
    "paper": (DEFAULT, REGION, replace(REGION, network="mlp"), *MIXTURES.values()),
    "procgen": (PROCGEN,),
}


@dataclass(frozen=True)
class Replay:
    """One agent's way through some levels, under a name for the figure with the slider."""

    name: str
    """What was done to the agent."""
    walks: Walks
    """Its ways."""


@dataclass(frozen=True)
class Detail:
    """What the figures of one run need beyond the numbers."""

    levels: MazeLevels
    """The levels of the replays."""
    replays: Sequence[Replay]
    """The ways through them, before and after each ablation."""


@dataclass(frozen=True)
class Results:
    """One run: its configuration, every number as plain JSON, and what the figures need."""

    config: Config
    numbers: dict[str, Any]
    detail: Detail | None = None


def setting(config: Config) -> str:
    """The setting of a run without its seed: ``corner and cheese``; other fields are added."""
    names = {replace(config_, seed=0): name for name, config_ in NAMED.items()}
    known = names.get(replace(config, seed=0))
    if known is not None:
        return known
    changed = [
        f"{name} {value}"
        for name, value in asdict(config).items()
        if name != "seed" and value != getattr(DEFAULT, name)
    ]
    return ", ".join(changed)


CORNER = "corner and cheese"
NEAR = "cheese near the corner"
NEAR_MLP = "cheese near the corner, MLP"
NAMED: dict[str, Config] = {
    CORNER: DEFAULT,
    NEAR: REGION,
    NEAR_MLP: replace(REGION, network="mlp"),
    **{f"stars: {name}": config for name, config in MIXTURES.items()},
    "procgen": PROCGEN,
    "smoke": SMOKE,
}
"""The settings that have a name."""


def group_by_setting(results: Sequence[Results]) -> dict[str, list[Results]]:
    """The runs of every setting, settings in the order in which they come."""
    return grouped(results, lambda r: setting(r.config))


def for_storage(results: Sequence[Results]) -> list[dict[str, Any]]:
    """Every run's configuration and numbers; the ways through mazes of the first of a setting."""
    first = {id(runs[0]) for runs in group_by_setting(results).values()}
    return [
        {
            "config": asdict(result.config),
            "numbers": {
                name: value
                for name, value in result.numbers.items()
                if name != "replays" or id(result) in first
            },
        }
        for result in results
    ]


def summary(result: Results) -> dict[str, float]:
    """The numbers of a run that a sweep shows."""
    return {name: values[0] for name, values in result.numbers["final"].items()}


def disk_bytes(config: Config) -> int:
    """Bytes that a run writes while it runs."""
    n_weights = {"conv": 20_000, "mlp": 15_000, "impala": 230_000}[config.network]
    rows = config.n_rollouts // config.rollouts_per_row
    beside = 1 + 2 * config.interventions
    return 4 * n_weights * rows * (2 * config.n_kept + 1) * beside
