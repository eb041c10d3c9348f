"""Decision rules of the claims about losses behind a softmax: E9 and E10."""

from __future__ import annotations

import numpy as np

from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.rules import Finding, Rule, Share, share, verdict_of
from phasescope.experiments.s_curves.config import (
    ADAM,
    CROSS_ENTROPY,
    GD,
    SOFTMAX_ERROR,
    WARM_CROSS_ENTROPY,
    Config,
)
from phasescope.experiments.s_curves.evidence import Evidence

NOT_ZERO = 1e-3  # of the first loss


def _left(e: Evidence, config: Config) -> Share:
    """Share of seeds that end above a thousandth of their first loss; diverged ones count."""
    ends = e.values(config, "end")
    return share(~(ends <= NOT_ZERO))


def _two(e: Evidence, config: Config) -> Share:
    return share(e.finite(config, "n_rises") >= 2)


def _e9(e: Evidence) -> Finding:
    two = _two(e, CROSS_ENTROPY[2])
    left = _left(e, CROSS_ENTROPY[10])
    full = e.with_plateau(CROSS_ENTROPY[100])
    squared = _two(e, ADAM[2])
    return Finding(
        value=two.mean,
        interval=two.interval,
        unit="share of seeds with two or more S's (rank 2, cross-entropy)",
        null=f"squared error, rank 2: {squared} (Adam), {_two(e, GD[2])} (SGD)",
        n_seeds=min(two.n_seeds, left.n_seeds, full.n_seeds),
        verdict=verdict_of(
            [two.low > 0.5, left.low > 0.5, full.high < 0.1],
            [two.high < 0.5, left.high < 0.5, full.low > 0.1],
        ),
        sentence=f"Rank 2: {two} of the seeds have two S's; rank 10: {left} end above a thousandth "
        f"of the first loss after 3,000 steps (median {e.median(CROSS_ENTROPY[10], 'end'):.2g}; at "
        f"temperature √10 {_left(e, WARM_CROSS_ENTROPY)} do, median "
        f"{e.median(WARM_CROSS_ENTROPY, 'end'):.2g}); full rank: {full} have a plateau.",
    )


def _e10(e: Evidence) -> Finding:
    pairs = {
        2: (SOFTMAX_ERROR[2], CROSS_ENTROPY[2]),
        10: (SOFTMAX_ERROR[10], WARM_CROSS_ENTROPY),
        100: (SOFTMAX_ERROR[100], CROSS_ENTROPY[100]),
    }
    reached = {
        r: [share(np.isfinite(e.values(c, "t1"))) for c in pair] for r, pair in pairs.items()
    }
    changes = [np.isfinite(e.values(c, "t1")).astype(float) for c in pairs[2]]
    n = min(map(len, changes))
    difference = OverSeeds((changes[0][:n] - changes[1][:n]).tolist())
    rises = {r: [e.mean(c, "n_rises").mean for c in pair] for r, pair in pairs.items()}
    ends = {r: [e.median(c, "end") for c in pair] for r, pair in pairs.items()}
    return Finding(
        value=difference.mean,
        interval=difference.interval,
        unit="share of seeds that reach 1% of the first loss, squared error minus cross-entropy "
        "(rank 2)",
        null="cross-entropy from the same starts: "
        + ", ".join(f"rank {r} {b}" for r, (_, b) in reached.items()),
        n_seeds=difference.n_seeds,
        verdict="answered",
        sentence="Squared error of the softmax reaches 1% in "
        + ", ".join(f"{a} (rank {r})" for r, (a, _) in reached.items())
        + " of the seeds; mean number of S's beside cross-entropy "
        + ", ".join(f"rank {r} {a:.2g} and {b:.2g}" for r, (a, b) in rises.items())
        + "; median end "
        + ", ".join(f"{a:.2g} and {b:.2g}" for a, b in ends.values())
        + ". Where the softmax saturates its gradient vanishes, and seeds stand still.",
    )


RULES = (
    Rule(
        "E9",
        "cross-entropy at rank 2 shows two plateaus; rank 10 does not reach zero; full rank is "
        "unchanged",
        "Entries N(0, 1), Adam .02, temperature 1 (rank 100: 10). Reproduced if the 95% intervals "
        "say: above half of the rank-2 seeds have two or more S's, above half of the rank-10 seeds "
        "end above a thousandth of the first loss after 3,000 steps, and below .1 of the rank-100 "
        "seeds have a plateau; refuted if one says the opposite.",
        (*CROSS_ENTROPY.values(), WARM_CROSS_ENTROPY, ADAM[2], GD[2]),
        _e9,
    ),
    Rule(
        "E10",
        "softmax output with squared error, apart from cross-entropy",
        "The same settings with squared error of the softmax (rank 10 at temperature √10): share "
        "of seeds that reach 1% of the first loss, minus that of cross-entropy, at rank 2; the "
        "other ranks, the number of S's and the ends beside.",
        (*CROSS_ENTROPY.values(), WARM_CROSS_ENTROPY, *SOFTMAX_ERROR.values()),
        _e10,
    ),
)
