"""Decision rules of the claims about several components and their bumps: E4, E5, E6 and E7."""

from __future__ import annotations

import numpy as np

from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.rules import Finding, Rule, share, verdict_of
from phasescope.experiments.s_curves.config import (
    ADAM,
    FULL_ADAM,
    GD,
    MATCHED,
    MOMENTUM,
    Config,
    setting,
)
from phasescope.experiments.s_curves.evidence import Evidence, log_ratio


def _e4(e: Evidence) -> Finding:
    config = GD[2]
    larger = share(e.finite(config, "larger_first") > 0.5)
    predicted = share(e.finite(config, "as_predicted") > 0.5)
    second = share(e.finite(config, "n_rises") >= 2)
    apart = e.finite(config, "t_larger") - e.finite(config, "t_smaller")
    return Finding(
        value=larger.mean,
        interval=larger.interval,
        unit="share of seeds in which the larger singular value is half learned first",
        null="a coin: .5",
        n_seeds=larger.n_seeds,
        verdict="answered",
        sentence=f"The larger one is first in {larger} of the seeds (median ratio of the two "
        f"{e.median(config, 'singular_ratio'):.3g}); the one that the plateau formula ln(s/w0)/2s "
        f"puts first, which knows the start too, in {predicted}. They are a median of "
        f"{np.median(np.abs(apart)):.0f} steps apart. {second} of the seeds show a second S (the "
        "rate of the loss doubles twice or more).",
    )


def _contested(e: Evidence, config: Config) -> tuple[OverSeeds, OverSeeds, OverSeeds]:
    """Per seed with bumps: share contested, the same of the control, and their difference."""
    bumps = e.values(config, "bumps")
    some = bumps > 0
    ours, control = (
        e.values(config, name)[some] / bumps[some] for name in ("contested", "contested_null")
    )
    return (
        OverSeeds(ours.tolist()),
        OverSeeds(control.tolist()),
        OverSeeds((ours - control).tolist()),
    )


def _e5(e: Evidence) -> Finding:
    ours, control, difference = _contested(e, GD[2])
    beside = {
        setting(config): _contested(e, config) for config in (ADAM[2], GD[10], ADAM[10], GD[100])
    }
    bumps = e.values(GD[2], "bumps")
    inside = e.values(GD[2], "on_plateau")[bumps > 0] / bumps[bumps > 0]
    return Finding(
        value=ours.mean,
        interval=ours.interval,
        unit="share of a seed's bumps in which another column took the target (rank 2, SGD 0.05)",
        null=f"towards another target: {control}; difference {difference}",
        n_seeds=len(e.finite(GD[2], "bumps")),
        verdict=verdict_of(
            [ours.low > 0.5, difference.low > 0], [ours.high < 0.5, difference.high < 0]
        ),
        sentence=f"Of {len(bumps)} seeds {ours.n_seeds} have bumps, with a mean prominence of "
        f"{e.mean(GD[2], 'prominence').mean:.2g}; {OverSeeds(inside.tolist())} of a seed's bumps "
        "peak on its plateau. Contested and control elsewhere: "
        + "; ".join(f"{name} {a.mean:.2f} and {b.mean:.2f}" for name, (a, b, _) in beside.items())
        + ". Where the control is high, this share says little.",
    )


def _e6(e: Evidence) -> Finding:
    more = {r: e.paired(MATCHED[r], GD[r], "bumps", np.subtract) for r in MATCHED}
    spread = {r: e.paired(MATCHED[r], GD[r], "spread", log_ratio) for r in MATCHED}
    speed = {r: e.paired(MATCHED[r], GD[r], "t1", log_ratio) for r in MATCHED}
    unmatched = {r: e.paired(ADAM[r], GD[r], "bumps", np.subtract) for r in MATCHED}
    momentum = {r: e.paired(MOMENTUM[r], GD[r], "bumps", np.subtract) for r in MOMENTUM}
    counts = {r: (e.mean(GD[r], "bumps"), e.mean(MATCHED[r], "bumps")) for r in MATCHED}
    return Finding(
        value=more[10].mean,
        interval=more[10].interval,
        unit="bumps per seed, Adam minus SGD at the same speed (rank 10)",
        null="SGD from the same starts: "
        + ", ".join(f"rank {r} {a.mean:.3g}" for r, (a, _) in counts.items())
        + "; SGD with momentum minus SGD: "
        + ", ".join(f"rank {r} {m}" for r, m in momentum.items()),
        n_seeds=min(m.n_seeds for m in more.values()),
        verdict=verdict_of(
            [*(m.low > 0 for m in more.values()), *(s.high < 0 for s in spread.values())],
            [*(m.high < 0 for m in more.values()), *(s.low > 0 for s in spread.values())],
        ),
        sentence="Bumps, Adam minus SGD at the same speed: "
        + ", ".join(f"rank {r} {m}" for r, m in more.items())
        + "; at learning rate .01: "
        + ", ".join(f"rank {r} {m}" for r, m in unmatched.items())
        + ". Spread of the columns' path lengths, Adam over SGD: "
        + ", ".join(f"rank {r} {np.exp(s.mean):.3g}" for r, s in spread.items())
        + ". Steps to 1%, Adam over SGD: "
        + ", ".join(f"{np.exp(s.mean):.3g}" for s in speed.values())
        + ".",
    )


