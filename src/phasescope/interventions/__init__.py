"""Acting on training and on weights: subspaces to train in, to project on and to take out."""

from phasescope.interventions.subspace_training import (
    InSubspace,
    IntrinsicDimension,
    intrinsic_dimension,
)
from phasescope.interventions.subspaces import leading_subspace, random_subspace
from phasescope.interventions.weights import AtWeights, flat_weights

__all__ = [
    "AtWeights",
    "InSubspace",
    "IntrinsicDimension",
    "flat_weights",
    "intrinsic_dimension",
    "leading_subspace",
    "random_subspace",
]
