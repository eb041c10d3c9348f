"""Decision rules of the claims about plateaus and decay: E1, E2, E3, E8 and E11."""

from __future__ import annotations

import numpy as np

from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.rules import Finding, Rule, share, verdict_of
from phasescope.experiments.s_curves.config import (
    ADAM,
    ADAMW,
    BALANCED,
    DECAYED,
    GD,
    SMALL,
    UNBALANCED,
)
from phasescope.experiments.s_curves.evidence import Evidence, log_ratio


def _e1(e: Evidence) -> Finding:
    with_plateau = {rank: e.with_plateau(config) for rank, config in GD.items()}
    ratios = {rank: e.median(config, "s_ratio") for rank, config in GD.items()}
    low = with_plateau[1], with_plateau[2]
    full = with_plateau[100]
    difference = OverSeeds(
        (
            (e.finite(GD[1], "s_ratio") >= 2).astype(float)
            - (e.finite(GD[100], "s_ratio") >= 2).astype(float)
        ).tolist()
        if len(e.finite(GD[1], "s_ratio")) == len(e.finite(GD[100], "s_ratio"))
        else [low[0].mean - full.mean]
    )
    return Finding(
        value=difference.mean,
        interval=difference.interval,
        unit="share of seeds with a plateau, rank 1 minus rank 100",
        null=f"an exponential has S-ratio 1; full rank: {full} of the seeds have a plateau",
        n_seeds=min(s.n_seeds for s in with_plateau.values()),
        verdict=verdict_of(
            [*(s.low >= 0.9 for s in low), full.high <= 0.1],
            [*(s.high < 0.9 for s in low), full.low > 0.1],
        ),
        sentence="Share of seeds with a plateau: "
        + ", ".join(f"rank {rank} {s}" for rank, s in with_plateau.items())
        + "; median S-ratio "
        + ", ".join(f"{ratio:.3g}" for ratio in ratios.values())
        + ". Rank 10 of 100 is shown beside and does not decide.",
    )


def _e2(e: Evidence) -> Finding:
    exponential, algebraic = (
        e.values(GD[1], f"{kind}_residual") for kind in ("exponential", "algebraic")
    )
    known = np.isfinite(exponential) & np.isfinite(algebraic)
    difference = OverSeeds((exponential - algebraic)[known].tolist())
    closer = share(exponential[known] < algebraic[known])
    growth = e.mean(GD[1], "growth_rate")
    small = (
        e.mean(SMALL[1, 0.1], "exponential_residual"),
        e.mean(SMALL[1, 0.1], "algebraic_residual"),
    )
    return Finding(
        value=difference.mean,
        interval=difference.interval,
        unit="log residual of the exponential minus that of the algebraic law",
        null=f"the algebraic law 1/(a + bt) leaves {OverSeeds(algebraic[known].tolist())}",
        n_seeds=difference.n_seeds,
        verdict=verdict_of([difference.high < 0], [difference.low > 0]),
        sentence=f"The exponential leaves {OverSeeds(exponential[known].tolist())} and is closer "
        f"in {closer} of the seeds; from starts of a tenth of the size the exponential leaves "
        f"{small[0]}, the algebraic law {small[1]}. Meanwhile the right component grows at "
        f"{growth} of its final rate 2s.",
    )


def _e3(e: Evidence) -> Finding:
    plain = GD[1]
    parts = []
    for decay, config in DECAYED.items():
        longer = e.paired(config, plain, "t_tenth", log_ratio)
        sooner = e.paired(config, plain, "t_irrelevant", log_ratio)
        end = e.mean(config, "end")
        parts.append((decay, longer, sooner, end))
    control = e.mean(plain, "end")
    excess = e.mean(DECAYED[0.3], "end_excess")
    s = e.finite(plain, "singular_value")
    predicted = float(np.mean(s / (s - 0.3)))
    _, longer, sooner, _ = parts[-1]
    ratio = np.exp([longer.mean, longer.low, longer.high])
    told = "; ".join(
        f"decay {decay:g}: {np.exp(up.mean):.3g} times as long to a tenth of the end, "
        f"{np.exp(down.mean):.3g} times as long until a tenth of the irrelevant part is left, end "
        f"at {end.mean:.3g} of the first loss"
        for decay, up, down, end in parts
    )
    return Finding(
        value=float(ratio[0]),
        interval=(float(ratio[1]), float(ratio[2])),
        unit="steps to a tenth of the end, decay .3 over none (geometric mean)",
        null=f"without decay 1 by definition, and the loss ends at {control.mean:.2g} of its first "
        f"value; theory: growth slower by s/(s - .3) = {predicted:.3g}",
        n_seeds=min(longer.n_seeds, sooner.n_seeds),
        verdict=verdict_of(
            [
                up.low > 0 and down.high < 0 and end.low > 100 * control.high
                for _, up, down, end in parts
            ],
            [
                up.high < 0 or down.low > 0 or end.high < 100 * control.high
                for _, up, down, end in parts
            ],
        ),
        sentence=f"{told}. With decay .3 the loss ends {excess.mean:.2g} above λ²/2, "
        "which the closed form gives: no minimum of the loss.",
    )


