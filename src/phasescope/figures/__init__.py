"""Results drawn with plotly; nothing is computed here beyond what is visual."""

from phasescope.figures.counts import SettingCounts, counts_against_dropped_steps, counts_by_setting
from phasescope.figures.curves import metrics_over_time, norms_over_time, training_curves
from phasescope.figures.residuals import ResidualCurve, residual_curve
from phasescope.figures.spectra import scree, time_vectors

__all__ = [
    "ResidualCurve",
    "SettingCounts",
    "counts_against_dropped_steps",
    "counts_by_setting",
    "metrics_over_time",
    "norms_over_time",
    "residual_curve",
    "scree",
    "time_vectors",
    "training_curves",
]
