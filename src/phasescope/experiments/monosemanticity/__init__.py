"""Monosemantic neurons in a toy model: same loss, other neurons, hundreds of seeds at a time.

Reproduces "Engineering Monosemanticity in Toy Models" [1] and what its discussion asked for: more
sparse features than dimensions pass one hidden layer, and a learning rate or an initial bias
decides whether each neuron serves one feature or many. Settles D1-D7 of the catalogue of claims.

Differences from the source: the deciding settings have 64 features, 32 dimensions and up to 128
neurons instead of 512, 64 and 1,024 (nearly the same interference between features, .13), batches
of 128, 4,224 steps, and learning-rate cycles of 256 steps instead of 1,024; every training ends
where the learning rate is zero, and the threshold .9 decides beside .99 and .999. The published
size is the preset `replication` (the public replication's steps) and `paper`. 128 seeds where the
source shows one.

Runtime: see RUNTIME; every run says what it will cost before it starts.

References:
    [1] Jermyn, Schiefer & Hubinger (2022), "Engineering Monosemanticity in Toy Models",
        arXiv:2211.09169, and the comment thread of the LessWrong post of that title.
"""

from phasescope.experiments.monosemanticity.claims import claims
from phasescope.experiments.monosemanticity.config import (
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
from phasescope.experiments.monosemanticity.figures import figures
from phasescope.experiments.monosemanticity.run import expected_cost, load, run
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
    "expected_cost",
    "figures",
    "for_storage",
    "load",
    "run",
    "setting",
    "summary",
]
