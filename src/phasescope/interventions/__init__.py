"""Acting on training, weights and activations: projecting, ablating, patching, replaying."""

from phasescope.interventions.basins import BasinReport, same_basin
from phasescope.interventions.curves import Curve, CurveTraining, train_curve
from phasescope.interventions.displacement import ALPHAS, Ablation, ablate, ablated
from phasescope.interventions.ensemble_masks import MaskedEnsemble
from phasescope.interventions.fine_tuning import FineTuning, fine_tune_away
from phasescope.interventions.forking import fork
from phasescope.interventions.freezing import SequentialFreezing, freezeout_ends, settled
from phasescope.interventions.gradients import add_noise, chain, keep, remove
from phasescope.interventions.hops import HopStrength, HopTrial, hop_strength, pulled
from phasescope.interventions.masks import (
    density,
    pruned_masks,
    random_masks,
    regrown_mask,
    shuffled_masks,
)
from phasescope.interventions.offline import Replay, ReplayCurves, replay, replay_curves
from phasescope.interventions.parts import Part, directions, entries, waves
from phasescope.interventions.patching import (
    AblationEffects,
    PatchEffects,
    ablation_effects,
    patch_effects,
    path_effects,
)
from phasescope.interventions.pruning import (
    PruningLevel,
    SparseTraining,
    prune_iteratively,
    train_masked,
)
from phasescope.interventions.sites import activations, forward_with
from phasescope.interventions.stitching import match_channels, train_stitch
from phasescope.interventions.subspace_training import (
    InSubspace,
    IntrinsicDimension,
    intrinsic_dimension,
)
from phasescope.interventions.subspaces import leading_subspace, random_subspace
from phasescope.interventions.vision_units import (
    shuffled_weights,
    vision_null,
    vision_scores,
)
from phasescope.interventions.weights import AtWeights, flat_weights

__all__ = [
    "ALPHAS",
    "Ablation",
    "AblationEffects",
    "AtWeights",
    "BasinReport",
    "Curve",
    "CurveTraining",
    "FineTuning",
    "HopStrength",
    "HopTrial",
    "InSubspace",
    "IntrinsicDimension",
    "MaskedEnsemble",
    "Part",
    "PatchEffects",
    "PruningLevel",
    "Replay",
    "ReplayCurves",
    "SequentialFreezing",
    "SparseTraining",
    "ablate",
    "ablated",
    "ablation_effects",
    "activations",
    "add_noise",
    "chain",
    "density",
    "directions",
    "entries",
    "fine_tune_away",
    "flat_weights",
    "fork",
    "forward_with",
    "freezeout_ends",
    "hop_strength",
    "intrinsic_dimension",
    "keep",
    "leading_subspace",
    "match_channels",
    "patch_effects",
    "path_effects",
    "prune_iteratively",
    "pruned_masks",
    "pulled",
    "random_masks",
    "random_subspace",
    "regrown_mask",
    "remove",
    "replay",
    "replay_curves",
    "same_basin",
    "settled",
    "shuffled_masks",
    "shuffled_weights",
    "train_curve",
    "train_masked",
    "train_stitch",
    "vision_null",
    "vision_scores",
    "waves",
]
