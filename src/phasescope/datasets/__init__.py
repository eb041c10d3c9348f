"""Data that the experiments train on."""

from phasescope.datasets.batches import RandomFlips, ShuffledBatches
from phasescope.datasets.cifar import ColourImages, colour_inputs, load_cifar10
from phasescope.datasets.coordinates import (
    Coordinates,
    commutative_coordinates,
    modular_coordinates,
)
from phasescope.datasets.corruptions import (
    downscale,
    draw_examples,
    gaussian_noise,
    mix_noise,
    noisy_labels,
    permuted_pixels,
    phase_scrambled,
    shuffle,
)
from phasescope.datasets.factors import CyclicFactors, cyclic_factors
from phasescope.datasets.groups import (
    FiniteGroup,
    alternating_group,
    cyclic_group,
    dihedral_group,
    product_group,
    symmetric_group,
)
from phasescope.datasets.images import (
    ImageSet,
    as_inputs,
    load_digits_images,
    load_images,
    load_mnist,
)
from phasescope.datasets.known_runs import KnownEvent, KnownRun, KnownRuns, transitions
from phasescope.datasets.low_rank import LowRankTargets, low_rank_targets
from phasescope.datasets.maze_pictures import maze_picture
from phasescope.datasets.maze_walks import MazeBatch, MazeStep, Walks, observations, walk
from phasescope.datasets.mazes import (
    MazeLevels,
    MazeMix,
    draw_mazes,
    in_conflict,
    path_lengths,
    with_goals_hidden,
)
from phasescope.datasets.modular import Split, Task, group_task, modular_task, split_pairs
from phasescope.datasets.residues import discrete_logarithms, primitive_root
from phasescope.datasets.sparse_features import (
    SparseFeatures,
    feature_directions,
    feature_frequencies,
)
from phasescope.datasets.stimuli import VisionStimuli, vision_stimuli
from phasescope.datasets.text import TextMixture, load_shakespeare
from phasescope.datasets.token_mixture import TokenBatch, TokenMixture

__all__ = [
    "ColourImages",
    "Coordinates",
    "CyclicFactors",
    "FiniteGroup",
    "ImageSet",
    "KnownEvent",
    "KnownRun",
    "KnownRuns",
    "LowRankTargets",
    "MazeBatch",
    "MazeLevels",
    "MazeMix",
    "MazeStep",
    "RandomFlips",
    "ShuffledBatches",
    "SparseFeatures",
    "Split",
    "Task",
    "TextMixture",
    "TokenBatch",
    "TokenMixture",
    "VisionStimuli",
    "Walks",
    "alternating_group",
    "as_inputs",
    "colour_inputs",
    "commutative_coordinates",
    "cyclic_factors",
    "cyclic_group",
    "dihedral_group",
    "discrete_logarithms",
    "downscale",
    "draw_examples",
    "draw_mazes",
    "feature_directions",
    "feature_frequencies",
    "gaussian_noise",
    "group_task",
    "in_conflict",
    "load_cifar10",
    "load_digits_images",
    "load_images",
    "load_mnist",
    "load_shakespeare",
    "low_rank_targets",
    "maze_picture",
    "mix_noise",
    "modular_coordinates",
    "modular_task",
    "noisy_labels",
    "observations",
    "path_lengths",
    "permuted_pixels",
    "phase_scrambled",
    "primitive_root",
    "product_group",
    "shuffle",
    "split_pairs",
    "transitions",
    "symmetric_group",
    "vision_stimuli",
    "walk",
    "with_goals_hidden",
]
