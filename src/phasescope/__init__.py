"""phasescope: an instrument for watching neural networks learn."""

import importlib
from typing import TYPE_CHECKING, Any

from phasescope.analysis.gram import Gram, gram
from phasescope.analysis.intervals import Interval, interval
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
from phasescope.analysis.residuals import heldout_residuals, mean_alignment, subspace_overlap
from phasescope.analysis.spectrum import (
    NormNull,
    Spectrum,
    norm_null,
    parameter_vectors,
    spectrum,
)
from phasescope.parameters import Component, ParameterTable
from phasescope.trajectory.reader import Run, delete_group, open_run
from phasescope.trajectory.recorder import Recorder
from phasescope.trajectory.schedule import Schedule, at, every, log_spaced
from phasescope.trajectory.series import Series

if TYPE_CHECKING:
    from phasescope import figures, report

__all__ = [
    "Component",
    "Gram",
    "Interval",
    "NormNull",
    "ParameterTable",
    "RankSummary",
    "Recorder",
    "Run",
    "Schedule",
    "Series",
    "Spectrum",
    "at",
    "count_above",
    "delete_group",
    "effective_rank",
    "energy_rank",
    "entropy_rank",
    "every",
    "figures",
    "gram",
    "heldout_residuals",
    "interval",
    "largest_gap",
    "log_spaced",
    "mean_alignment",
    "norm_null",
    "open_run",
    "parameter_vectors",
    "participation_ratio",
    "rank_summary",
    "report",
    "spectrum",
    "stable_rank",
    "subspace_overlap",
]


def __getattr__(name: str) -> Any:
    """Load the subpackages that draw only when they are used: plotly costs time to import."""
    if name in ("figures", "report"):
        return importlib.import_module(f"phasescope.{name}")
    raise AttributeError(f"module 'phasescope' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, those that load on use included."""
    return sorted(__all__)
