"""Results drawn with plotly; nothing is computed here beyond what is visual."""

from phasescope.figures.ablations import ablation_curves
from phasescope.figures.alternatives import (
    DirectionCurve,
    DirectionPanel,
    curves_by_directions,
    losses_over_steps,
)
from phasescope.figures.basin_maps import basin_map
from phasescope.figures.basins import basin_paths, loss_plane
from phasescope.figures.bundles import Bundle, curves_beside_nulls
from phasescope.figures.counts import SettingCounts, counts_against_dropped_steps, counts_by_setting
from phasescope.figures.curves import metrics_over_time, norms_over_time, training_curves
from phasescope.figures.dimensionality import dimensionality_levels
from phasescope.figures.effects import (
    MassAndEffect,
    component_frequencies,
    mass_against_effect,
)
from phasescope.figures.feature_neurons import (
    MeanCurve,
    activations_over_training,
    bias_against_selectivity,
    means_against,
)
from phasescope.figures.grokking import Stretch, grokking_curves, measures_over_training
from phasescope.figures.growth import (
    SeedCurves,
    SettingValues,
    alignment_over_training,
    seed_curves,
    values_by_setting,
)
from phasescope.figures.heads import heads_over_training, paths_of_losses
from phasescope.figures.levels import LevelPanel, statistic_by_level
from phasescope.figures.live import BlockCurve, curves_so_far, norms_so_far
from phasescope.figures.located import component_overlaps
from phasescope.figures.matrices import MatrixFrame, matrices_on_slider
from phasescope.figures.mazes import goals_over_training, maze_walks
from phasescope.figures.movie import network_movie
from phasescope.figures.multiples import CurvePanel, curves_by_setting
from phasescope.figures.network import NetworkFrame, network_animation, network_over_training
from phasescope.figures.norm_panels import norms_by_kind
from phasescope.figures.paths import explained_variance, principal_plane, principal_scores
from phasescope.figures.profiles import time_profiles
from phasescope.figures.residuals import ResidualCurve, residual_curve
from phasescope.figures.scales import scales_over_training
from phasescope.figures.scree import scree
from phasescope.figures.spectra import time_vectors
from phasescope.figures.strips import seed_strips
from phasescope.figures.turns import component_profiles, path_and_bends
from phasescope.figures.vision_units import unit_scores

__all__ = [
    "BlockCurve",
    "Bundle",
    "CurvePanel",
    "DirectionCurve",
    "DirectionPanel",
    "LevelPanel",
    "MassAndEffect",
    "MatrixFrame",
    "MeanCurve",
    "NetworkFrame",
    "ResidualCurve",
    "SeedCurves",
    "SettingCounts",
    "SettingValues",
    "Stretch",
    "ablation_curves",
    "activations_over_training",
    "alignment_over_training",
    "basin_map",
    "basin_paths",
    "bias_against_selectivity",
    "component_frequencies",
    "component_overlaps",
    "component_profiles",
    "counts_against_dropped_steps",
    "counts_by_setting",
    "curves_beside_nulls",
    "curves_by_directions",
    "curves_by_setting",
    "curves_so_far",
    "dimensionality_levels",
    "explained_variance",
    "goals_over_training",
    "grokking_curves",
    "heads_over_training",
    "loss_plane",
    "losses_over_steps",
    "mass_against_effect",
    "matrices_on_slider",
    "maze_walks",
    "means_against",
    "measures_over_training",
    "metrics_over_time",
    "network_animation",
    "network_movie",
    "network_over_training",
    "norms_by_kind",
    "norms_over_time",
    "norms_so_far",
    "path_and_bends",
    "paths_of_losses",
    "principal_plane",
    "principal_scores",
    "residual_curve",
    "scales_over_training",
    "scree",
    "seed_curves",
    "seed_strips",
    "statistic_by_level",
    "time_profiles",
    "time_vectors",
    "training_curves",
    "unit_scores",
    "values_by_setting",
]
