"""Induction heads form in attention-only transformers: which heads move, when, and before what.

Trains attention-only transformers of one, two and three layers on a mixture of Markov chains and
repeated random segments, on which the loss on repetitions falls suddenly within a minute, and asks
the questions of the per-component post [1] with the scores of Olsson et al. [2]: whether the heads
that become induction heads stand out in their weight changes, whether those turn at the phase
change, and whether anything announces it. Settles A17, A18 and B8-B15.

Differences from the sources: networks of 45,000 parameters on synthetic data instead of 512-wide
ones on 22 billion tokens of text; checkpoints are evenly spaced; changes are looked at also in
W_Q W_Kᵀ and W_V W_O, which no basis inside a head alters; positions are added to queries and keys
only.

Runtime on one core: about a minute per network of two layers.

References:
    [1] "What's going on with Per-Component Weight Updates?", LessWrong.
    [2] Olsson et al. (2022), "In-context learning and induction heads", arXiv:2209.11895.
"""

from phasescope.experiments.induction_heads.claims import claims
from phasescope.experiments.induction_heads.config import (
    CLAIM_IDS,
    DEFAULT,
    PRESETS,
    RUNTIME,
    SMOKE,
    SOURCE,
    Config,
    Results,
    for_storage,
    setting,
    summary,
)
from phasescope.experiments.induction_heads.figures import figures
from phasescope.experiments.induction_heads.run import disk_bytes, load, run

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
