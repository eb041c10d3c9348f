"""How the experiments train."""

from phasescope.training.frozen import frozen_gradients
from phasescope.training.loop import accuracy, train

__all__ = ["accuracy", "frozen_gradients", "train"]
