"""Many runs of an experiment, and Gram matrices of large runs, on a Dask cluster."""

from phasescope.sweeps.gram import distributed_gram
from phasescope.sweeps.grid import grid
from phasescope.sweeps.outcome import Outcome, Progress, RunProgress
from phasescope.sweeps.running import sweep
from phasescope.sweeps.table import GridPoint, Statistic, grid_points

__all__ = [
    "GridPoint",
    "Outcome",
    "Progress",
    "RunProgress",
    "Statistic",
    "distributed_gram",
    "grid",
    "grid_points",
    "sweep",
]
