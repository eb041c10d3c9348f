"""The figures of one or many runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from phasescope.experiments.gradient_nulls.config import Results

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def figures(results: Sequence[Results]) -> dict[str, Figure]:
    """The figures over all runs."""
    return {}
