"""Whether low-rank gradients suffice: training with updates projected on k directions.

Asked in the thread of the post "Performing an SVD on a time-series matrix of gradient updates on an
MNIST network" [1]: use the low-rank approximation of the gradients and look at the loss of the
alternative model. Settles A20 and A21 of the catalogue of claims. A training is recorded, its k
leading directions are taken, and the model is trained again with every update projected on them
(online, in the original and in a fresh order of the data); or the recorded updates are projected
after the fact (offline). Always beside it: the complement, k random directions, k directions of a
run with another order or another initialisation, and k directions of gradients at frozen weights.

Differences from the source: it names no network and no optimizer, so a small MLP 784-32-10 is
trained for 1,000 steps (about one epoch) with SGD .1 and with Adam 1e-3; for Adam, whose update is
not linear in the gradient, the updates are decomposed and projected, which for SGD is the same as
the gradients. The random subspaces are those of Li et al. [2], but trained as long and with the
same optimizer as the rest, at the best of three learning rates.

Runtime: see RUNTIME; a seed trains about a hundred models at once.

References:
    [1] G. Baker, LessWrong, with its comment thread.
    [2] Li et al. (2018), "Measuring the intrinsic dimension of objective landscapes",
        arXiv:1804.08838.
"""

from phasescope.experiments.low_rank_replay.claims import claims
from phasescope.experiments.low_rank_replay.config import (
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
from phasescope.experiments.low_rank_replay.figures import figures
from phasescope.experiments.low_rank_replay.run import load, run

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
