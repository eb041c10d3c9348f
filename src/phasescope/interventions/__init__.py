"""Acting on training and on weights: subspaces to train in, to project on and to take out."""

from phasescope.interventions.displacement import ALPHAS, Ablation, ablate, ablated
from phasescope.interventions.forking import fork
from phasescope.interventions.gradients import add_noise, chain, keep, remove
from phasescope.interventions.offline import Replay, ReplayCurves, replay, replay_curves
from phasescope.interventions.subspace_training import (
    InSubspace,
    IntrinsicDimension,
    intrinsic_dimension,
)
from phasescope.interventions.subspaces import leading_subspace, random_subspace
from phasescope.interventions.weights import AtWeights, flat_weights

__all__ = [
    "ALPHAS",
    "Ablation",
    "AtWeights",
    "InSubspace",
    "IntrinsicDimension",
    "Replay",
    "ReplayCurves",
    "ablate",
    "ablated",
    "add_noise",
    "chain",
    "flat_weights",
    "fork",
    "intrinsic_dimension",
    "keep",
    "leading_subspace",
    "random_subspace",
    "remove",
    "replay",
    "replay_curves",
]
