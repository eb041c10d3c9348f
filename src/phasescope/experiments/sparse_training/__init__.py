"""Sparse networks and monosemanticity: fixed masks, prune-and-grow, and lottery tickets.

The discussion of "Engineering Monosemanticity in Toy Models" [1] found that a fixed sparse mask
fails, heard that prune-and-grow does much better, and asks whether lottery tickets are more or less
polysemantic. The toy model is trained dense, under fixed random masks, with SET [2] and RigL [3],
and pruned iteratively with rewinding [4], from two initial biases. Settles D14 and D15 of the
catalogue of claims.

Differences from the sources: the discussion gives no set-up; the toys are those of the experiment
`monosemanticity`, masks lie on both matrices, never on the biases, and the regrowth follows RigL's
settings with its interval scaled to the length of the training.

Runtime: see RUNTIME.

References:
    [1] Jermyn, Schiefer & Hubinger (2022), arXiv:2211.09169, and its comment thread.
    [2] Mocanu et al. (2018), arXiv:1707.04780.
    [3] Evci et al. (2020), "Rigging the lottery", arXiv:1911.11134.
    [4] Frankle & Carbin (2019), "The lottery ticket hypothesis", arXiv:1803.03635.
"""

from phasescope.experiments.settings import for_storage
from phasescope.experiments.sparse_training.claims import claims
from phasescope.experiments.sparse_training.config import (
    CLAIM_IDS,
    MONO,
    POLY,
    PRESETS,
    RUNTIME,
    SMOKE,
    SOURCE,
    Config,
    Results,
    setting,
    summary,
)
from phasescope.experiments.sparse_training.figures import figures
from phasescope.experiments.sparse_training.run import load, run

__all__ = [
    "CLAIM_IDS",
    "MONO",
    "POLY",
    "PRESETS",
    "RUNTIME",
    "SMOKE",
    "SOURCE",
    "Config",
    "Results",
    "claims",
    "figures",
    "for_storage",
    "load",
    "run",
    "setting",
    "summary",
]
