"""The figures of one or many runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

from phasescope.experiments.low_rank_replay.config import Results


def figures(results: Sequence[Results]) -> dict[str, Figure]:
    """The figures over all runs."""
    return {}
