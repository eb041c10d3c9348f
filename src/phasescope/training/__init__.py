"""How the experiments train."""

from phasescope.training.ensemble_optimizers import (
    EnsembleAdam,
    EnsembleOptimizer,
    EnsembleSGD,
    per_seed,
)
from phasescope.training.ensembles import EnsembleGradients, ensemble_gradients, train_ensemble
from phasescope.training.frozen import frozen_gradients
from phasescope.training.loop import accuracy, class_losses, train
from phasescope.training.transform import Transform, transform_gradients, transformed_updates

__all__ = [
    "EnsembleAdam",
    "EnsembleGradients",
    "EnsembleOptimizer",
    "EnsembleSGD",
    "Transform",
    "accuracy",
    "class_losses",
    "ensemble_gradients",
    "frozen_gradients",
    "per_seed",
    "train",
    "train_ensemble",
    "transform_gradients",
    "transformed_updates",
]
