"""Named parts of a model's parameters: tensors, layers, heads, neurons, subspaces."""

from phasescope.components.description import Cut, Heads, Layer, Neurons, Structure
from phasescope.components.factors import HeadFactors, head_factors
from phasescope.components.layers import structure
from phasescope.components.norms import ComponentNorms
from phasescope.components.selectors import Components, components
from phasescope.components.subspace import Subspace
from phasescope.components.tree import component_lines
from phasescope.components.verify import verify

__all__ = [
    "ComponentNorms",
    "Components",
    "Cut",
    "HeadFactors",
    "Heads",
    "Layer",
    "Neurons",
    "Structure",
    "Subspace",
    "component_lines",
    "components",
    "head_factors",
    "structure",
    "verify",
]
