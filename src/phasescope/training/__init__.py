"""How the experiments train."""

from phasescope.training.frozen import frozen_gradients
from phasescope.training.loop import accuracy, class_losses, train
from phasescope.training.transform import Transform, transform_gradients, transformed_updates

__all__ = [
    "Transform",
    "accuracy",
    "class_losses",
    "frozen_gradients",
    "train",
    "transform_gradients",
    "transformed_updates",
]
