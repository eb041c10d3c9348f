"""Permutations of hidden units: derived from a model, and found between two models."""

from phasescope.analysis.permutations.activations import match_activations
from phasescope.analysis.permutations.derivation import permutation_symmetry
from phasescope.analysis.permutations.statistics import reestimate_batch_norm, repair
from phasescope.analysis.permutations.straight_through import (
    StraightThroughMatching,
    match_straight_through,
)
from phasescope.analysis.permutations.symmetry import Group, PermutationSymmetry
from phasescope.analysis.permutations.weights import WeightMatching, match_many, match_weights

__all__ = [
    "Group",
    "PermutationSymmetry",
    "StraightThroughMatching",
    "WeightMatching",
    "match_activations",
    "match_many",
    "match_straight_through",
    "match_weights",
    "permutation_symmetry",
    "reestimate_batch_norm",
    "repair",
]
