"""The claims of the experiment."""

from __future__ import annotations

from collections.abc import Sequence

from phasescope.experiments.grokking.config import Results
from phasescope.report import Claim


def claims(results: Sequence[Results]) -> list[Claim]:
    """Verdicts over runs."""
    return []
