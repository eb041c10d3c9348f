"""Plateaus, S-curves and bumps of a matrix factorization, hundreds of seeds at a time.

Reproduces the post "Multi-Component Learning and S-Curves" and its comment thread [1]: a target C =
A Bᵀ of rank 1, 2, 10 or 100 (d = 100) is learned by X Yᵀ from random factors. Settles E1-E11 of the
catalogue of claims; E12, whether a sub-circuit of a real network follows this model, is decided by
the experiment `grokking` with `phasescope.compare_growth`.

Differences from the source: 128 seeds per setting where it shows up to 10, statistics with
intervals where it argues from curves, and the exact four-equation theory beside rank one. The
source names no learning rates; entries of A, B, X and Y are N(0, 1/d) here instead of N(0, 1),
which at learning rate η is the same problem as entries N(0, 1) at η/d. The softmax losses keep
N(0, 1).

Runtime on two cores: 3 to 60 seconds per setting of 128 seeds, 15 minutes for all 38.

References:
    [1] A. Jermyn and B. Shlegeris, "Multi-Component Learning and S-Curves", LessWrong, and thread.
"""

from phasescope.experiments.s_curves.claims import claims
from phasescope.experiments.s_curves.config import (
    CLAIM_IDS,
    DEFAULT,
    PRESETS,
    RUNTIME,
    SMOKE,
    SOURCE,
    Config,
    Results,
    setting,
    summary,
)
from phasescope.experiments.s_curves.figures import figures
from phasescope.experiments.s_curves.run import load, run
from phasescope.experiments.settings import for_storage

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
    "figures",
    "for_storage",
    "load",
    "run",
    "setting",
    "summary",
]
