"""The claims D14 and D15; their rules were committed before any seed ran."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.rules import Finding, Rule, verdict_of
from phasescope.experiments.sparse_training.config import (
    MONO,
    POLY,
    SOURCE,
    WIDTHS,
    Config,
    Results,
    group_by_setting,
    left,
    per_seed,
    setting,
)
from phasescope.report import Claim

FAILS = 1.25  # loss over that of the dense network
CLOSED = 0.5  # share of the gap to the dense network
STAYS = 0.9  # share of the dense network's mono/N


class Evidence:
    """Statistics of the settings that were run."""

    source = SOURCE

    def __init__(self, results: Sequence[Results]) -> None:
        self._groups = group_by_setting(results)

    def missing(self, needs: Sequence[Config]) -> list[str]:
        """Names of the settings that were not run."""
        return [setting(c) for c in needs if setting(c) not in self._groups]

    def has(self, config: Config) -> bool:
        """Whether a setting was run."""
        return not self.missing([config])

    def values(self, config: Config, name: str) -> np.ndarray:
        """A statistic of every seed."""
        return per_seed(self._groups[setting(config)], name)

    def mean(self, config: Config, name: str) -> OverSeeds:
        """Its mean."""
        return over(self.values(config, name))


def over(values: np.ndarray) -> OverSeeds:
    """Mean and interval of one value per seed."""
    return OverSeeds(values.tolist())


def claims(results: Sequence[Results]) -> list[Claim]:
    """The claims that these runs settle; those whose settings were not run are not tested.

    Args:
        results: Runs of one or more settings.
    """
    evidence = Evidence(results)
    return [rule.claim(evidence) for rule in RULES]


def _d14(e: Evidence) -> Finding:
    dense, fixed = e.values(POLY, "dense loss"), e.values(POLY, "fixed loss")
    cost = over(np.log(fixed / dense))
    closed = {
        name: over((fixed - e.values(POLY, f"{name} loss")) / (fixed - dense))
        for name in ("rigl", "set")
    }
    edge = math.log(FAILS)
    mono = {n: e.mean(POLY, f"{n} mono") for n in ("dense", "fixed", "set", "rigl")}
    from_mono = {n: e.mean(MONO, f"{n} loss") for n in ("dense", "fixed", "set", "rigl")}
    return Finding(
        value=closed["rigl"].mean,
        interval=closed["rigl"].interval,
        unit="share of the gap in held-out loss from the fixed mask to the dense network that "
        "RigL closes",
        null=f"a ticket of iterative pruning at {1 - left(POLY, 4):.0%}: loss "
        f"{e.mean(POLY, 'ticket 4 loss')}, its shuffled masks {e.mean(POLY, 'shuffled 4 loss')}",
        n_seeds=cost.n_seeds,
        verdict=verdict_of(
            [cost.low > edge, closed["rigl"].low > CLOSED],
            [cost.high < edge, closed["rigl"].high < CLOSED],
        ),
        sentence=f"At 80% sparsity from bias 0 the loss is {e.mean(POLY, 'fixed loss')} under a "
        f"fixed mask ({np.exp(cost.mean):.3g} times that of the dense network, "
        f"{e.mean(POLY, 'dense loss')}), {e.mean(POLY, 'set loss')} with SET (which closes "
        f"{closed['set']} of the gap) and {e.mean(POLY, 'rigl loss')} with RigL "
        f"({closed['rigl']}); mono/N (.9) "
        + ", ".join(f"{name} {m}" for name, m in mono.items())
        + ". From bias -1 the losses are "
        + ", ".join(f"{name} {m}" for name, m in from_mono.items())
        + ".",
    )


def _d15(e: Evidence) -> Finding:
    def change(config: Config, level: int) -> OverSeeds:
        return over(e.values(config, f"ticket {level} mono") - e.values(config, "dense mono"))

    poly, mono = change(POLY, 4), change(MONO, 4)
    stays = {
        level: over(e.values(MONO, f"ticket {level} mono") / e.values(MONO, "dense mono"))
        for level in MONO.checked
    }
    controls = "; ".join(
        f"{1 - left(MONO, level):.0%}: shuffled {e.mean(MONO, f'shuffled {level} mono')}, "
        f"re-initialised {e.mean(MONO, f'reinit {level} mono')}"
        for level in MONO.checked
    )
    losses = ", ".join(
        f"{1 - left(MONO, level):.0%} {e.mean(MONO, f'ticket {level} loss')}"
        for level in MONO.checked
    )
    beside = [
        f"{setting(c)} {change(c, 4)} from {e.mean(c, 'dense mono')}" for c in WIDTHS if e.has(c)
    ]
    return Finding(
        value=poly.mean,
        interval=poly.interval,
        unit="mono/N (.9) of tickets at 80% minus that of the dense network, from bias 0",
        null=f"mono networks' controls, mono/N at {controls}",
        n_seeds=poly.n_seeds,
        verdict="answered",
        sentence=f"Tickets at 80% have {poly} mono/N more than the dense networks from bias 0 "
        f"({e.mean(POLY, 'dense mono')}), and {mono} from bias -1 "
        f"({e.mean(MONO, 'dense mono')}). Tickets of monosemantic networks keep "
        + " and ".join(
            f"{found} of their mono/N at {1 - left(MONO, level):.0%}"
            for level, found in stays.items()
        )
        + f" (loss {e.mean(MONO, 'dense loss')} dense, {losses}). Barrier between two data orders: "
        f"dense {e.mean(MONO, 'dense instability')}, ticket {e.mean(MONO, 'ticket 4 instability')}."
        + (" Other widths, change at 80%: " + "; ".join(beside) + "." if beside else ""),
    )


RULES = (
    Rule(
        "D14",
        "a fixed sparse mask fails; prune-and-grow at the same sparsity does much better",
        "N 64, d 32, k 128, uniform density 1/32, LAMB .01 from bias 0, 4,224 steps; a fifth of "
        "the weights of both matrices kept, masks at random, the same data for all. Reproduced if "
        "the 95% intervals say: the held-out loss under a fixed mask is more than 1.25 times that "
        "of the dense network, and RigL (every 96 steps until three quarters, drop fraction .3) "
        "closes more than half of the gap. Refuted if one says the opposite. SET, tickets, mono/N "
        "and networks from bias -1 with decay are shown beside.",
        (POLY, MONO),
        _d14,
    ),
    Rule(
        "D15",
        "are lottery tickets less or more polysemantic; do tickets of mono networks stay mono at "
        "80-95%; does it need over-parametrisation (k/N = 1/2, 1, 2, 4)",
        "Iterative magnitude pruning over both matrices together, a third at each of 8 levels, "
        "rewound to the initialisation; mono/N at the threshold .9 at 80% (level 4) and 94% (level "
        "7). The number is the mean difference to the dense networks from bias 0; tickets with "
        "shuffled masks and with another initialisation are the controls.",
        (POLY, MONO),
        _d15,
    ),
)
