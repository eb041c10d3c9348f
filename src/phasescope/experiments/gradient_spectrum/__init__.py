"""The singular values of a training's gradients, all steps, beside what their norms alone give.

Reproduces the post "Performing an SVD on a time-series matrix of gradient updates on an MNIST
network" [1]: two epochs of MNIST, every gradient recorded, and the number of singular values above
10% of the largest. Settles A1-A5 and A7 of the catalogue of claims.

Differences from the source: it does not name its network or optimizer, so a grid is run (an MLP
784-128-10 and the network of PyTorch's MNIST example, SGD .01, SGD .1 and Adam 1e-3, batches of 60
and 64). It decomposed 300 or 400 of the 2,000 steps, since all of them did not fit into memory;
here all steps are recorded and decomposed, and its samples are drawn from them. Its residual "of
about 1" has no unit; here it is relative to the step's norm.

Runtime on two cores: a seed of the MLP takes about 20 seconds, one of the convolutional network
about three minutes and 9 GB of disk while it runs.

References:
    [1] G. Baker, LessWrong, with its comment thread.
"""

from phasescope.experiments.gradient_spectrum.claims import claims
from phasescope.experiments.gradient_spectrum.config import (
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
from phasescope.experiments.gradient_spectrum.figures import figures
from phasescope.experiments.gradient_spectrum.run import load, run

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
