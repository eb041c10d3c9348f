"""How the experiments train."""

from phasescope.training.loop import accuracy, train

__all__ = ["accuracy", "train"]
