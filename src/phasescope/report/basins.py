"""The report of two models: do they share a basin?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from phasescope.figures.basins import basin_paths
from phasescope.interventions.basins import BasinReport
from phasescope.report.html import write_report
from phasescope.trajectory.environment import describe_environment


def report_basin(found: BasinReport, path: str | os.PathLike[str]) -> Path:
    """One HTML file that says whether two models share a basin, with the paths and all numbers.

    Args:
        found: From `phasescope.interventions.same_basin`.
        path: The file; its folder is made if missing.

    Returns:
        The path.

    Example:
        >>> import tempfile, torch
        >>> from phasescope.interventions import same_basin
        >>> from phasescope.models import MLP
        >>> x, y = torch.randn(64, 4), torch.arange(64) % 2
        >>> a, b = MLP((4, 8, 2)).state_dict(), MLP((4, 8, 2)).state_dict()
        >>> found = same_basin(MLP((4, 8, 2)), a, b, {"train": (x, y)}, n_points=5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report_basin(found, Path(folder) / "basin.html").name
        'basin.html'
    """
    verdict, *rest = str(found).split("\n")
    symmetry = found.symmetry
    groups = {} if symmetry is None else {n: str(g.size) for n, g in symmetry.groups.items()}
    numbers: dict[str, Any] = {
        "verdict": verdict,
        "barriers": found.barriers,
        "rises half-way to random targets": found.random_barriers,
        "tolerance": found.tolerance,
        "distances": found.distances,
        "permutations": found.permutations,
        "paths": {
            name: {"t": p.t, "distance": p.distance, **p.values} for name, p in found.paths.items()
        },
    }
    return write_report(
        path,
        title=f"Two models: {verdict}",
        summary=". ".join(rest) + ".",
        claims=[],
        figures={"paths": basin_paths(found)},
        config={"decides": found.name, "tolerance": found.tolerance_source, "permuted": groups},
        environment=describe_environment(),
        numbers=numbers,
    )
