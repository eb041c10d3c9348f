"""The claims D1-D7 over all settings; their rules were committed before the seeds ran."""

from __future__ import annotations

from collections.abc import Sequence

from phasescope.experiments.monosemanticity import features, losses, neurons
from phasescope.experiments.monosemanticity.config import Results
from phasescope.experiments.monosemanticity.evidence import Evidence
from phasescope.report import Claim


def claims(results: Sequence[Results]) -> list[Claim]:
    """The claims that these runs settle; those whose settings were not run are not tested.

    Args:
        results: Runs of one or more settings.
    """
    evidence = Evidence(results)
    rules = (*losses.RULES, *features.RULES, *neurons.RULES)
    return [rule.claim(evidence) for rule in rules]
