"""Measures of networks that compute in a group: spectra, progress measures, algorithms.

All are pure functions on tensors in the order of a group's places; see
`phasescope.datasets.Coordinates` for how tokens come into that order.
"""

from phasescope.analysis.grokking.algorithms import (
    algorithm_templates,
    circularity,
    distance_irrelevance,
    explained,
    gradient_symmetricity,
    isolate_circle,
    symmetricity_triples,
)
from phasescope.analysis.grokking.attention import (
    PatternFit,
    attention_components,
    fit_patterns,
    value_components,
)
from phasescope.analysis.grokking.basis import (
    FourierBasis,
    component_norms,
    fourier_basis,
    fourier_components,
    frequency_power,
)
from phasescope.analysis.grokking.cubes import CubeFit, cube_fit, without_cubes
from phasescope.analysis.grokking.irreps import (
    Irrep,
    irrep_similarities,
    real_irreps,
    trace_cube,
)
from phasescope.analysis.grokking.keys import (
    KeyFrequencies,
    keys_by_energy,
    keys_by_neuron_argmax,
    keys_by_neuron_clusters,
    keys_by_norms,
    keys_by_similarity,
)
from phasescope.analysis.grokking.losses import (
    Loss,
    excluded_logits,
    excluded_loss_per_frequency,
    excluded_neuron_logits,
    pair_losses,
    restricted_logits,
    restricted_neuron_logits,
)
from phasescope.analysis.grokking.measure import (
    ProgressMeasures,
    PureNeurons,
    Sparsity,
    measure,
    pair_masks,
    result_places,
)
from phasescope.analysis.grokking.neurons import NeuronPurity, neuron_purity
from phasescope.analysis.grokking.norms import (
    UpdateNorms,
    frequency_norms,
    squared_norms,
    update_norms,
)
from phasescope.analysis.grokking.numerics import (
    FormatEffect,
    format_effect,
    logit_scale_sensitivity,
    scaling_alignment,
)
from phasescope.analysis.grokking.observation import (
    Observation,
    logits_from_embeddings,
    observe,
)
from phasescope.analysis.grokking.readout import (
    PairComponents,
    ReadOff,
    logit_map_residual,
    pair_components,
    read_off,
)
from phasescope.analysis.grokking.sparsity import (
    gini,
    inverse_participation,
    nanda_gini,
    power_gini,
)
from phasescope.analysis.grokking.sums import (
    DirectionEnergy,
    difference_profile,
    direction_energy,
    on_sums,
    project_profile,
    sum_profile,
)
from phasescope.analysis.grokking.waves import pair_waves

__all__ = [
    "CubeFit",
    "DirectionEnergy",
    "FormatEffect",
    "FourierBasis",
    "Irrep",
    "KeyFrequencies",
    "Loss",
    "NeuronPurity",
    "Observation",
    "PairComponents",
    "PatternFit",
    "ProgressMeasures",
    "PureNeurons",
    "ReadOff",
    "Sparsity",
    "UpdateNorms",
    "algorithm_templates",
    "attention_components",
    "circularity",
    "component_norms",
    "cube_fit",
    "difference_profile",
    "direction_energy",
    "distance_irrelevance",
    "excluded_logits",
    "excluded_loss_per_frequency",
    "excluded_neuron_logits",
    "explained",
    "fit_patterns",
    "format_effect",
    "fourier_basis",
    "fourier_components",
    "frequency_norms",
    "frequency_power",
    "gini",
    "gradient_symmetricity",
    "inverse_participation",
    "irrep_similarities",
    "isolate_circle",
    "keys_by_energy",
    "keys_by_neuron_argmax",
    "keys_by_neuron_clusters",
    "keys_by_norms",
    "keys_by_similarity",
    "logit_map_residual",
    "logit_scale_sensitivity",
    "logits_from_embeddings",
    "measure",
    "nanda_gini",
    "neuron_purity",
    "observe",
    "on_sums",
    "pair_components",
    "pair_losses",
    "pair_masks",
    "pair_waves",
    "power_gini",
    "project_profile",
    "read_off",
    "real_irreps",
    "restricted_logits",
    "restricted_neuron_logits",
    "result_places",
    "scaling_alignment",
    "squared_norms",
    "sum_profile",
    "symmetricity_triples",
    "trace_cube",
    "update_norms",
    "value_components",
    "without_cubes",
]
