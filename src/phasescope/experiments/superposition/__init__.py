"""Superposition with known geometry: features share dimensions in the shapes of polytopes.

Reproduces "The Geometry of Superposition" of Toy Models of Superposition [1]: autoencoders of
sparse features through a few dimensions, y = ReLU(W Wᵀ x + b), over a sweep of densities. The share
of a dimension that a feature has sticks at the values of regular polytopes. Settles D8, and places
`feature_dimensionality` on geometry that is known.

Differences from the source: the deciding preset has 40 features in 4 dimensions instead of 200 in
20, batches of 128 instead of 1024, 2,500 steps at a learning rate that falls from .003 to zero
instead of 10,000 at .001, and 100 seeds instead of one; the published size is the preset `paper`.

Runtime: see RUNTIME.

References:
    [1] Elhage et al. (2022), "Toy Models of Superposition", transformer-circuits.pub.
"""

from phasescope.experiments.settings import for_storage
from phasescope.experiments.superposition.claims import claims
from phasescope.experiments.superposition.config import (
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
from phasescope.experiments.superposition.figures import figures
from phasescope.experiments.superposition.run import load, run

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
