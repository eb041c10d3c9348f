"""Rules about the growth of key frequencies: C22 of this experiment, and E12 of the S-curves."""

from __future__ import annotations

from statistics import median
from typing import Any

from phasescope.experiments.evidence import with_enough_seeds
from phasescope.experiments.grokking.config import Results
from phasescope.experiments.grokking.evidence import Evidence, claim
from phasescope.report import Claim

C22 = (
    "does the growth of each key-frequency coefficient follow the rank-one S-curve law (with "
    "decay), better than a logistic",
    "answered by the share of a seed's key frequencies (addition, ReLU) whose coefficient of "
    "cos w(a+b-c), at evenly spaced steps until its largest value, the rank-one law with decay "
    "fits better than a logistic by Akaike's criterion, corrected for its two further parameters "
    "and for correlated residuals; the null is the fitted logistic with the law's own residuals",
)
E12 = (
    "does a sub-circuit of a real network follow this model (with C22)",
    "answered by the root mean square residual of the rank-one law over the range of the series, "
    "the median over a seed's key frequencies (addition, ReLU), beside that of the logistic",
)


def growth_claims(evidence: Evidence) -> list[Claim]:
    """C22 and E12, from the fits of the runs that add with ReLU.

    Args:
        evidence: Runs of any settings.
    """
    runs = [r for r in evidence.runs() if _fits(r)]
    better = evidence.over(runs, lambda r: _share(r, "aicc_difference"))
    if better is None:
        sentence = "Not run: addition with ReLU, whose key frequencies are fitted."
        none = ("share of the keys", "a logistic", "not tested", sentence)
        return [claim(id, *text, None, *none) for id, text in (("C22", C22), ("E12", E12))]
    by_chance = evidence.over(runs, lambda r: _share(r, "null_difference"))
    gap = evidence.over(runs, lambda r: median(f["aicc_difference"] for f in _fits(r)))
    left = evidence.over(runs, lambda r: median(f["rmse_share"] for f in _fits(r)))
    logistic = evidence.over(runs, lambda r: median(f["logistic_rmse_share"] for f in _fits(r)))
    decay = evidence.over(runs, lambda r: median(f["decay_share"] for f in _fits(r)))
    n_keys = sum(len(_fits(r)) for r in runs)
    return [
        claim(
            "C22",
            *C22,
            better,
            "share of the key frequencies that the law fits better",
            f"logistics with the same residuals: {by_chance}",
            with_enough_seeds("answered", better.n_seeds),
            f"Of {n_keys} key frequencies the law fits {better} of a seed's better; Akaike's "
            f"criterion prefers it by {gap} (median of the keys).",
        ),
        claim(
            "E12",
            *E12,
            left,
            "residual of the law over the range of the series",
            f"the logistic leaves {logistic}",
            with_enough_seeds("answered", better.n_seeds),
            f"The law leaves {left} of the range, the logistic {logistic}; the fitted decay is "
            f"{decay} of the strength, which trades off against the irrelevant part.",
        ),
    ]


def _fits(result: Results) -> list[dict[str, Any]]:
    growth = result.numbers.get("key_growth") or {}
    return growth.get("fits", [])


def _share(result: Results, name: str) -> float:
    """Share of the keys whose difference is positive."""
    fits = _fits(result)
    return sum(fit[name] > 0 for fit in fits) / len(fits)
