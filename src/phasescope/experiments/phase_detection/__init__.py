"""Which cheap signal tells a grok, how early and in which component: detectors scored on truth.

The source looked for a detector of phase changes in norms of weights, gradients and updates, and
asked for a data set of known groks. Here trainings with known events (`ps.datasets.transitions`:
grokking, S-curves, features, sparse parity, induction heads, the end of a bias-only phase, planted
spikes, slingshots) and others without any are searched by every detector of `phasescope.analysis`
on every signal. Settles B19 and B20.

Differences from the source: it has no data set, no detector and no rates, so there is nothing to
reproduce but the question. Networks are small, and five of the 13 systems with events grok.

Runtime: see RUNTIME.

References:
    "What's going on with Per-Component Weight Updates?" (LessWrong). Olsson et al. (2022),
    arXiv:2209.11895. Nanda et al. (2023), arXiv:2301.05217. Gromov (2023), arXiv:2301.02679.
"""

from phasescope.experiments.phase_detection.claims import claims
from phasescope.experiments.phase_detection.config import (
    CLAIM_IDS,
    DEFAULT,
    PRESETS,
    RUNTIME,
    SMOKE,
    SOURCE,
    Config,
    Results,
    summary,
)
from phasescope.experiments.phase_detection.figures import figures
from phasescope.experiments.phase_detection.run import load, run
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
    "summary",
]
