"""Goals in a maze: what gradients learn early and late, and whether it can be taken out.

The plan of the post "Performing an SVD on a time-series matrix of gradient updates on an MNIST
network" [1]: an agent learns to go to the corner, and to the cheese; the time profile of singular
vectors should tell which directions carry which, and taking those out should remove one goal and
spare the other. Settles A24 to A28 of the catalogue of claims, with the controls that such a claim
needs: random directions as long, the whole displacement shrunk, an earlier checkpoint, directions
of another run and of a policy that stands still.

Differences from the source: it has not been run there, and neither network nor mazes are given.
Here mazes of 7 × 7 places with loops, an agent of two convolutions trained by PPO of
Stable-Baselines3, and levels of three kinds: cheese in the corner, anywhere, or in the corner and
not shown, without which the corner is forgotten once the cheese is found. The preset ``procgen``
has the scale of the experiments in mazes that are known [2]: mazes of 25 × 25, IMPALA, 200 million
moves.

The preset ``paper`` has the settings of all claims; `phasescope list` tells what a seed costs.

References:
    [1] G. Baker, LessWrong, with its comment thread.
    [2] Langosco et al. (2022), "Goal misgeneralization in deep reinforcement learning",
        arXiv:2105.14111.
"""

from phasescope.experiments.maze_goals.claims import claims
from phasescope.experiments.maze_goals.config import (
    CLAIM_IDS,
    DEFAULT,
    PRESETS,
    RUNTIME,
    SMOKE,
    SOURCE,
    Config,
    Results,
    disk_bytes,
    for_storage,
    setting,
    summary,
)
from phasescope.experiments.maze_goals.figures import figures
from phasescope.experiments.maze_goals.run import load, run

__all__ = [
    "CLAIM_IDS",
    "DEFAULT",
    "PRESETS",
    "RUNTIME",
    "SMOKE",
    "SOURCE",
    "Config",
    "Results",
    "claims",
    "disk_bytes",
    "figures",
    "for_storage",
    "load",
    "run",
    "setting",
    "summary",
]
