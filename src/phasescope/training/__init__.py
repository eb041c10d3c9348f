"""How the experiments train."""

from phasescope.training.ensemble_lamb import DecayingBiases, EnsembleLAMB, cosine_cycles
from phasescope.training.ensemble_optimizers import (
    EnsembleAdam,
    EnsembleOptimizer,
    EnsembleSGD,
    per_seed,
)
from phasescope.training.ensemble_steps import EnsembleSteps
from phasescope.training.ensembles import EnsembleGradients, ensemble_gradients, train_ensemble
from phasescope.training.frozen import frozen_gradients
from phasescope.training.full_batch import (
    TrainingCurves,
    cross_entropy_float32,
    cross_entropy_float64,
    squared_error,
    train_full_batch,
)
from phasescope.training.loop import accuracy, class_losses, train
from phasescope.training.rates import LearningRate
from phasescope.training.rejecting import Rejecting
from phasescope.training.transform import Transform, transform_gradients, transformed_updates

__all__ = [
    "DecayingBiases",
    "EnsembleAdam",
    "EnsembleGradients",
    "EnsembleLAMB",
    "EnsembleOptimizer",
    "EnsembleSGD",
    "EnsembleSteps",
    "LearningRate",
    "Rejecting",
    "TrainingCurves",
    "Transform",
    "accuracy",
    "class_losses",
    "cosine_cycles",
    "cross_entropy_float32",
    "cross_entropy_float64",
    "ensemble_gradients",
    "frozen_gradients",
    "per_seed",
    "squared_error",
    "train",
    "train_ensemble",
    "train_full_batch",
    "transform_gradients",
    "transformed_updates",
]
