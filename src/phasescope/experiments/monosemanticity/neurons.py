"""Decision rules about neurons: the bias-only phase and its skips (D6), many at few flops (D7)."""

from __future__ import annotations

import numpy as np

from phasescope.experiments.monosemanticity.config import (
    DECAYED,
    FEW_RATES,
    GATED,
    RATES,
    SKIPS,
    SMALL,
    TOP_K,
    multiplications,
)
from phasescope.experiments.monosemanticity.evidence import Evidence, over
from phasescope.experiments.rules import Finding, Rule

START = DECAYED.points[0]  # bias -1 with decay, LAMB .01
DENSE, FEW = RATES.points[1], FEW_RATES.points[0]  # k 128 and 48, LAMB .01


def _d6(e: Evidence) -> Finding:
    silent = e.mean(START, "silent_share")
    alive = e.mean(START, "with_gradient")
    saved = {
        rule: over(e.values(START, "t_half") - e.values(config, "t_half"))
        for rule, config in SKIPS.items()
    }
    tenth = {
        rule: over(e.values(START, "t_tenth") - e.values(config, "t_tenth"))
        for rule, config in SKIPS.items()
    }
    said = []
    for rule, config in SKIPS.items():
        said.append(
            f"{rule.replace('_', ' ')}: {saved[rule]} steps to half of the zero predictor's loss, "
            f"{tenth[rule]} to a tenth; at the end loss {e.mean(config, 'loss')}, mono/N "
            f"{e.mean(config, 'mono_90')}, dead {e.mean(config, 'dead')}"
        )
    first = np.nanmedian(e.values(START, "t_half"))
    return Finding(
        value=silent.mean,
        interval=silent.interval,
        unit="share of the steps in which no neuron has a gradient (bias -1, decay .3, LAMB .01)",
        null=f"from bias 0 without decay: {e.mean(DENSE, 'silent_share')} of the steps, "
        f"{e.mean(DENSE, 'with_gradient')} of the neurons with gradient",
        n_seeds=silent.n_seeds,
        verdict="answered",
        sentence=f"In {silent} of the steps only biases move; over the training a neuron has a "
        f"gradient in {alive} of the steps. From bias -1 half of the zero predictor's loss takes "
        f"{first:.0f} steps (median). Saved by skipping: " + "; ".join(said) + f". Without a skip "
        f"the end is loss {e.mean(START, 'loss')}, mono/N {e.mean(START, 'mono_90')}, dead "
        f"{e.mean(START, 'dead')}.",
    )


def _d7(e: Evidence) -> Finding:
    top, gated = (
        e.difference(sparse, dense, "mono_90") for sparse, dense in ((TOP_K, FEW), (GATED, SMALL))
    )
    every = {
        "dense k 128": DENSE,
        "top 8 of 128": TOP_K,
        "dense k 48": FEW,
        "2 of 8 groups of 16": GATED,
        "dense k 32": SMALL,
    }
    return Finding(
        value=top.mean,
        interval=top.interval,
        unit="mono/N (.9) of top 8 of 128 neurons minus that of 48 dense ones",
        null=f"128 dense neurons minus 48: {e.difference(DENSE, FEW, 'mono_90')}",
        n_seeds=min(top.n_seeds, gated.n_seeds),
        verdict="answered",
        sentence=f"At as many multiplications top-k gains {top}, gates gain {gated} mono/N. "
        + "; ".join(
            f"{name} ({multiplications(c):,} a row): mono/N {e.mean(c, 'mono_90')}, loss "
            f"{e.mean(c, 'loss')}, dead {e.mean(c, 'dead').mean:.2g}"
            for name, c in every.items()
        )
        + ". LAMB .01.",
    )


RULES = (
    Rule(
        "D6",
        "how large is the bias-only phase (share of steps, of neurons with gradient), how much is "
        "saved by max, per-neuron and quantile skips",
        "Bias -1 with decay .3 at LAMB .01: share of the steps in which no neuron of the batch "
        "has a gradient; steps that each rule saves until the training loss (means of 32 steps) "
        "is at a half, and a tenth, of the zero predictor's, seed by seed, with the same decay.",
        (DECAYED, RATES, *SKIPS.values()),
        _d6,
    ),
    Rule(
        "D7",
        "many neurons at few flops: gated or top-k neurons",
        "LAMB .01, 4,224 steps: mono/N (.9) at the end of the 8 largest of 128 neurons minus 48 "
        "dense ones, and of 2 of 8 gated groups of 16 minus 32 dense ones, which multiply with "
        "about as many weights for each row; losses beside.",
        (RATES, FEW_RATES, TOP_K, GATED, SMALL),
        _d7,
    ),
)
