"""The spectra of a training beside their nulls, and beside those of other optimisation processes.

Whether training made the structure that `gradient_spectrum` finds in the gradients of an MNIST
network: the same counts for gradients resampled at weights that do not move, for entries with
random signs, for norms alone, and for random walks where weights are decomposed. Settles A6, A8 and
A16 of the catalogue of claims, and answers what the source [1] and its discussion asked about
held-out residuals, early steps, sampling, time profiles, and paths of losses and logits.

Differences from the source: it names no null; "nothing going on" is made precise here, see the
rules. Its network and optimizer are unknown: the MLP 784-128-10 under SGD .01, SGD .1 and Adam 1e-3
with batches of 64 is used, as in `gradient_spectrum`. 400 steps of the training, one from each
equal stretch, are compared throughout.

Runtime: see `RUNTIME`; a run writes 1.5 GB (MLP on MNIST) and deletes them at its end.

References:
    [1] G. Baker, LessWrong, with its comment thread.
"""

from phasescope.experiments.gradient_nulls.claims import claims
from phasescope.experiments.gradient_nulls.config import (
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
from phasescope.experiments.gradient_nulls.figures import figures
from phasescope.experiments.gradient_nulls.run import load, run

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
