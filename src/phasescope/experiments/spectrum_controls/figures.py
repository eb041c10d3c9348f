"""The summary: every statistic against the level, an axis a panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

import phasescope as ps
from phasescope.experiments.spectrum_controls.config import Results
from phasescope.experiments.spectrum_controls.series import STATISTICS, Series, all_series

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_HOW = {
    "flips": "Singular values above the largest of 19 copies in which every entry has a random "
    "sign; steps normalised and centred (FlipPA, edge rule, level .05).",
    "count": "Singular values of the gradients as they are, above 10% of the largest; the frozen "
    "gradients are scaled to the norms of the training's.",
    "normalised_ratio": "(Σs²)² / Σs⁴ of the singular values of normalised, centred steps.",
}
_UNITS = {
    "flips": "components",
    "count": "singular values",
    "normalised_ratio": "participation ratio",
}


def figures(results: Sequence[Results]) -> dict[str, Figure]:
    """One figure for each of three statistics; the first decides.

    Args:
        results: Levels of one or more axes.
    """
    drawn = {}
    for name, how in _HOW.items():
        panels = [
            ps.figures.LevelPanel(s.axis.name, s.axis.labels, s.values, s.null, _intervals(s))
            for s in all_series(results, name)
        ]
        if panels:
            drawn[name] = ps.figures.statistic_by_level(panels, STATISTICS[name], _UNITS[name], how)
    return drawn


def _intervals(series: Series) -> Float[np.ndarray, "levels 2"] | None:
    """95% intervals of the mean over seeds, where there are several."""
    if series.values.shape[1] < 2:
        return None
    found = [ps.interval(row) for row in series.values]
    return np.array([(i.low, i.high) for i in found])
