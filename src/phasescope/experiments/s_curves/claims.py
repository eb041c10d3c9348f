"""The claims E1-E11 over all settings; their rules were committed before the seeds ran."""

from __future__ import annotations

from collections.abc import Sequence

from phasescope.experiments.s_curves import contests, plateaus, softmax
from phasescope.experiments.s_curves.config import Results
from phasescope.experiments.s_curves.evidence import Evidence
from phasescope.report import Claim


def claims(results: Sequence[Results]) -> list[Claim]:
    """The claims that these batches settle; those whose settings were not run are not tested.

    Args:
        results: Batches of one or more settings.
    """
    evidence = Evidence(results)
    rules = (*plateaus.RULES, *contests.RULES, *softmax.RULES)
    found = [rule.claim(evidence) for rule in rules]
    return sorted(found, key=lambda claim: int(claim.id[1:]))
