"""Grokking of arithmetic and of other groups: operations, activations, optimizers.

Reproduces the network of "Progress measures for grokking via mechanistic interpretability" [1] and
the post that changed its operation and activation [2]. Full-batch training with a float64 loss;
every step's losses and accuracies on training and test pairs are recorded.

Differences from the sources: by default the modulus is 53 and the network three eighths as wide,
with half of the pairs to train on and a weight decay of 2.5, so that a grok takes a minute; the
preset ``paper`` has their sizes. Seeds of the split and of the initial weights are apart. Verdicts
come from ten seeds of every setting, trained as one batch: the presets ``grid`` (operations and
activations), ``optimizers`` and ``sizes``, all three together as ``small``, and with two seeds of
the published size beside them, of subtraction also for longer, as ``everything``.

Runtime on two cores: the default a minute, a batch of ten seeds three minutes of one core, a
published run of 25,000 steps half an hour.

References:
    [1] Nanda et al. (2023), arXiv:2301.05217.
    [2] LessWrong, on modular addition extended to other operations and activations.
"""

from phasescope.experiments.grokking.claims import claims
from phasescope.experiments.grokking.config import (
    CLAIM_IDS,
    DEFAULT,
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
from phasescope.experiments.grokking.figures import figures
from phasescope.experiments.grokking.presets import PRESETS
from phasescope.experiments.grokking.run import load, run

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
