"""Published phenomena, one file each: Config, run, claims, figures."""

# The names that the command line knows, one a line.
EXPERIMENTS = (
    "gradient_nulls",
    "gradient_spectrum",
    "grokking",
    "induction_heads",
    "low_rank_replay",
    "maze_goals",
    "mode_connectivity",
    "monosemanticity",
    "phase_detection",
    "resnet_gradients",
    "s_curves",
    "sparse_training",
    "spectrum_controls",
    "superposition",
)
