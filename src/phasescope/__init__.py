"""phasescope: an instrument for watching neural networks learn."""

import importlib
from typing import TYPE_CHECKING, Any

from phasescope.analysis.adam_scales import AdamScales, adam_scales
from phasescope.analysis.alignment import (
    alignments,
    mode_strengths,
    principal_angles,
    relative_spread,
)
from phasescope.analysis.attention_scores import (
    copying,
    icl_score,
    prefix_matching,
    previous_token,
    stripe_score,
)
from phasescope.analysis.basin_map import (
    BasinMap,
    basin_map,
    pairwise_barriers,
    variance_between_basins,
)
from phasescope.analysis.bumps import Bumps, contested, find_bumps, other_targets
from phasescope.analysis.changepoints import ChangePoints, change_points
from phasescope.analysis.composition import Composition, composition
from phasescope.analysis.connectivity import (
    PathValues,
    linear_path,
    path_values,
    random_target,
    state_distance,
)
from phasescope.analysis.direction_changes import direction_changes
from phasescope.analysis.displacement import MeanSquaredDisplacement, mean_squared_displacement
from phasescope.analysis.edges import (
    NoiseEdges,
    edge_p_values,
    gavish_donoho,
    marchenko_pastur_median,
    noise_edges,
    noise_scale,
)
from phasescope.analysis.events import EventDistance, event_distance, profile_edges
from phasescope.analysis.flips import FlipRankTest, flip_rank_test
from phasescope.analysis.frozen import FrozenComparison, compare_with_frozen, effective_dimension
from phasescope.analysis.gradient_statistics import GradientStatistics, gradient_statistics
from phasescope.analysis.gram import Gram, gram
from phasescope.analysis.growth import (
    RankOneState,
    balanced_growth,
    conserved_matrix,
    half_time,
    rank_one_flow,
    rank_one_state,
    saxe_mode,
)
from phasescope.analysis.growth_fit import FittedGrowth, GrowthComparison, compare_growth
from phasescope.analysis.half_batches import HalfBatchNoise, half_batch_noise
from phasescope.analysis.head_changes import (
    HeadChanges,
    head_changes,
    product_distance,
    product_norm,
)
from phasescope.analysis.intervals import Interval, interval
from phasescope.analysis.learning_coefficient import (
    LearningCoefficient,
    local_learning_coefficient,
)
from phasescope.analysis.located import LocatedComponents, located_components
from phasescope.analysis.log_blocks import LogBlocks, log_blocks
from phasescope.analysis.mass import direction_mass
from phasescope.analysis.movers import Movers, movers
from phasescope.analysis.norm_curves import NormShapes, norm_shapes
from phasescope.analysis.online import Alarm, OnlineDetector
from phasescope.analysis.paths import increment_gram, path_p_values, path_walk_null
from phasescope.analysis.permutations import (
    PermutationSymmetry,
    StraightThroughMatching,
    WeightMatching,
    match_activations,
    match_many,
    match_straight_through,
    match_weights,
    permutation_symmetry,
    reestimate_batch_norm,
    repair,
)
from phasescope.analysis.phases import (
    GrokTimes,
    Moment,
    Phase,
    first_reached,
    grok_times,
    grokking_phases,
)
from phasescope.analysis.planes import Plane, PlaneValues, plane_values
from phasescope.analysis.profiles import (
    ProfileStatistic,
    TimeProfiles,
    degenerate_groups,
    time_profiles,
)
from phasescope.analysis.projection import Projection, project
from phasescope.analysis.rank_correlation import RankCorrelation, rank_correlation
from phasescope.analysis.ranks import (
    RankSummary,
    count_above,
    effective_rank,
    energy_rank,
    entropy_rank,
    largest_gap,
    participation_ratio,
    rank_summary,
    stable_rank,
)
from phasescope.analysis.rates import SCurves, first_crossing, s_curves
from phasescope.analysis.residuals import heldout_residuals, mean_alignment, subspace_overlap
from phasescope.analysis.sampling import StepSample, sample_steps, sampled_gram
from phasescope.analysis.sharpness import box_sharpness, hessian_eigenvalues
from phasescope.analysis.slingshots import Slingshots, find_slingshots
from phasescope.analysis.smoothing import ema
from phasescope.analysis.spectrum import (
    NormNull,
    Spectrum,
    norm_null,
    parameter_vectors,
    spectrum,
)
from phasescope.analysis.spikes import (
    Drift,
    Recovery,
    Spikes,
    around_spikes,
    drift_after,
    falling_share,
    find_spikes,
    recovery,
)
from phasescope.analysis.state_measure import StateMeasure
from phasescope.analysis.superposition import (
    FeatureStates,
    dead_neurons,
    dimensions_per_feature,
    explained_share,
    feature_dimensionality,
    feature_states,
    interference,
    mono_fraction,
    neuron_selectivity,
)
from phasescope.analysis.surrogates import flipped_grams
from phasescope.analysis.tracy_widom import tracy_widom_cdf, tracy_widom_quantile
from phasescope.analysis.transitions import Transition, Transitions, find_transitions
from phasescope.analysis.turning import TurningPoints, turning_points
from phasescope.analysis.turns import TurningTest, curvature, turning_angles, turning_test
from phasescope.analysis.updates import UpdateStatistics, update_statistics
from phasescope.analysis.variances import parameter_variances
from phasescope.analysis.vision_scores import VisionNull, VisionScores
from phasescope.analysis.walks import (
    WalkNull,
    random_walk_time_vectors,
    random_walk_values,
    walk_null,
)
from phasescope.analysis.whitening import whitened_gram
from phasescope.components.description import Structure
from phasescope.components.layers import structure
from phasescope.components.selectors import components
from phasescope.components.subspace import Subspace
from phasescope.parameters import Component, ParameterTable
from phasescope.trajectory.importing import import_checkpoints
from phasescope.trajectory.reader import Run, delete_group, open_run
from phasescope.trajectory.recorder import Recorder
from phasescope.trajectory.schedule import Schedule, at, every, log_spaced
from phasescope.trajectory.series import Series
from phasescope.trajectory.sketch import CountSketch

