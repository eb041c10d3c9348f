"""What a training's gradient spectrum becomes as less and less is there to be learnt.

The thread under the post "Performing an SVD on a time-series matrix of gradient updates on an MNIST
network" [1] asks for controls that interpolate between the training and nothing going on: noise,
shuffled pixels, rows and columns, fewer classes, smaller images, fewer examples, random labels; and
for suboptimal initialisations and optimizers and fewer dimensions. It expects that the statistic
falls smoothly to its null. Settles A22 and A23 of the catalogue of claims.

Differences from the source: it names no network, no levels and no null. Here an MLP 784-32-10 is
trained for 1,000 steps on 6,000 images of its own by each of ten seeds, and one random step in each
of 200 strata is decomposed. The statistic that decides is the number of components above
sign-flipped copies (FlipPA, edge rule without deflation, steps normalised and centred) minus the
same number for as many gradients at the frozen initial weights of the same data. Threshold count
and participation ratio are shown beside. Down-scaled images have fewer inputs, hence fewer
parameters. A subspace of d dimensions is that of Li et al. [2] under Adam, with steps as long as in
all dimensions; the gradients decomposed are those of all parameters. Momentum is varied at a
constant product of learning rate and 1 / (1 - momentum). Images are shuffled and mixed with noise
after they were made smaller.

Runtime on one core: about 20 seconds a level (ten seeds), 40 minutes for all levels.

References:
    [1] G. Baker, LessWrong, with its comment thread.
    [2] Li, Farkhoor, Liu & Yosinski (2018), "Measuring the intrinsic dimension of objective
        landscapes", arXiv:1804.08838.
"""

from phasescope.experiments.settings import for_storage
from phasescope.experiments.spectrum_controls.axes import AXES, PRESETS, SMOKE, Axis
from phasescope.experiments.spectrum_controls.claims import claims
from phasescope.experiments.spectrum_controls.config import (
    CLAIM_IDS,
    RUNTIME,
    SOURCE,
    Config,
    Results,
    summary,
)
from phasescope.experiments.spectrum_controls.figures import figures
from phasescope.experiments.spectrum_controls.run import load, run

DEFAULT = PRESETS["default"][0]

__all__ = [
    "AXES",
    "CLAIM_IDS",
    "DEFAULT",
    "PRESETS",
    "RUNTIME",
    "SMOKE",
    "SOURCE",
    "Axis",
    "Config",
    "Results",
    "claims",
    "figures",
    "for_storage",
    "load",
    "run",
    "summary",
]
