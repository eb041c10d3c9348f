"""The claims of the experiment; their rules were committed before any seed of them was run.

A claim compares settings that differ in nothing but what it names; seeds of the two are paired.
Times are compared by the binary logarithm of their ratio: 1 is twice as long. The noise floor is
that of GELU-new against GELU-fast, which are one function up to rounding. A run that has not
memorised or grokked when it ends counts with its last step: its time is at least that, which makes
differences smaller, not larger.
"""

from __future__ import annotations

from collections.abc import Sequence

from phasescope.experiments.grokking.activations import activation_claims
from phasescope.experiments.grokking.carriers import carrier_claim
from phasescope.experiments.grokking.config import SMOKE, Results
from phasescope.experiments.grokking.evidence import Evidence
from phasescope.experiments.grokking.growth_claims import growth_claims
from phasescope.experiments.grokking.operations import operation_claims
from phasescope.experiments.grokking.optimizers import optimizer_claims
from phasescope.experiments.grokking.spectra_claims import spectra_claims
from phasescope.report import Claim


def claims(results: Sequence[Results]) -> list[Claim]:
    """Verdicts over runs; those of the smoke preset, which are too short to grok, count nowhere.

    Args:
        results: Runs and batches of any settings.
    """
    evidence = Evidence(results)
    of_keys, of_circuits = growth_claims(evidence)
    long = [r for r in results if r.config.n_steps > SMOKE.n_steps]
    return [
        *operation_claims(evidence),
        *activation_claims(evidence),
        *optimizer_claims(evidence),
        of_keys,
        *spectra_claims(long),
        of_circuits,
        carrier_claim(long),
    ]