if TYPE_CHECKING:
    from phasescope import figures, report

__all__ = [
    "hessian_eigenvalues",
    "box_sharpness",
    "local_learning_coefficient",
    "AdamScales",
    "Alarm",
    "BasinMap",
    "Bumps",
    "ChangePoints",
    "Component",
    "Composition",
    "CountSketch",
    "Drift",
    "EventDistance",
    "FeatureStates",
    "FittedGrowth",
    "FlipRankTest",
    "FrozenComparison",
    "GradientStatistics",
    "Gram",
    "GrokTimes",
    "GrowthComparison",
    "HalfBatchNoise",
    "HeadChanges",
    "Interval",
    "LearningCoefficient",
    "LocatedComponents",
    "LogBlocks",
    "MeanSquaredDisplacement",
    "Moment",
    "Movers",
    "NoiseEdges",
    "NormNull",
    "NormShapes",
    "OnlineDetector",
    "ParameterTable",
    "PathValues",
    "PermutationSymmetry",
    "Phase",
    "Plane",
    "PlaneValues",
    "ProfileStatistic",
    "Projection",
    "RankCorrelation",
    "RankOneState",
    "RankSummary",
    "Recorder",
    "Recovery",
    "Run",
    "SCurves",
    "Schedule",
    "Series",
    "Slingshots",
    "Spectrum",
    "Spikes",
    "StateMeasure",
    "StepSample",
    "StraightThroughMatching",
    "Structure",
    "Subspace",
    "TimeProfiles",
    "Transition",
    "Transitions",
    "TurningPoints",
    "TurningTest",
    "UpdateStatistics",
    "VisionNull",
    "VisionScores",
    "WalkNull",
    "WeightMatching",
    "adam_scales",
    "alignments",
    "around_spikes",
    "at",
    "balanced_growth",
    "basin_map",
    "change_points",
    "compare_growth",
    "compare_with_frozen",
    "components",
    "composition",
    "conserved_matrix",
    "contested",
    "copying",
    "count_above",
    "curvature",
    "dead_neurons",
    "degenerate_groups",
    "delete_group",
    "dimensions_per_feature",
    "direction_changes",
    "direction_mass",
    "drift_after",
    "edge_p_values",
    "effective_dimension",
    "effective_rank",
    "ema",
    "energy_rank",
    "entropy_rank",
    "event_distance",
    "every",
    "explained_share",
    "falling_share",
    "feature_dimensionality",
    "feature_states",
    "figures",
    "find_bumps",
    "find_slingshots",
    "find_spikes",
    "find_transitions",
    "first_crossing",
    "first_reached",
    "flip_rank_test",
    "flipped_grams",
    "gavish_donoho",
    "gradient_statistics",
    "gram",
    "grok_times",
    "grokking_phases",
    "half_batch_noise",
    "half_time",
    "head_changes",
    "heldout_residuals",
    "icl_score",
    "import_checkpoints",
    "increment_gram",
    "interference",
    "interval",
    "largest_gap",
    "linear_path",
    "located_components",
    "log_blocks",
    "log_spaced",
    "marchenko_pastur_median",
    "match_activations",
    "match_many",
    "match_straight_through",
    "match_weights",
    "mean_alignment",
    "mean_squared_displacement",
    "mode_strengths",
    "mono_fraction",
    "movers",
    "neuron_selectivity",
    "noise_edges",
    "noise_scale",
    "norm_null",
    "norm_shapes",
    "open_run",
    "other_targets",
    "pairwise_barriers",
    "parameter_variances",
    "parameter_vectors",
    "participation_ratio",
    "path_p_values",
    "path_values",
    "path_walk_null",
    "permutation_symmetry",
    "plane_values",
    "prefix_matching",
    "previous_token",
    "principal_angles",
    "product_distance",
    "product_norm",
    "profile_edges",
    "project",
    "random_target",
    "random_walk_time_vectors",
    "random_walk_values",
    "rank_correlation",
    "rank_one_flow",
    "rank_one_state",
    "rank_summary",
    "recovery",
    "reestimate_batch_norm",
    "relative_spread",
    "repair",
    "report",
    "s_curves",
    "sample_steps",
    "sampled_gram",
    "saxe_mode",
    "spectrum",
    "stable_rank",
    "state_distance",
    "stripe_score",
    "structure",
    "subspace_overlap",
    "time_profiles",
    "tracy_widom_cdf",
    "tracy_widom_quantile",
    "turning_angles",
    "turning_points",
    "turning_test",
    "update_statistics",
    "variance_between_basins",
    "walk_null",
    "whitened_gram",
]


def __getattr__(name: str) -> Any:
    """Load the subpackages that draw only when they are used: plotly costs time to import."""
    if name in ("figures", "report"):
        return importlib.import_module(f"phasescope.{name}")
    raise AttributeError(f"module 'phasescope' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, those that load on use included."""
    return sorted(__all__)
