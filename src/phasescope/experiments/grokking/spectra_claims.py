"""Claims A9 to A15, A17 and A19: spectra of grokking runs, with their rules of decision.

The rules were fixed before any seed of them was run. They are decided on the setting with the most
seeds among the runs that kept what their spectra need (`Config.spectra_every`); the source's own
runs, with p = 113, are half an hour each.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from phasescope.experiments.evidence import OverSeeds, with_enough_seeds
from phasescope.experiments.grokking.config import Results
from phasescope.experiments.grokking.evidence import claim, most_seeds
from phasescope.experiments.grokking.rankings import KINDS, rho_of
from phasescope.report import Claim, Verdict

THREAD = "the discussion of the gradient-SVD post"
FACTOR = 1.5  # by which a published count without interval may be missed
DENSE = 0.1  # a Gini coefficient so little above that of random directions is dense
LOW_RANK = 0.5  # share of the untrained rank
RANKED = "weights, mean"  # the predictor and the effect that decide

Numbers = Mapping[str, Any]


def spectra_claims(results: Sequence[Results]) -> list[Claim]:
    """Verdicts over the runs that kept their trajectories, of the setting with the most seeds.

    Args:
        results: Runs of the experiment, any.
    """
    runs = [r.numbers["spectra"] for r in most_seeds(results, "spectra")]
    return [
        judge(runs)
        for judge in (
            _gradient_count,
            _weight_count,
            _dense_component,
            _subtraction,
            _turns,
            _low_rank,
            _interpretable,
            _ranking,
            _profiles,
        )
    ]


def _claim(
    id: str,
    statement: str,
    rule: str,
    unit: str,
    found: OverSeeds | None,
    verdict: Verdict,
    null: str,
    sentence: str,
) -> Claim:
    n_seeds = 0 if found is None else found.n_seeds
    decided = with_enough_seeds(verdict, n_seeds)
    return claim(id, statement, rule, found, unit, null, decided, sentence, source=THREAD)


def _gradient_count(runs: Sequence[Numbers]) -> Claim:
    statement = "the gradients of an algorithmic task have 10 components"
    rule = (
        "singular values of evenly spaced gradients, as recorded, above a tenth of the largest: "
        f"reproduced if the interval meets 10 within a factor of {FACTOR}, refuted if not; counts "
        "of the norms alone and above random signs are shown beside"
    )
    fixed = ("A9", statement, rule, "components")
    if not runs:
        return _not_run(*fixed)
    found = _over(runs, lambda r: r["gradients"]["count"])
    verdict: Verdict = "reproduced" if found.meets(10 / FACTOR, 10 * FACTOR) else "refuted"
    norms = _over(runs, lambda r: r["gradients"]["norm_count"])
    flips = _over(runs, lambda r: r["gradients"]["flip_count"])
    sentence = (
        f"{found} components; norms alone give {norms}, so what the count says beyond the norms is "
        f"their ratio. Steps of norm one, centred, have {flips} components above random signs."
    )
    return _claim(*fixed, found, verdict, f"norms alone: {norms}", sentence)


def _weight_count(runs: Sequence[Numbers]) -> Claim:
    statement = "the weights of a grokking run have 5 singular values above 10% of the largest"
    rule = (
        "count for weights at evenly spaced steps, neither centred nor less the initial ones, the "
        "causal mask included: reproduced if the interval meets [4.5, 5.5], refuted if not; beside "
        "walks of the run's own increments with random signs, raw and centred"
    )
    fixed = ("A10", statement, rule, "singular values")
    if not runs:
        return _not_run(*fixed)
    found = _over(runs, lambda r: r["weights"]["raw"]["count"])
    verdict: Verdict = "reproduced" if found.meets(4.5, 5.5) else "refuted"
    walks = {name: _over(runs, lambda r, n=name: r["weights"][n]["walk_count"]) for name in _BOTH}
    centred = _over(runs, lambda r: r["weights"]["centred"]["count"])
    straight = sum(r["weights"]["centred"]["first_p"] <= 0.05 for r in runs)
    closed = runs[0]["weights"]
    sentence = (
        f"{found} raw and {centred} centred; walks of the same increments have {walks['raw']} and "
        f"{walks['centred']}, walks without decay or drift {closed['raw']['closed_form']} and "
        f"{closed['centred']['closed_form']}. The first component's share is none of a walk's "
        f"(p <= .05) in {straight} of {len(runs)} runs."
    )
    null = f"walks: {walks['raw']} raw, {walks['centred']} centred"
    return _claim(*fixed, found, verdict, null, sentence)


def _dense_component(runs: Sequence[Numbers]) -> Claim:
    statement = (
        "component 0 of the weights is memorisation: dense in the Fourier basis, others sparse"
    )
    rule = (
        "power-Gini of the embedding's part, raw weights: median of components 1 to 4 less that of "
        "component 0; reproduced if its interval lies above 0 and component 0's lies below the "
        f"random directions' 95th percentile + {DENSE}; refuted if the difference's interval lies "
        "below 0 or component 0's lies above that bound; centred weights are shown beside"
    )
    fixed = ("A11", statement, rule, "Gini")
    if not runs:
        return _not_run(*fixed)

    def first(name: str) -> Callable[[Numbers], float]:
        return lambda r: r["components"][name]["gini_W_E"][0]

    def rest(name: str) -> Callable[[Numbers], float]:
        return lambda r: statistics.median(r["components"][name]["gini_W_E"][1:])

    found = _over(runs, lambda r: rest("raw")(r) - first("raw")(r))
    zero = _over(runs, first("raw"))
    bound = _over(runs, lambda r: r["random_directions"]["gini_high"]).mean + DENSE
    verdict: Verdict = "inconclusive"
    if found.low > 0 and zero.high < bound:
        verdict = "reproduced"
    elif found.high < 0 or zero.low > bound:
        verdict = "refuted"
    random = _over(runs, lambda r: r["random_directions"]["gini"])
    sentence = (
        f"Component 0 has {zero}, the median of the others {_over(runs, rest('raw'))}; centred "
        f"{_over(runs, first('centred'))} and {_over(runs, rest('centred'))}."
    )
    return _claim(*fixed, found, verdict, f"random directions: {random}", sentence)


def _subtraction(runs: Sequence[Numbers]) -> Claim:
    statement = "subtracting component 0 of the weights improves generalisation"
    rule = (
        "log10 of the test loss without component 0 of the raw weights (strength 1, relative to "
        "the initial ones) over that of the network, at the end and on the plateau: reproduced if "
        "at one of them its interval lies below 0 and that against steps as long in the span of "
        "the leading components does too; refuted if at both it lies above 0"
    )
    fixed = ("A12", statement, rule, "decades")
    have = [r for r in runs if "raw, plateau" in r["subtraction"]]
    if not have:
        return _not_run(*fixed)
    changes = {
        place: _over(have, lambda r, p=place: _log_change(r["subtraction"][f"raw, {p}"], None))
        for place in ("plateau", "end")
    }
    against = {
        place: _over(have, lambda r, p=place: _log_change(r["subtraction"][f"raw, {p}"], "within"))
        for place in changes
    }
    verdict: Verdict = "inconclusive"
    if any(changes[p].high < 0 and against[p].high < 0 for p in changes):
        verdict = "reproduced"
    elif all(change.low > 0 for change in changes.values()):
        verdict = "refuted"
    accuracy = _over(have, lambda r: _accuracy_change(r["subtraction"]["raw, plateau"]))
    sentence = (
        f"On the plateau {changes['plateau']} (against controls {against['plateau']}; test "
        f"accuracy {accuracy}), at the end {changes['end']} ({against['end']})."
    )
    null = f"steps as long in the span: {against['plateau']} on the plateau"
    return _claim(*fixed, changes["plateau"], verdict, null, sentence)


def _turns(runs: Sequence[Numbers]) -> Claim:
    statement = (
        "the logits' first two principal components bend at the phase boundaries; one memorising "
        "direction and one generalising direction per key frequency"
    )
    rule = (
        "share of the two boundaries (circuit formation, clean-up) at which the logits' path turns "
        "more than walks do (level .05), within 10% of the step or five kept steps: reproduced if "
        "its interval lies above .5 and above chance, refuted if it lies below .5; a boundary that "
        "was not found counts as not met. Shares of the known directions in as many components are "
        "shown beside"
    )
    fixed = ("A13", statement, rule, "share of boundaries")
    if not runs:
        return _not_run(*fixed)
    found = _over(runs, lambda r: statistics.fmean(r["logits"]["met"]))
    chance = _over(runs, lambda r: r["logits"]["chance"])
    verdict: Verdict = "inconclusive"
    if found.low > 0.5 and found.low > chance.high:
        verdict = "reproduced"
    elif found.high < 0.5:
        verdict = "refuted"
    known = [r["logits"]["directions"] for r in runs]
    with_keys = [d for d in known if d["keys"]]
    keys = OverSeeds([statistics.fmean(d["keys"]) for d in with_keys]) if with_keys else "none"
    others = [d["others"] for d in known if d["others"] is not None]
    memory = OverSeeds([d["memory"] for d in known])
    sentence = (
        f"{found} of the boundaries have a turn, {chance} of all other steps. One component more "
        f"than key frequencies holds {keys} of the key frequencies' directions, "
        f"{OverSeeds(others) if others else 'none'} of the other frequencies' and {memory} of the "
        "memorising one."
    )
    return _claim(*fixed, found, verdict, f"any other step: {chance}", sentence)


def _low_rank(runs: Sequence[Numbers]) -> Claim:
    statement = "many matrices of the final network and products of them are low-rank"
    rule = (
        "share of the matrices (embedding, unembedding, Q, K, V, O, in, out, the products W_L, OV, "
        "QK) whose number of singular values with 99% of the energy is at most half that of the "
        "untrained network: reproduced if the interval lies above .5, refuted if below"
    )
    fixed = ("A14", statement, rule, "share of matrices")
    if not runs:
        return _not_run(*fixed)
    found = _over(runs, _low_rank_share)
    verdict: Verdict = "inconclusive"
    if found.low > 0.5:
        verdict = "reproduced"
    elif found.high < 0.5:
        verdict = "refuted"
    names = runs[0]["matrices"]
    shown = "; ".join(
        f"{name} {statistics.median(r['matrices'][name][1] for r in runs):g} of "
        f"{statistics.median(r['matrices'][name][0] for r in runs):g}"
        for name in ("W_E", "W_U", "0 W_in", "0 W_out", "0 W_L", "0 OV 0")
        if name in names
    )
    return _claim(*fixed, found, verdict, "the untrained network", f"Ranks at 99%: {shown}.")


def _interpretable(runs: Sequence[Numbers]) -> Claim:
    statement = "are unsupervised SVD directions interpretable where the truth is known?"
    rule = (
        "share of the key frequencies in what the five leading components of the weights, centred, "
        "change in embedding and unembedding, mean over components; and the distance in octaves of "
        "memorisation and grokking from the times at which they move, against random times"
    )
    fixed = ("A15", statement, rule, "share")
    if not runs:
        return _not_run(*fixed)
    found = _over(runs, lambda r: statistics.fmean(r["components"]["centred"]["key_share"]))
    random = _over(runs, lambda r: r["random_directions"]["key_share"])
    each = ", ".join(
        f"{statistics.fmean(r['components']['centred']['key_share'][i] for r in runs):.2f}"
        for i in range(len(runs[0]["components"]["centred"]["key_share"]))
    )
    sentence = f"By component {each}. {_distances(runs, lambda r: r['weight_events'])}"
    return _claim(*fixed, found, "answered", f"random directions: {random}", sentence)


def _ranking(runs: Sequence[Numbers]) -> Claim:
    statement = "do heads, neurons and frequencies rank by spectral mass as by causal effect?"
    rule = (
        "Spearman's correlation over neurons of their share in the energy of the ten leading "
        "components of the weights, centred, with the rise of the loss when they are set to their "
        "mean; heads, frequencies and the other interventions are shown beside, and the final "
        "norm as predictor"
    )
    fixed = ("A17", statement, rule, "rank correlation")
    have = [r["rankings"] for r in runs if r.get("rankings")]
    rho = [x for r in have if (x := rho_of(r, "neurons", RANKED)) is not None]
    if not rho:
        return _not_run(*fixed)
    found = OverSeeds(rho)
    significant = sum(
        (c := r["neurons"]["correlations"][RANKED]) is not None and c["p"] <= 0.05 for r in have
    )
    parts = []
    for kind in KINDS:
        shown = {
            effect: _some_over([rho_of(r, kind, f"weights, {effect}") for r in have])
            for effect in have[0][kind]["effects"]
        }
        parts.append(f"{kind}: " + ", ".join(f"{name} {value}" for name, value in shown.items()))
    norm = _some_over([rho_of(r, "neurons", "final norm, mean") for r in have])
    gradient = _some_over([rho_of(r, "neurons", "gradients, mean") for r in have])
    sentence = (
        f"{'; '.join(parts)}. Neurons by gradients {gradient}, by the final norm alone {norm}."
    )
    null = f"random orders: p <= .05 in {significant} of {len(have)} runs; final norm: {norm}"
    return _claim(*fixed, found, "answered", null, sentence)


def _profiles(runs: Sequence[Numbers]) -> Claim:
    statement = "do time profiles of gradient components line up with memorisation and grokking?"
    rule = (
        "mean distance of the two events, in octaves of steps, from the nearest beginning or end "
        "of one of the leading components of normalised gradients (six at most, those above random "
        "signs), less that of random times: below 0 they line up"
    )
    fixed = ("A19", statement, rule, "octaves")
    have = [r["profiles"] for r in runs if r["profiles"]["events"]]
    if not have:
        return _not_run(*fixed)
    found = _over(have, lambda r: r["events"]["octaves"] - r["events"]["null"])
    structured = statistics.fmean(sum(p <= 0.05 for p in r["center_p"]) for r in have)
    sentence = (
        f"{_distances(have, lambda r: r['events'])} Of the components {structured:.1f} on average "
        "have their energy earlier or later than permuted steps do."
    )
    return _claim(*fixed, found, "answered", "events at random times", sentence)


_BOTH = ("raw", "centred")


def _not_run(id: str, statement: str, rule: str, unit: str) -> Claim:
    return _claim(id, statement, rule, unit, None, "not tested", "-", "Not run.")


def _over(runs: Sequence[Numbers], statistic: Callable[[Numbers], float]) -> OverSeeds:
    return OverSeeds([float(statistic(run)) for run in runs])


def _some_over(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return str(OverSeeds(known)) if known else "-"


def _log_change(numbers: Numbers, against: str | None) -> float:
    """Decades of test loss between the ablated and the whole, or between it and its controls."""
    at, loss = numbers["alphas"].index(1.0), 1
    other = numbers["values"][0] if against is None else numbers[f"controls_{against}"][at]
    return math.log10(max(numbers["values"][at][loss], 1e-12) / max(other[loss], 1e-12))


def _accuracy_change(numbers: Numbers) -> float:
    at, accuracy = numbers["alphas"].index(1.0), 3
    return numbers["values"][at][accuracy] - numbers["values"][0][accuracy]


def _low_rank_share(numbers: Numbers) -> float:
    ranks = numbers["matrices"].values()
    return statistics.fmean(after <= LOW_RANK * before for before, after in ranks)


def _distances(runs: Sequence[Numbers], of: Callable[[Numbers], Mapping[str, float] | None]) -> str:
    have = [found for run in runs if (found := of(run))]
    if not have:
        return "Memorisation or grokking did not happen."
    octaves = _over(have, lambda r: r["octaves"])
    null = _over(have, lambda r: r["null"])
    near = sum(found["p"] <= 0.05 for found in have)
    return (
        f"The events are {octaves} octaves from the nearest of them, random times {null}; nearer "
        f"than random (p <= .05) in {near} of {len(have)} runs."
    )