def _e7(e: Evidence) -> Finding:
    plateaus = {config: e.with_plateau(config) for config in FULL_ADAM}
    coincide = {}
    for config in FULL_ADAM:
        bumps = e.values(config, "bumps")
        more = e.values(config, "on_plateau") / bumps - e.values(config, "plateau_share")
        coincide[config] = OverSeeds(more[np.isfinite(more)].tolist())
    best = max(plateaus, key=lambda config: plateaus[config].mean)
    holding = [c for c in FULL_ADAM if plateaus[c].low > 0.5 and coincide[c].low > 0]
    return Finding(
        value=plateaus[best].mean,
        interval=plateaus[best].interval,
        unit=f"share of seeds with a plateau ({setting(best)})",
        null=f"SGD: {e.with_plateau(GD[100])}",
        n_seeds=min(p.n_seeds for p in plateaus.values()),
        verdict=verdict_of([bool(holding)], [all(p.high < 0.5 for p in plateaus.values())]),
        sentence="Seeds with a plateau: "
        + ", ".join(f"Adam {c.learning_rate:g} {p}" for c, p in plateaus.items())
        + "; median S-ratio "
        + ", ".join(f"{e.median(c, 's_ratio'):.3g}" for c in FULL_ADAM)
        + "; bumps per seed "
        + ", ".join(f"{e.mean(c, 'bumps').mean:.3g}" for c in FULL_ADAM)
        + f" (SGD {e.mean(GD[100], 'bumps').mean:.3g}). Starts x1 only.",
    )


RULES = (
    Rule(
        "E4",
        "rank 2: which component is matched first, is there a second S",
        "Rank 2, SGD: share of seeds in which the mode of the larger singular value is the first "
        "whose strength reaches half; beside it the share that the plateau formula predicts, and "
        "the share with two or more S's.",
        (GD[2],),
        _e4,
    ),
    Rule(
        "E5",
        "a bump is two columns heading for one target, one backing off (share of bumps)",
        "Rank 2, SGD, peaks of |cos(x_i, a_j)| of prominence .05 or more: a bump is contested if "
        "from the trough before to the trough after it another column gains .05 or more of |cos| "
        "with the target and ends ahead. Reproduced if the 95% intervals of a seed's contested "
        "share and of its excess over the control (a random other target) lie above .5 and above "
        "0; refuted if one lies below.",
        (GD[2], ADAM[2], GD[10], ADAM[10], GD[100]),
        _e5,
    ),
    Rule(
        "E6",
        "Adam makes more bumps than SGD over seeds (at matched speed, too); its columns learn at "
        "more similar rates",
        "Ranks 2, 10 and 100, seed by seed, Adam at the learning rate at which pilot seeds "
        "reached 1% in as many steps as SGD. Reproduced if at every rank the 95% interval of the "
        "difference in bumps lies above 0 and that of the log ratio of the spreads (standard "
        "deviation over mean of the columns' path lengths until 1%) below 0; refuted if at some "
        "rank one of them lies on the other side.",
        (*MATCHED.values(), *(GD[r] for r in MATCHED), *ADAM.values(), *MOMENTUM.values()),
        _e6,
    ),
    Rule(
        "E7",
        "Adam gives the full-rank case a plateau, coinciding with bumps",
        "Rank 100, Adam at .004, .01 and .03. Reproduced if at some learning rate the 95% "
        "intervals say: a plateau in above half of the seeds, and a larger share of the bumps on "
        "it than its share of the time; refuted if at every learning rate fewer than half have a "
        "plateau.",
        (*FULL_ADAM, GD[100]),
        _e7,
    ),
)
