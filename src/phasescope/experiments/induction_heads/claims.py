"""Claims A17, A18 and B8 to B15 with their rules of decision.

The rules were fixed before any seed was run. B8 to B10 and B12 to B14 are decided a second time on
real text, by the same rules (`TEXT`). A seed has networks of one, two and three layers on
the same data. The window is that of the fall of the copy loss of the network of two layers, from
onset to end, unless a rule says otherwise; a one-layer network is looked at in the window of the
two-layer network of its seed. Logarithms are binary: 1 is a factor of two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from phasescope.experiments.deciding import answered, decided, positive, told
from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.induction_heads import evidence
from phasescope.experiments.induction_heads.config import (
    CLAIM_IDS,
    DEFAULT,
    SMOKE,
    TEXT,
    VARIED,
    Config,
    Results,
)
from phasescope.experiments.settings import by_seed
from phasescope.report import Claim, Verdict

SLACK = 0.1  # log2: within 7 %
POST = "the post on per-component weight updates"
OLSSON = "Olsson et al. (2022)"
Formed = dict[int, tuple[Results, tuple[float, float, float]]]


def claims(results: Sequence[Results]) -> list[Claim]:
    """Verdicts over runs; those of the smoke preset are too short to count."""
    results = [r for r in results if r.config.n_steps > SMOKE.n_steps]
    two, one, formed = _networks(results, DEFAULT)
    found = [_ablation(two), _path(formed), _varied(results, formed), _bases(formed)]
    found += _of_heads(formed, one)
    return sorted(found, key=lambda claim: CLAIM_IDS.index(claim.id)) + _on_text(results)


def _networks(
    results: Sequence[Results], base: Config
) -> tuple[dict[int, Results], dict[int, Results], Formed]:
    """Networks of two layers, of one, and those of two whose loss on repetitions fell suddenly."""
    two, one = (by_seed(results, replace(base, n_layers=n)) for n in (2, 1))
    return two, one, {s: (r, w) for s, r in two.items() if (w := evidence.window(r)) is not None}


def _of_heads(formed: Formed, one: dict[int, Results]) -> list[Claim]:
    return [
        _largest(formed, one),
        _turns(formed, one),
        _leads(formed),
        _composition(formed),
        _carriers(formed),
        _one_layer(one),
    ]


def _on_text(results: Sequence[Results]) -> list[Claim]:
    """The claims about heads once more, on real text; none before it was run."""
    two, one, formed = _networks(results, TEXT)
    if not two:
        return []
    fell = f"the loss on repetitions fell suddenly in {len(formed)} of {len(two)} networks"

    def sentence(claim: Claim) -> str:
        if claim.n_seeds:
            return f"On text, where {fell}: {claim.sentence}"
        return f"On text {fell} of two layers, so there is nothing to decide it by."

    return [
        replace(claim, statement=f"{claim.statement} (real text)", sentence=sentence(claim))
        for claim in _of_heads(formed, one)
    ]


def _ablation(two: dict[int, Results]) -> Claim:
    rows = [r.numbers["final"]["rank_correlation"] for r in two.values()]
    zero = [row["zero"] for row in rows]
    others = {kind: told([row[kind] for row in rows]) for kind in ("mean", "resample")}
    return decided(
        "A17",
        "does the ranking of heads by SVD mass agree with that by causal effect?",
        "the post on gradient SVDs",
        "Spearman's correlation over the heads of the two-layer network, between mass per "
        "parameter in the five leading directions of the weights' increments and the rise of the "
        "copy loss without the head; zero ablation decides, mean and resample ablation beside",
        zero,
        "rank correlation",
        f"0 for unrelated ranks; mean {others['mean']}, resample {others['resample']}",
        answered,
        lambda found: f"The rank correlation over heads is {found}.",
    )


def _path(formed: Formed) -> Claim:
    values, random = [], []
    for result, (onset, _, end) in formed.values():
        turns = [t for t in result.numbers["path"]["turns"] if onset / 1.25 <= t <= end * 1.25]
        values.append(float(bool(turns)))
        steps = result.numbers["steps"][-1]
        random.append(min(1.0, (end * 1.25 - onset / 1.25) / steps))
    return decided(
        "A18",
        "do principal components of per-example losses turn at the phase change?",
        "the post on gradient SVDs, after Olsson et al. (2022)",
        "share of seeds whose path of single-token losses, in two principal components, has a "
        "significant turn (turning test, level .05) between onset/1.25 and 1.25 end of the fall",
        values,
        "share of seeds",
        f"the window is {told(random)} of the training; a walk turns anywhere in .05 of runs",
        answered,
        lambda found: f"A turn beyond those of walks lies at the phase change in {found} of seeds.",
    )


def _largest(formed: Formed, one: dict[int, Results]) -> Claim:
    within, across = [], []
    for seed, (result, _) in formed.items():
        moved = evidence.activity(result, "per_parameter").max(1)
        chosen = evidence.induction_heads(result)
        rest = np.setdiff1d(np.arange(len(moved)), chosen)
        if not len(chosen) or not len(rest):
            continue
        within.append(float(np.log2(moved[chosen].max() / moved[rest].max())))
        if seed in one:
            peak = evidence.activity(one[seed], "per_parameter").max()
            across.append(float(np.log2(peak / moved[chosen].max())))
    second = OverSeeds(across) if across else None

    def judge(found: OverSeeds) -> Verdict:
        if second is None:
            return "not tested"
        verdicts = {positive(found, SLACK), positive(second, SLACK)}
        if verdicts == {"reproduced"}:
            return "reproduced"
        return "refuted" if "refuted" in verdicts else "inconclusive"

    return decided(
        "B8",
        "induction heads have the largest weight change per parameter; yet a head of the 1-layer "
        "model exceeds them",
        POST,
        "log2 of the largest squared change per parameter between checkpoints, of induction heads "
        "over all other heads of the two-layer network, and of the one-layer network's heads over "
        f"the induction heads: reproduced if both intervals lie above 0, refuted if one lies below "
        f"{SLACK}",
        within,
        "log2",
        f"one layer over induction heads: {second or 'not run'}",
        judge,
        lambda found: f"Induction heads over others {found}; one layer over them {second}.",
    )


def _turns(formed: Formed, one: dict[int, Results]) -> Claim:
    two_layers, one_layer = [], []
    for seed, (result, (onset, _, end)) in formed.items():
        for runs, r in ((two_layers, result), (one_layer, one.get(seed))):
            if r is not None:
                runs.append(evidence.turn(r, onset, end) - evidence.turn_elsewhere(r, onset, end))
    second = OverSeeds([x for x in one_layer if math.isfinite(x)]) if one_layer else None

    def judge(found: OverSeeds) -> Verdict:
        if second is None:
            return "not tested"
        verdicts = {positive(found, SLACK), positive(second, SLACK)}
        if verdicts == {"reproduced"}:
            return "reproduced"
        return "refuted" if "refuted" in verdicts else "inconclusive"

    return decided(
        "B9",
        "the norm of the weight change turns at the phase change, in 1-layer models too",
        POST,
        "log2 of the largest change of all heads in the window over the geometric mean of those at "
        "onset/1.25 and 1.25 end, less the same of other windows of equal logarithmic width: "
        f"reproduced if the intervals of two layers and of one lie above 0, refuted if one lies "
        f"below {SLACK}",
        two_layers,
        "log2",
        f"other windows are subtracted; one layer: {second or 'not run'}",
        judge,
        lambda found: f"Two layers {found}, one layer in the same window {second}.",
    )


def _leads(formed: Formed) -> Claim:
    leads, others = [], []
    for result, (onset, middle, end) in formed.values():
        chosen = evidence.induction_heads(result)
        times = np.array(
            [
                evidence.rise_time(result, row, "gauge-free", onset, end)
                for row in range(len(evidence.layers(result)))
            ]
        )
        rest = np.setdiff1d(np.arange(len(times)), chosen)
        if len(chosen) and len(rest):
            leads.append(float((middle - times[chosen].mean()) / middle))
            others.append(float((middle - times[rest].mean()) / middle))
    differences = [a - b for a, b in zip(leads, others, strict=True)]
    return decided(
        "B10",
        "do the heads that become induction heads move before the others and before the loss drops",
        POST,
        "lead of the first lasting rise of a head's gauge-free movement (1.3 times its median "
        "between a quarter and a half of the onset, three intervals running) over the midpoint of "
        "the fall, as a share of the midpoint; mean over induction heads, other heads beside, "
        "paired difference",
        leads,
        "share of the midpoint",
        f"other heads {told(others)}; difference {told(differences)}",
        answered,
        lambda found: (
            f"Induction heads lead the fall by {found} of its step, by {told(differences)} more "
            "than other heads do."
        ),
    )


def _varied(results: Sequence[Results], formed: Formed) -> Claim:
    usual = [
        evidence.turn(r, a, b) - evidence.turn_elsewhere(r, a, b)
        for r, (a, _, b) in formed.values()
    ]
    turned: dict[str, list[float]] = {}
    for name, config in VARIED.items():
        for r in by_seed(results, replace(config, n_layers=2)).values():
            if (w := evidence.window(r)) is not None:
                excess = evidence.turn(r, w[0], w[2]) - evidence.turn_elsewhere(r, w[0], w[2])
                turned.setdefault(name, []).append(excess)
    lowest = min(turned, key=lambda name: float(np.nanmean(turned[name])), default="")
    enough = len(turned) == len(VARIED)
    words = "; ".join(f"{name} {told(values)}" for name, values in turned.items())
    return decided(
        "B11",
        "does the turn stay when warm-up, schedule, decay and batch are varied?",
        POST,
        "the statistic of B9 of two-layer networks under each variation, in their own window; the "
        "variation with the smallest mean decides",
        turned[lowest] if enough else [],
        "log2",
        f"the usual recipe: {told(usual)}",
        answered,
        lambda found: f"The smallest turn, with {lowest}, is {found}. {words}.",
    )


def _composition(formed: Formed) -> Claim:
    ratios: dict[str, list[float]] = {name: [] for name in "qkv"}
    for result, (_, middle, end) in formed.values():
        chosen = evidence.induction_heads(result)
        if not len(chosen):
            continue
        names = result.numbers["head_names"]
        writer = names[evidence.previous_token_head(result)]
        for kind in "qkv":
            pairs = result.numbers["compositions"][kind]
            curves = [pairs[k] for i in chosen if (k := f"{names[i]}<{writer}") in pairs]
            if curves:
                curve = np.array(curves).mean(0)
                time = evidence.half_rise(result.numbers["steps"], curve, 1.5 * end)
                ratios[kind].append(math.log2(time / middle) if time > 0 else math.nan)

    def judge(found: OverSeeds) -> Verdict:
        if found.high < SLACK:
            return "reproduced"
        return "refuted" if found.low > SLACK else "inconclusive"

    return decided(
        "B12",
        "composition between head pairs rises before or with the drop",
        POST,
        "log2 of the step at which K-composition of the induction heads with the previous-token "
        "head is halfway up, over the midpoint of the fall: reproduced if the interval lies below "
        f"{SLACK}, refuted if above; Q and V beside",
        ratios["k"],
        "log2",
        f"Q {told(ratios['q'])}, V {told(ratios['v'])}",
        judge,
        lambda found: f"K-composition is halfway up at {found} (log2) of the fall's midpoint.",
    )


def _carriers(formed: Formed) -> Claim:
    differences, random = [], []
    for result, (onset, _, end) in formed.values():
        chosen = evidence.induction_heads(result)
        moved = evidence.activity(result, "gauge-free")
        during = evidence.inside(result, onset, end)
        after = evidence.inside(result, 1.25 * end, result.numbers["steps"][-1])
        if not len(chosen) or not after.any():
            continue
        kept = np.log2(moved[:, after].mean(1) / moved[:, during].mean(1))
        carrier = evidence.previous_token_head(result)
        rest = np.setdiff1d(np.arange(len(kept)), [*chosen, carrier])
        differences.append(float(kept[chosen].mean() - kept[carrier]))
        if len(rest):
            random.append(float(kept[rest].mean() - kept[carrier]))
    return decided(
        "B13",
        "once a concept is learned its substrate stops changing while what reads it goes on",
        POST,
        "log2 of gauge-free movement after the fall (from 1.25 end on) over that during it, of the "
        "induction heads less that of the previous-token head that they read: reproduced if the "
        f"interval lies above 0, refuted if below {SLACK}",
        differences,
        "log2",
        f"other heads less the previous-token head: {told(random)}",
        partial(positive, slack=SLACK),
        lambda found: f"Readers keep {found} (log2) more of their movement than the carrier.",
    )


def _one_layer(one: dict[int, Results]) -> Claim:
    finals = [r.numbers["curves"]["copy_loss"][-1] for r in one.values()]
    bounds = [evidence.unigram_loss(r) for r in one.values()]
    excess = [a - b for a, b in zip(finals, bounds, strict=True)]
    stripe = [float(evidence.scores(r, "stripe")[:, -1].max()) for r in one.values()]
    copying = [float(evidence.scores(r, "copying")[:, -1].max()) for r in one.values()]
    return decided(
        "B14",
        "what does the 1-layer model learn at that time?",
        POST,
        "copy loss of the one-layer network at the end less that of a guess from the set of the "
        "segment's tokens without their order; largest stripe and copying score beside",
        excess,
        "nats",
        f"uniform over all tokens: {_uniform(one):.2f} nats; loss {told(finals)}",
        answered,
        lambda found: (
            f"It ends {found} nats from knowing which tokens occur without their order; largest "
            f"stripe {told(stripe)}, largest copying score {told(copying)}."
        ),
    )


def _uniform(one: dict[int, Results]) -> float:
    config = next((r.config for r in one.values()), DEFAULT)
    return math.log(config.d_vocab)


def _bases(formed: Formed) -> Claim:
    shares: dict[str, list[float]] = {"heads": [], "gauge-free": [], "singular directions": []}
    for result, (onset, _, end) in formed.values():
        within = evidence.inside(result, onset, end)
        for name, which in (("heads", "per_parameter"), ("gauge-free", "gauge-free")):
            moved = evidence.activity(result, which)[:, within].sum(1)
            shares[name].append(evidence.effective_share(moved))
        singular = np.array(result.numbers["moved"]["singular"])
        shares["singular directions"].append(evidence.effective_share(singular))
    words = "; ".join(f"{name} {told(values)}" for name, values in shares.items())
    return decided(
        "B15",
        "is the head basis the right one?",
        POST,
        "effective share of the parts that carry the movement (participation ratio over their "
        "number; small is concentrated): heads in the window, gauge-free changes of heads in the "
        "window, singular directions that the values read over the whole training",
        shares["gauge-free"],
        "share of the parts",
        "1 if all parts move alike",
        answered,
        lambda found: f"Effective shares: {words}.",
    )
