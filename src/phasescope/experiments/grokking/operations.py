"""Rules of the claims about operations, C1 to C7; they were fixed before any seed of them ran."""

from __future__ import annotations

import numpy as np

from phasescope.experiments.evidence import OverSeeds, with_enough_seeds
from phasescope.experiments.grokking.config import Results
from phasescope.experiments.grokking.evidence import (
    NONE,
    NOT_RUN,
    Evidence,
    above,
    below,
    claim,
    number,
    parts_claim,
)
from phasescope.report import Claim, Verdict

ACCURATE = 0.9  # share of the logits' variance along cos w(a + b - c) that counts as the clock
EQUAL = 0.2  # times within 15 % of one another count as equal
FLAT = 0.3  # power-Gini below which a spectrum counts as flat
SMALL = 0.05  # shares that differ by less count as equal


def operation_claims(evidence: Evidence) -> list[Claim]:
    """C1 to C7."""
    rules = (_clock, _no_fourier, _across, _later, _subtraction, _components, _developments)
    return [rule(evidence) for rule in rules]


def _clock(e: Evidence) -> Claim:
    statement = "subtraction implements the same Fourier clock"
    rule = (
        f"reproduced if the interval of the share of the logits' variance along cos w(a+b-c), in "
        f"the operation's own coordinates, lies above {ACCURATE}; refuted if below"
    )
    runs = e.runs(operation="subtract")
    found = e.over(runs, lambda r: number(r, "final_measures", "cube_fve"))
    if found is None:
        return claim("C1", statement, rule, None, "share", "untrained", "not tested", NOT_RUN)
    control = e.over(runs, lambda r: number(r, "untrained", "cube_fve"))
    verdict: Verdict = "inconclusive"
    if found.low > ACCURATE:
        verdict = "reproduced"
    elif found.high < ACCURATE:
        verdict = "refuted"
    sentence = f"The clock's waves explain {found} of the logits' variance."
    verdict = with_enough_seeds(verdict, found.n_seeds)
    return claim("C1", statement, rule, found, "share", f"untrained: {control}", verdict, sentence)


def _no_fourier(e: Evidence) -> Claim:
    statement = "multiplication uses no Fourier algorithm"
    rule = (
        "share of the logits' variance along cos w(a+b-c) in the multiplicative basis: refuted if "
        f"its interval lies above {ACCURATE}, reproduced if below .5; the additive basis, in which "
        "the source looked, is shown beside"
    )
    runs = e.runs(operation="multiply")
    found = e.over(runs, lambda r: number(r, "final_measures", "cube_fve"))
    if found is None:
        return claim("C2", statement, rule, None, "share", "additive", "not tested", NOT_RUN)
    additive = e.over(runs, lambda r: number(r, "other_basis", "cube_fve"))
    verdict: Verdict = "inconclusive"
    if found.low > ACCURATE:
        verdict = "refuted"
    elif found.high < 0.5:
        verdict = "reproduced"
    sentence = f"{found} in the multiplicative basis, {additive} in the additive one."
    verdict = with_enough_seeds(verdict, found.n_seeds)
    return claim("C2", statement, rule, found, "share", f"additive: {additive}", verdict, sentence)


def _across(e: Evidence) -> Claim:
    statement = (
        "for multiplication, ablating any additive frequency hurts, activations are mostly "
        "constant terms, and the spectrum is uniform during clean-up"
    )
    rule = (
        "three parts, multiplication with ReLU, all in the additive basis: share of frequencies "
        "without which the training loss is at least twice as large, above .9; mean "
        "share of the neurons' energy in their constant term, above .5; power-Gini of the "
        f"embedding, median over clean-up, below {FLAT}. Reproduced if all intervals lie there, "
        "refuted if one lies on the other side"
    )
    runs, add = e.runs(operation="multiply"), e.runs()
    parts = [
        above(
            "share of frequencies that matter",
            e.over(runs, lambda r: number(r, "other_basis", "mattering")),
            0.9,
        ),
        above(
            "constant share of the neurons",
            e.over(runs, lambda r: number(r, "anatomy", "constant_share")),
            0.5,
        ),
        below("power-Gini of the embedding", e.over(runs, lambda r: _in_clean_up(r)), FLAT),
    ]
    own = e.over(runs, lambda r: number(r, "final_measures", "mattering"))
    constant = e.over(add, lambda r: number(r, "anatomy", "constant_share"))
    null = (
        f"multiplicative basis: {own or NONE} matter; addition's constant share: {constant or NONE}"
    )
    return parts_claim("C3", statement, rule, parts, unit="share", null=null)


def _later(e: Evidence) -> Claim:
    statement = (
        "subtraction and multiplication grok later than addition; subtraction's clean-up is faster"
    )
    rule = (
        "log2 of the ratio of grokking times to addition's, paired seeds, ReLU: above 0 for both; "
        "of the lengths of clean-up, subtraction to addition: below 0. Reproduced if all three "
        "intervals lie there, refuted if one lies on the other side of 0 or within .2 of it"
    )
    add = e.runs()
    later = [
        above(f"{operation}: time", e.log_ratios(e.runs(operation=operation), add), margin=EQUAL)
        for operation in ("subtract", "multiply")
    ]
    cleaning = e.paired(e.runs(operation="subtract"), add, _log_clean_up)
    parts = [*later, below("subtract: clean-up", cleaning, margin=EQUAL)]
    return parts_claim("C4", statement, rule, parts, unit="log2", null=e.floor_text())


