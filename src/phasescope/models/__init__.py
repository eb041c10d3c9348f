"""Models that several experiments share."""

from phasescope.models.convnet import ConvNet
from phasescope.models.evaluation import evaluating
from phasescope.models.mlp import MLP, seeded

__all__ = ["MLP", "ConvNet", "evaluating", "seeded"]
