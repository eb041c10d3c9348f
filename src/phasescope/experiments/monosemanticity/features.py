"""Decision rules about what becomes of which feature: D3, D4 and D5."""

from __future__ import annotations

import numpy as np

from phasescope.experiments.monosemanticity.config import (
    FEW_POWER_RATES,
    FEW_POWER_STARTS,
    FEW_RATES,
    FEW_STARTS,
    IMPORTANCE,
    LONG,
    LONG_FEW,
    LONG_FEW_POWER,
    LONG_POWER,
    Config,
)
from phasescope.experiments.monosemanticity.evidence import Evidence
from phasescope.experiments.rules import Finding, Rule, Share, share, verdict_of

SOME = 0.05  # share of the features that counts as some


def _both(e: Evidence, config: Config) -> Share:
    """Share of seeds with some monosemantic and some polysemantic features."""
    mono, ignored = e.values(config, "covered"), e.values(config, "ignored")
    return share((mono >= SOME) & (1 - mono - ignored >= SOME))


def _d3(e: Evidence) -> Finding:
    slow, main = FEW_RATES.points
    slow_power, main_power = FEW_POWER_RATES.points
    named = {
        "uniform": main,
        "power law": main_power,
        "uniform, bias -.3 with decay": FEW_STARTS,
        "power law, bias -.3 with decay": FEW_POWER_STARTS,
        "uniform, LAMB .01": slow,
        "power law, LAMB .01": slow_power,
    }
    found = {name: _both(e, config) for name, config in named.items()}
    worst = min(found, key=lambda name: found[name].mean)
    states = {
        name: (e.mean(config, "covered").mean, e.mean(config, "ignored").mean)
        for name, config in named.items()
    }
    return Finding(
        value=found[worst].mean,
        interval=found[worst].interval,
        unit=f"share of seeds with both kinds in the setting that has fewest ({worst})",
        null="a model that ignored all but k features would have none of one kind: 0",
        n_seeds=min(s.n_seeds for s in found.values()),
        verdict=verdict_of(
            [s.low > 0.5 for s in found.values()], [s.high < 0.5 for s in found.values()]
        ),
        sentence="Seeds with both kinds: "
        + ", ".join(f"{name} {s}" for name, s in found.items())
        + ". Mean shares of mono, poly and ignored features: "
        + ", ".join(f"{name} {m:.2g}/{1 - m - i:.2g}/{i:.2g}" for name, (m, i) in states.items())
        + ".",
    )


def _d4(e: Evidence) -> Finding:
    power, importance, few = (
        e.mean(c, "rank_auc") for c in (LONG_POWER, IMPORTANCE, LONG_FEW_POWER)
    )
    uniform = e.mean(LONG, "rank_auc")
    halves = {}
    for name, config in (("k 128", LONG_POWER), ("k 48", LONG_FEW_POWER)):
        mono = np.mean([part["by_feature"]["mono"] for part in e.numbers(config)], axis=0)
        ignored = np.mean([part["by_feature"]["ignored"] for part in e.numbers(config)], axis=0)
        quarter = len(mono) // 4
        halves[name] = " / ".join(
            f"{mono[i : i + quarter].mean():.2g} ({ignored[i : i + quarter].mean():.2g})"
            for i in range(0, len(mono), quarter)
        )
    return Finding(
        value=power.mean,
        interval=power.interval,
        unit="chance that a monosemantic feature is more frequent than another one (k 128)",
        null=f"uniform frequencies: {uniform}; 1 would be a threshold, 1/2 a morass",
        n_seeds=power.n_seeds,
        verdict="answered",
        sentence=f"Power-law frequencies: {power} with k 128 and {few} with k 48; power-law "
        f"importances {importance}. Shares of monosemantic (in brackets: ignored) features by "
        "quarter of the frequency ranks, the most frequent first: "
        + "; ".join(f"{name} {said}" for name, said in halves.items())
        + ".",
    )


def _d5(e: Evidence) -> Finding:
    others = {
        "uniform, k 128": LONG,
        "uniform, k 48": LONG_FEW,
        "power law, k 48": LONG_FEW_POWER,
    }
    gain = e.mean(LONG_POWER, "late_gain")
    more = {name: e.difference(LONG_POWER, config, "late_gain") for name, config in others.items()}
    rarer = e.mean(LONG_POWER, "new_rank")
    every = {"power law, k 128": LONG_POWER, **others}

    def listed(name: str) -> str:
        return ", ".join(f"{shown} {e.mean(c, name)}" for shown, c in every.items())

    return Finding(
        value=gain.mean,
        interval=gain.interval,
        unit="gain of mono/N in the last quarter of the training (power law, k 128)",
        null="; ".join(f"{name} {e.mean(config, 'late_gain')}" for name, config in others.items()),
        n_seeds=min(gain.n_seeds, *(m.n_seeds for m in more.values())),
        verdict=verdict_of(
            [gain.low > 0, rarer.low > 0, *(m.low > 0 for m in more.values())],
            [gain.high < 0, rarer.high < 0, *(m.high < 0 for m in more.values())],
        ),
        sentence="Gain of the power law with k 128 minus that of "
        + ", ".join(f"{name} {m}" for name, m in more.items())
        + f". Features that became monosemantic in the last quarter rank {rarer} places behind "
        f"those that were before ({rarer.n_seeds} seeds have both). ln of the loss changed by "
        f"{listed('late_loss')}; from one anneal to the next weights move by {listed('moved')} of "
        f"their length, with a cosine to the move before of {listed('turned')}.",
    )


RULES = (
    Rule(
        "D3",
        "k < N: some features mono, others poly, for uniform and varying frequencies; and under "
        "different initialisation and learning rate",
        "N 64, d 32, k 48, at the end (learning rate zero, threshold .9); uniform and power-law "
        "frequencies, each at LAMB .03, at .01, and at .03 from bias -.3 with decay. A seed has "
        "both kinds if at least 5% of the features are monosemantic and at least 5% represented "
        "but not monosemantic. Reproduced if the exact 95% interval of the share of seeds with "
        "both kinds lies above one half in all six settings; refuted if it lies below in one.",
        (FEW_RATES, FEW_POWER_RATES, FEW_STARTS, FEW_POWER_STARTS),
        _d3,
    ),
    Rule(
        "D4",
        "power-law frequencies or importances: threshold or polysemantic morass (state against "
        "rank)",
        "LAMB .02, k 128, 8,320 steps: chance that a monosemantic feature is more frequent than "
        "one that is not, over the pairs of a seed; the same for importances (4,224 steps) and "
        "k 48 beside, and states by quarter of the ranks.",
        (LONG_POWER, LONG_FEW_POWER, IMPORTANCE, LONG),
        _d4,
    ),
    Rule(
        "D5",
        "monosemanticity converges late in training, except high-k power-law runs, where rarer "
        "features go on being refined",
        "LAMB .02, 8,320 steps; gain of mono/N (.9) from the last annealed record within three "
        "quarters of the training to the end. Reproduced if the 95% intervals say: with power law "
        "and k 128 the gain is positive and larger, seed by seed, than with uniform frequencies "
        "and k 128 or 48, and than with power law and k 48, and the features that became "
        "monosemantic are rarer than those that were before; refuted if one says the opposite.",
        (LONG_POWER, LONG, LONG_FEW, LONG_FEW_POWER),
        _d5,
    ),
)
