"""Gradient norms of a ResNet's layers over training: what falls first, what rises, and why.

The per-component-updates post trains ResNet-18 on CIFAR-10 and reads gradient norms per parameter:
early layers settle first, batch norms and downsampling rise after a first drop, later layers show
something like a double descent, the final layer falls monotonically. Here every statement has a
decision rule, noise is subtracted, and the candidate explanation of the rise (scale invariance and
weight decay) is tested with the norms of gradient times weights, and without decay. Two questions
of its discussion are taken along, freezing layers in sequence and joining layers of two networks,
and what single channels answer to: whether they, and what reads them, slow down once they score.

Differences from the source in the preset `default`: 8 instead of 64 channels, images of 16 pixels,
512 of them, batches of 32, 768 steps. Norms of scale-invariant tensors find their balance within
(1 - momentum) / (2 rate decay) steps, 10,000 in the source; so that the training lasts three of
them, rate times decay is raised forty times, to 2e-4. The preset `paper` is the source's recipe.

Runtime: see RUNTIME.

References:
    "What's going on with Per-Component Weight Updates?" (LessWrong).
    van Laarhoven (2017), arXiv:1706.05350 (scale invariance and weight decay).
    Brock et al. (2017), "FreezeOut", arXiv:1706.04983.
    Bansal, Nakkiran & Barak (2021), "Revisiting model stitching", arXiv:2106.07682.
"""

from phasescope.experiments.resnet_gradients.claims import claims
from phasescope.experiments.resnet_gradients.config import (
    CLAIM_IDS,
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
from phasescope.experiments.resnet_gradients.figures import figures
from phasescope.experiments.resnet_gradients.run import disk_bytes, load, run

__all__ = [
    "CLAIM_IDS",
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
