"""Decision rules about loss and monosemanticity: D1 and D2."""

from __future__ import annotations

import math

import numpy as np

from phasescope.experiments.monosemanticity.config import DECAYED, RATES
from phasescope.experiments.monosemanticity.evidence import Evidence, over
from phasescope.experiments.rules import Finding, Rule, verdict_of

_, PLAIN, MIDDLE, FAST = RATES.points  # learning rates .003, .01, .02, .03
START, FAST_START = DECAYED.points  # bias -1 with decay, at .01 and .02
VERY = 0.2  # difference of mono/N that counts as very different
NO_COST = 0.02  # relative increase of the loss below which there is no cost
HIGHLY = 0.5  # share of features with a monosemantic neuron that counts as highly monosemantic


def _d1(e: Evidence) -> Finding:
    by_rate, by_start = e.matched(PLAIN, FAST), e.matched(PLAIN, START)
    rate, start = over(by_rate), over(by_start)
    others = {"rates .01": (PLAIN, PLAIN), "rates .03": (FAST, FAST)}
    null = {name: over(np.abs(e.matched(*pair, shift=1))) for name, pair in others.items()}
    smaller = min(rate, start, key=lambda o: o.mean)
    return Finding(
        value=smaller.mean,
        interval=smaller.interval,
        unit="difference of mono/N (.9) at equal held-out loss, the smaller of the two pairs",
        null="size of the difference between two seeds of one setting: "
        + ", ".join(f"{name} {found}" for name, found in null.items()),
        n_seeds=min(rate.n_seeds, start.n_seeds),
        verdict=verdict_of(
            [rate.low > VERY, start.low > VERY], [rate.high < VERY, start.high < VERY]
        ),
        sentence=f"LAMB .03 minus .01: {rate} ({rate.n_seeds} of {len(by_rate)} seeds have a "
        f"matched pair); bias -1 with decay minus 0, both at .01: {start} ({start.n_seeds}). At "
        f"the end, unmatched, mono/N is {e.mean(PLAIN, 'mono_90')} at .01, "
        f"{e.mean(FAST, 'mono_90')} at .03 and {e.mean(START, 'mono_90')} from bias -1, with "
        f"losses {e.mean(PLAIN, 'loss')}, {e.mean(FAST, 'loss')} and {e.mean(START, 'loss')}; at "
        f"the threshold .999 mono/N is {e.mean(PLAIN, 'mono_999')}, {e.mean(FAST, 'mono_999')} and "
        f"{e.mean(START, 'mono_999')}.",
    )


def _d2(e: Evidence) -> Finding:
    mono, poly = e.mean(PLAIN, "bias_mono"), e.mean(PLAIN, "bias_poly")
    cost, fast_cost = e.ratio(START, PLAIN, "loss"), e.ratio(FAST_START, MIDDLE, "loss")
    covered = e.mean(START, "covered")
    zero = math.log1p(NO_COST)
    beside = {
        f"LAMB {c.learning_rates[0]:g}": (e.mean(c, "bias_mono"), e.mean(c, "bias_poly"))
        for c in (MIDDLE, FAST)
    }
    return Finding(
        value=cost.mean,
        interval=cost.interval,
        unit="ln of the held-out loss from bias -1 with decay over that from bias 0 (LAMB .01)",
        null=f"from bias 0 {e.mean(PLAIN, 'covered')} of the features have a monosemantic neuron",
        n_seeds=min(mono.n_seeds, cost.n_seeds),
        verdict=verdict_of(
            [mono.high < 0, poly.low > 0, cost.high < zero, covered.low > HIGHLY],
            [mono.low > 0, poly.high < 0, cost.low > zero, covered.high < HIGHLY],
        ),
        sentence=f"From bias 0 at .01 the mean bias is {mono} of monosemantic and {poly} of "
        "polysemantic neurons ("
        + ", ".join(f"at {name} {a} and {b}" for name, (a, b) in beside.items())
        + f"). From bias -1 with decay {covered} of the features have a monosemantic neuron at "
        f".01, at a loss {np.exp(cost.mean):.3g} times that from bias 0; at .02 "
        f"{e.mean(FAST_START, 'covered')} at {np.exp(fast_cost.mean):.3g} times.",
    )


RULES = (
    Rule(
        "D1",
        "same loss, very different monosemanticity, decided by learning rate and initialisation "
        "(losses matched within 2% held-out)",
        "N 64, d 32, k 128, uniform density 1/32, 4,224 steps of LAMB. For every seed, of all "
        "pairs of annealed records (learning rate zero) after the first quarter whose held-out "
        "losses differ by 2% at most the pair with the lowest losses; mono/N at the threshold .9. "
        "Pairs of settings: learning rates .01 and .03 from bias 0; biases 0 and -1 with decay .3 "
        "at .01. Reproduced if the 95% interval of the difference lies above .2 for both; refuted "
        "if it lies below .2 for one.",
        (RATES, DECAYED),
        _d1,
    ),
    Rule(
        "D2",
        "mono neurons have negative, poly neurons small positive bias; bias -1 with decay gives "
        "highly mono at no cost",
        "At the end (learning rate zero, threshold .9), LAMB .01. Reproduced if the 95% intervals "
        "say: from bias 0 the mean bias of monosemantic neurons is negative and that of the other "
        "living neurons positive; from bias -1 with decay .3 more than half of the features have a "
        "monosemantic neuron, at a held-out loss at most 2% above that from bias 0, seed by seed. "
        "Refuted if one says the opposite. LAMB .02 and .03 are shown beside.",
        (RATES, DECAYED),
        _d2,
    ),
)
