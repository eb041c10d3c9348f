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
    "resnet_gradients",
    "phase_detection",
    "s_curves",
    "sparse_training",
    "spectrum_controls",
    "superposition",
)