def _e8(e: Evidence) -> Finding:
    config = ADAMW[0.01]
    faster = e.paired(config, GD[1], "t1", log_ratio)
    plateau = e.with_plateau(config)
    bumps = share(e.finite(config, "bumps") > 0)
    by_decay = e.paired(config, ADAM[1], "t1", log_ratio)
    strong = e.paired(ADAMW[0.1], ADAM[1], "t1", log_ratio)
    ratio = np.exp([faster.mean, faster.low, faster.high])
    return Finding(
        value=float(ratio[0]),
        interval=(float(ratio[1]), float(ratio[2])),
        unit="steps to 1% of the loss, AdamW over SGD (geometric mean)",
        null=f"Adam without decay: AdamW takes {np.exp(by_decay.mean):.4g} times its steps (decay "
        f".01), {np.exp(strong.mean):.4g} (decay .1)",
        n_seeds=faster.n_seeds,
        verdict=verdict_of(
            [faster.high < 0, plateau.low >= 0.9, bumps.high <= 0.1],
            [faster.low > 0, plateau.high < 0.9, bumps.low > 0.1],
        ),
        sentence=f"At these learning rates (.01 and .05, not matched) AdamW is faster by the "
        f"factor {1 / ratio[0]:.3g}; {plateau} of its seeds have a plateau (median S-ratio "
        f"{e.median(config, 's_ratio'):.3g}, SGD {e.median(GD[1], 's_ratio'):.3g}) and {bumps} "
        "have a bump. What the decay itself does is in the control.",
    )


def _e11(e: Evidence) -> Finding:
    rate = GD[1].learning_rate
    later = e.values(SMALL[1, 0.01], "t_half") - e.values(SMALL[1, 0.1], "t_half")
    s = e.values(SMALL[1, 0.1], "singular_value")
    slopes = later * rate * s / np.log(10)
    slope = OverSeeds(slopes[np.isfinite(slopes)].tolist())
    gaps = e.values(GD[1], "t_half") / e.values(GD[1], "t_half_theory")
    gap = OverSeeds(gaps[np.isfinite(gaps)].tolist())
    full = {
        1.0: e.median(GD[100], "s_ratio"),
        0.3: e.median(SMALL[100, 0.3], "s_ratio"),
        0.1: e.median(SMALL[100, 0.1], "s_ratio"),
    }
    ranks = {
        rank: (e.median(GD[rank], "s_ratio"), e.median(SMALL[rank, 0.1], "s_ratio"))
        for rank in (1, 2, 10)
    }
    balance = {
        rank: [e.median(c, "t1") for c in (BALANCED[rank], GD[rank], UNBALANCED[rank])]
        for rank in (1, 2, 10)
    }
    return Finding(
        value=slope.mean,
        interval=slope.interval,
        unit="delay of the half time from start x.1 to x.01, over ln(10) / s",
        null=f"theory: 1; half times over those of the four equations at start x1: {gap}",
        n_seeds=slope.n_seeds,
        verdict="answered",
        sentence="Smaller starts lengthen the plateau by ln(1/scale)/s and give it to every rank: "
        "median S-ratio from start x1 to x.1 "
        + ", ".join(f"rank {r} {a:.3g} to {b:.3g}" for r, (a, b) in ranks.items())
        + f", full rank {full[1.0]:.3g}, {full[0.3]:.3g} (x.3) and {full[0.1]:.3g} (x.1). Median "
        "steps to 1%, balanced / as drawn / |X| 4 times |Y|: "
        + ", ".join(f"rank {r} " + " / ".join(f"{t:.0f}" for t in ts) for r, ts in balance.items())
        + ".",
    )


RULES = (
    Rule(
        "E1",
        "low rank gives plateau and S-curve, full rank (100) none, under gradient descent",
        "A seed has a plateau if its S-ratio (largest factor by which -d ln L/dt rises until the "
        "loss is at 1%) is 2 or more. Reproduced if the 95% interval of the share of such seeds "
        "lies above .9 at ranks 1 and 2 and below .1 at rank 100; refuted if one lies on the other "
        "side.",
        tuple(GD.values()),
        _e1,
    ),
    Rule(
        "E2",
        "irrelevant components decay exponentially on the plateau (or algebraically, as the closed "
        "form says), while the right one grows slowly",
        "Rank 1, SGD: the irrelevant part √(pq), until a tenth of the target is learned, fitted by "
        "c·exp(-bt) and by 1/(a + bt). Reproduced if the 95% interval of the difference of their "
        "root mean square log residuals (exponential minus algebraic) lies below 0, refuted if "
        "above: then the decay is algebraic.",
        (GD[1], SMALL[1, 0.1]),
        _e2,
    ),
    Rule(
        "E3",
        "weight decay extends the exponential phase, speeds the initial decay, and the end is no "
        "minimum of the loss",
        "Rank 1, SGD, decay .1 and .3 against none, seed by seed. Reproduced if for both the 95% "
        "intervals say: later at a tenth of the final product, sooner at a tenth of the irrelevant "
        "part, and a final loss above 100 times that without decay; refuted if one of them says "
        "the opposite.",
        (GD[1], *DECAYED.values()),
        _e3,
    ),
    Rule(
        "E8",
        "AdamW at rank 1 only accelerates",
        "AdamW .01 with decay .01 against SGD .05. Reproduced if the 95% intervals say: fewer "
        "steps to 1% seed by seed, a plateau in above .9 of the seeds, and bumps in below .1 of "
        "them; refuted if one says the opposite.",
        (GD[1], ADAM[1], *ADAMW.values()),
        _e8,
    ),
    Rule(
        "E11",
        "what the scale and balance of initialisation do",
        "Rank 1, SGD: delay of the time at which half is learned when the start shrinks from x.1 "
        "to x.01, in units of the theory's ln(10)/s; S-ratios and times of the other ranks beside.",
        (*GD.values(), *SMALL.values(), *BALANCED.values(), *UNBALANCED.values()),
        _e11,
    ),
)
