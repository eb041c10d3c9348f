"""The claims; their rules were committed before any seed ran."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from phasescope.experiments.deciding import answered, decided, positive, told
from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.resnet_gradients import evidence
from phasescope.experiments.resnet_gradients.config import (
    DEFAULT,
    NO_DECAY,
    SOURCE,
    Results,
    Runs,
)
from phasescope.experiments.resnet_gradients.layer_claims import (
    freezing_claim,
    stitching_claim,
)
from phasescope.experiments.resnet_gradients.unit_claims import unit_claims
from phasescope.experiments.rules import verdict_of
from phasescope.experiments.settings import by_seed
from phasescope.report import Claim, Verdict

SLACK = 0.2  # rank correlation, or log₂, that counts as none
DROP = math.log2(1.5)  # a steep initial drop
RISE = math.log2(1.25)  # a rise; blocks of 38 steps leave about .1 of the noise of single steps
NO_RISE = math.log2(1.1)
GONE = 0.5  # share of the rise that an explanation must take away
REVERSAL = (0.1, 0.25)  # of the whole fall: at most the first is monotonic, above the second not
SPREAD = math.log2(1.25)  # of noise between layers


def claims(results: Sequence[Results]) -> list[Claim]:
    """Verdicts over runs; trainings too short for their weight decay give none.

    Args:
        results: Runs of any settings; those of the preset `default` decide.
    """
    runs = by_seed(results, DEFAULT) if evidence.long_enough(DEFAULT) else {}
    free = by_seed(results, NO_DECAY)
    return [
        _early_first(runs, free),
        _early_slower(runs),
        _rise(runs, free),
        _double_descent(runs, free),
        _noise(runs),
        _final_layer(runs),
        _smoothing(runs),
        *unit_claims(results),
        freezing_claim(results),
        stitching_claim(results),
    ]


def _order(result: Results, which: str = "gradients") -> float:
    rows = evidence.layers(result, "conv")
    return evidence.depth_correlation(result, evidence.shape(result, "half_drop", which), rows)


def _early_first(runs: Runs, free: Runs) -> Claim:
    return decided(
        "B1",
        "gradient norms of early layers drop earlier than those of later layers",
        SOURCE,
        "Spearman's correlation, over the convolutions of the main path, of depth with the step at "
        "which the smoothed (.92) log norm is half-way from its start to the lowest twentieth of "
        "the first half of training. Reproduced if the 95% interval lies above 0, refuted if below "
        f"{SLACK:g}.",
        [_order(r) for r in runs.values()],
        "rank correlation",
        "0 for depths in random order; "
        f"of ‖g‖‖w‖ {told([_order(r, 'angular') for r in runs.values()])}; "
        f"without weight decay {told([_order(r) for r in free.values()])}",
        partial(positive, slack=SLACK),
        lambda found: f"The rank correlation of depth with the time of the drop is {found}.",
    )


def _early_slower(runs: Runs) -> Claim:
    early, late = [], []
    for r in runs.values():
        a, b = evidence.thirds(r, evidence.shape(r, "movement"), evidence.layers(r, "conv"))
        early.append(a)
        late.append(b)
    ratios = [evidence.speed_ratio(r) for r in runs.values()]
    return decided(
        "B2",
        "after the first drop the gradient norms of early layers move more slowly",
        SOURCE,
        "Root mean square change of log₂ norm between successive twentieths of the training after "
        "the first drop, its noise subtracted: mean of the last third of the convolutions of the "
        "main path less that of the first third. Reproduced if the 95% interval lies above 0, "
        "refuted if below 0.",
        [b - a for a, b in zip(early, late, strict=True)],
        "log2 per twentieth",
        f"first third {told(early)}, last third {told(late)}",
        lambda found: verdict_of([found.low > 0], [found.high < 0]),
        lambda found: (
            f"Norms of the last third move by {found} more than those of the first. The drop "
            f"itself is {told(ratios)} (log2) times as fast as what comes after it."
        ),
    )


def _rise(runs: Runs, free: Runs) -> Claim:
    def of(
        which: str, kinds: Sequence[str], source: Runs, *, invariant: bool = False
    ) -> list[float]:
        return [
            evidence.mean(r, "rise", evidence.layers(r, *kinds, invariant=invariant), which)
            for r in source.values()
        ]

    def drop(*kinds: str) -> list[float]:
        return [evidence.mean(r, "drop", evidence.layers(r, *kinds)) for r in runs.values()]

    kinds = {"batch norm": ("bn",), "downsampling": ("downsample conv", "downsample bn")}
    rising = {name: of("gradients", k, runs) for name, k in kinds.items()}
    drops = {name: drop(*k) for name, k in kinds.items()}
    scaled = ("bn", "downsample conv")
    raw = of("gradients", scaled, runs, invariant=True)
    angular = of("angular", scaled, runs, invariant=True)
    both = [s for s in runs if s in free]
    decayed = of("gradients", scaled, {s: runs[s] for s in both})
    undecayed = of("gradients", scaled, {s: free[s] for s in both})
    # What an explanation leaves beyond the share that it may leave: below 0 where it explains.
    left = [a - (1 - GONE) * b for a, b in zip(angular, raw, strict=True)]
    left_free = [a - (1 - GONE) * b for a, b in zip(undecayed, decayed, strict=True)]

    def judge(found: OverSeeds) -> Verdict:
        if not left_free:
            return "not tested"
        rises = [OverSeeds(v) for v in rising.values()]
        falls = [OverSeeds(v) for v in drops.values()]
        explained = [OverSeeds(left), OverSeeds(left_free)]
        return verdict_of(
            [x.low > RISE for x in rises]
            + [x.low > DROP for x in falls]
            + [x.high < 0 for x in explained],
            [x.high < NO_RISE for x in rises]
            + [x.high < DROP for x in falls]
            + [x.low > 0 for x in explained],
        )

    return decided(
        "B3",
        "BatchNorm and downsample gradients rise after a steep initial drop; the rise is gone for "
        "‖g‖‖w‖ and without weight decay",
        SOURCE,
        "log2 of norms in twentieths of the training. Drop: start over the lowest twentieth of the "
        "first half. Rise: the highest twentieth after it. Means over batch norms (weight and bias "
        "together) and over downsampling layers. Reproduced if, by the 95% intervals, both kinds "
        "drop by a factor above 1.5 and rise by one above 1.25, and the rise of scale-invariant "
        "layers (inner batch norms, downsampling convolutions) shrinks by more than half for "
        "‖g‖‖w‖, and that of batch norms and downsampling convolutions without weight decay. "
        "Refuted if a part fails: a drop below 1.5, a rise below 1.1, or less than half gone.",
        rising["batch norm"],
        "log2, rise of batch norms",
        f"‖g‖‖w‖ of scale-invariant layers {told(angular)}, their ‖g‖ {told(raw)}; without "
        f"weight decay {told(undecayed)}, with it {told(decayed)}",
        judge,
        lambda found: (
            f"Batch norms drop by {told(drops['batch norm'])} (log2) and rise by {found}; "
            f"downsampling drops by {told(drops['downsampling'])} and rises by "
            f"{told(rising['downsampling'])}. Of scale-invariant layers ‖g‖ rises by "
            f"{told(raw)}, ‖g‖‖w‖ by {told(angular)}; without weight decay ‖g‖ rises by "
            f"{told(undecayed)} instead of {told(decayed)}."
        ),
    )


def _double_descent(runs: Runs, free: Runs) -> Claim:
    def marked(source: Runs, which: str = "gradients") -> list[float]:
        return [
            evidence.mean(r, "double_descent", evidence.layers(r, "conv"), which)
            for r in source.values()
        ]

    orders = [
        evidence.depth_correlation(
            r, evidence.shape(r, "double_descent"), evidence.layers(r, "conv")
        )
        for r in runs.values()
    ]
    known = [v for v in orders if math.isfinite(v)]

    def judge(found: OverSeeds) -> Verdict:
        if not known:
            return "refuted" if found.high < RISE else "inconclusive"
        order = OverSeeds(known)
        return verdict_of(
            [found.low > RISE, order.low > 0], [found.high < RISE, order.high < SLACK]
        )

    return decided(
        "B4",
        "norms follow a double descent, more marked in later layers",
        SOURCE,
        "The smaller of the rise after the first drop and the fall after that, in log2 of norms in "
        "twentieths of the training, mean over the convolutions of the main path; and Spearman's "
        "correlation of it with depth. Reproduced if the 95% intervals lie above log2 1.25 and "
        f"above 0; refuted if one lies below log2 1.25 or below {SLACK:g}.",
        marked(runs),
        "log2",
        f"without weight decay {told(marked(free))}; of ‖g‖‖w‖ {told(marked(runs, 'angular'))}",
        judge,
        lambda found: (
            f"Norms of convolutions rise and fall again by {found}; the rank correlation with "
            f"depth is {told(orders)}."
        ),
    )


def _noise(runs: Runs) -> Claim:
    profiles = [evidence.shape(r, "noise")[evidence.layers(r, "conv")] for r in runs.values()]
    agreed = evidence.agreement(profiles) if len(profiles) > 1 else []
    spread = [evidence.log_spread(p) for p in profiles]
    shares = [evidence.noise_share(r)[evidence.layers(r, "conv")] for r in runs.values()]
    first, last = ([float(s[i]) for s in shares] for i in (0, -1))

    def judge(found: OverSeeds) -> Verdict:
        wide = OverSeeds(spread)
        return verdict_of(
            [found.low > SLACK, wide.low > SPREAD], [found.high < SLACK, wide.high < SPREAD]
        )

    return decided(
        "B5",
        "the noise of the norm depends on the layer",
        SOURCE,
        "Standard deviation of log2 norms between successive steps (by the median, over √2, after "
        "the first twentieth) of the convolutions of the main path: Spearman's correlation of each "
        "seed's profile with the mean of the other seeds', and log2 of the largest over the "
        f"smallest. Reproduced if the 95% intervals lie above {SLACK:g} and above log2 1.25; "
        "refuted if one lies below.",
        agreed,
        "rank correlation between seeds",
        "0 for noise that does not depend on the layer",
        judge,
        lambda found: (
            f"Profiles of seeds agree by {found}; the noisiest layer has {told(spread)} (log2) "
            "times the noise of the quietest. Share of noise in the gradient of a batch in "
            f"the second half: {told(first)} in the first convolution, {told(last)} in the last."
        ),
    )


def _final_layer(runs: Runs) -> Claim:
    def reversal(kind: str) -> list[float]:
        return [
            float(np.median(evidence.shape(r, "reversal")[evidence.layers(r, kind)]))
            for r in runs.values()
        ]

    falls = [evidence.mean(r, "drop", evidence.layers(r, "fc")) for r in runs.values()]
    low, high = REVERSAL
    return decided(
        "B6",
        "the gradient norm of the final layer falls monotonically",
        SOURCE,
        "Largest rise of log2 norm between two twentieths of the training, later over earlier, as "
        f"a share of the whole fall. Reproduced if the 95% interval lies below {low:g}, refuted if "
        f"above {high:g}.",
        reversal("fc"),
        "share of the fall",
        f"median convolution of the main path: {told(reversal('conv'))}",
        lambda found: verdict_of([found.high < low], [found.low > high]),
        lambda found: (
            f"The largest reversal is {found} of the fall; the first drop is {told(falls)} (log2)."
        ),
    )


def _smoothing(runs: Runs) -> Claim:
    def share(s: str, result: Results) -> float:
        rows = evidence.layers(result, "conv")
        table = result.numbers["smoothing"]
        a, raw = (np.array(table[x]["scatter"])[rows] for x in (s, "0"))
        return float((a / raw).mean())

    def order(s: str, result: Results) -> float:
        values = [math.nan if v is None else v for v in result.numbers["smoothing"][s]["half_drop"]]
        rows = evidence.layers(result, "conv")
        return evidence.depth_correlation(result, np.array(values), rows)

    written, meant = ([share(s, r) for r in runs.values()] for s in ("0.08", "0.92"))
    orders = {s: told([order(s, r) for r in runs.values()]) for s in ("0", "0.08", "0.92")}
    return decided(
        "B7",
        "what does the smoothing of the source (.08) show, against .92 and raw norms",
        SOURCE,
        "Scatter of the smoothed log norm around a running mean over a twentieth of the training, "
        "as a share of the raw norm's, mean over the convolutions of the main path, at .08. "
        "Beside: the same at .92, and the statistic of B1 at each smoothing.",
        written,
        "share of the raw scatter",
        "white noise keeps .92 at .08 and .20 at .92",
        answered,
        lambda found: (
            f"At .08 {found} of the scatter is left, at .92 {told(meant)}. The rank correlation "
            f"of B1 is {orders['0']} raw, {orders['0.08']} at .08 and {orders['0.92']} at .92."
        ),
    )