def _subtraction(e: Evidence) -> Claim:
    statement = (
        "subtraction makes some heads useless and others uniformly high, clusters neurons more, "
        "tightens singular values and raises frequencies"
    )
    rule = (
        "subtraction less addition, paired seeds, ReLU: Gini of the heads' effects (test loss with "
        "the head at its mean), above 0; share of pure neurons, above 0; log2 participation ratio "
        "of the embedding's singular values, below 0; mean key frequency over the largest, above "
        "0. Reproduced if all intervals lie there, refuted if one lies on the other side of 0 or "
        f"within {SMALL} of it (.2 for the log2). For prime p any permutation k -> uk of the "
        "frequencies is a symmetry of the task, so the last part has no reason to hold"
    )
    ours, add = e.runs(operation="subtract"), e.runs()

    def changed(*path: str) -> OverSeeds | None:
        return e.paired(ours, add, lambda r: number(r, *path))

    rank = e.paired(ours, add, lambda r: _log2(number(r, "anatomy", "rank_W_E")))
    parts = [
        above("Gini of heads", changed("anatomy", "head_gini"), margin=SMALL),
        above("pure neurons", changed("final_measures", "pure_neurons"), margin=SMALL),
        below("log2 participation ratio", rank, margin=EQUAL),
        above("key frequency", changed("anatomy", "key_height"), margin=SMALL),
    ]
    half = _half_difference(e, add)
    return parts_claim(
        "C5",
        statement,
        rule,
        parts,
        unit="difference",
        null=f"Gini of heads between halves of addition's own seeds: {half or NONE}",
    )


def _components(e: Evidence) -> Claim:
    statement = "multiplication has smaller principal components with one concentrated term"
    rule = (
        "multiplication, ReLU: log2 of the leading singular value of the centred logits over "
        "addition's, paired seeds, below 0; largest share that one term of the additive Fourier "
        "transform over pairs has of the leading component, above .5. Reproduced if both "
        "intervals lie there, refuted if one lies on the other side or within .2 of 0"
    )
    ours, add = e.runs(operation="multiply"), e.runs()
    parts = [
        below("log2 size", e.paired(ours, add, _log_leading), margin=EQUAL),
        above(
            "largest additive term",
            e.over(ours, lambda r: number(r, "anatomy", "leading_term_other")),
            0.5,
        ),
    ]
    own = e.over(ours, lambda r: number(r, "anatomy", "leading_term"))
    of_add = e.over(add, lambda r: number(r, "anatomy", "leading_term"))
    null = f"largest term in the multiplicative basis: {own or NONE}; addition's: {of_add or NONE}"
    return parts_claim("C6", statement, rule, parts, unit="log2", null=null)


def _developments(e: Evidence) -> Claim:
    statement = (
        "heads, periodic neurons, singular values and frequencies develop, and faster, in clean-up"
    )
    rule = (
        "from the beginning of circuit formation to the end of clean-up, ReLU on addition: share "
        "of a measure's change that falls into clean-up less clean-up's share of the steps, above "
        "0 for wave-likeness of attention, share of pure neurons, participation ratio and "
        f"power-Gini of the embedding; refuted if one lies below 0 or within {SMALL} of it"
    )
    named = {
        "heads": "pattern_fve",
        "neurons": "pure_neurons",
        "singular values": "rank_W_E",
        "frequencies": "power_gini_W_E",
    }
    parts = [
        above(name, e.over(e.runs(), lambda r, k=key: number(r, "developments", k)), margin=SMALL)
        for name, key in named.items()
    ]
    return parts_claim("C7", statement, rule, parts, unit="excess share", null="even pace: 0")


def _in_clean_up(result: Results) -> float | None:
    return number(result, "clean_up", "power_gini_W_E_other")


def _log_clean_up(result: Results) -> float | None:
    for phase in result.numbers.get("phases", []):
        if phase["name"] == "clean-up" and phase["end"] is not None:
            return _log2(float(phase["end"] - phase["start"]))
    return None


def _log_leading(result: Results) -> float | None:
    components = result.numbers.get("anatomy", {}).get("logit_components")
    return _log2(components[0]) if components else None


def _log2(value: float | None) -> float | None:
    return None if value is None or value <= 0 else float(np.log2(value))


def _half_difference(e: Evidence, runs: list[Results]) -> OverSeeds | None:
    """A control without effect: addition's odd seeds less its even ones."""
    values = [number(r, "anatomy", "head_gini") for r in runs]
    known = [v for v in values if v is not None]
    half = len(known) // 2
    return (
        OverSeeds([a - b for a, b in zip(known[:half], known[half:], strict=False)])
        if half
        else None
    )
