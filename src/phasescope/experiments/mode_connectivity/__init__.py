"""One basin or two: mono- and polysemantic toy models, and classifiers of the published table.

The discussion of "Engineering Monosemanticity in Toy Models" [1] suspects that mono- and
polysemantic solutions lie in different basins, and asks how hard it is to hop. Here families of toy
models on one embedding are trained at two levels and compared after alignment, along straight lines
and trained curves; forks of one run say what counts as flat. Pairs of classifiers repeat cells of
a published table [2, 3]. Settles D9-D13 of the catalogue of claims.

Differences from the sources: toys of the size of the experiment `monosemanticity`; the
monosemantic level has decaying biases beside its other initial bias, without which it never wakes
(a preset lets both levels decay); every batch of the toys is fresh, so that noise of the data and
of batches are one; classifiers are smaller than published (a preset has the published size), and
their momentum, which the table does not give, is .9.

Runtime: see RUNTIME.

References:
    [1] Jermyn, Schiefer & Hubinger (2022), arXiv:2211.09169, and its comment thread.
    [2] Ainsworth, Hayase & Srinivasa (2022), "Git Re-Basin", arXiv:2209.04836.
    [3] S. Fort, notebook on the learning rates at which Git Re-Basin works on MNIST.
    [4] Lubana et al. (2022), "Mechanistic mode connectivity", arXiv:2211.08422.
"""

from phasescope.experiments.mode_connectivity.claims import claims
from phasescope.experiments.mode_connectivity.config import (
    CLAIM_IDS,
    PRESETS,
    RUNTIME,
    SMOKE_TOY,
    SOURCE,
    TOY,
    Config,
    Results,
    setting,
    summary,
)
from phasescope.experiments.mode_connectivity.figures import figures
from phasescope.experiments.mode_connectivity.run import load, run
from phasescope.experiments.settings import for_storage

__all__ = [
    "CLAIM_IDS",
    "PRESETS",
    "RUNTIME",
    "SMOKE_TOY",
    "SOURCE",
    "TOY",
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
