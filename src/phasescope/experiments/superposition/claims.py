"""The claim D8; its rule was committed before the seeds ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from phasescope.experiments.rules import Finding, Rule, share, verdict_of
from phasescope.experiments.superposition.config import (
    DEFAULT,
    LEVELS,
    SHAPES,
    SOURCE,
    Config,
    Results,
    group_by_setting,
    per_group,
    per_seed,
    setting,
)
from phasescope.report import Claim

FEWEST_DENSITIES = 3  # at which dimensions per feature are at 1/2


def claims(results: Sequence[Results]) -> list[Claim]:
    """D8, from the runs of the deciding setting.

    Args:
        results: Batches of any settings.
    """
    return [RULE.claim(Evidence(results))]


class Evidence:
    """Statistics of the deciding setting, one value per seed, and the other settings."""

    source = SOURCE

    def __init__(self, results: Sequence[Results]) -> None:
        self.runs = [r for r in results if _deciding(r.config) == _deciding(DEFAULT)]
        self.others = [
            r
            for r in results
            if _deciding(r.config) != _deciding(DEFAULT) and r.config.importance_decay == 1
        ]

    def missing(self, needs: Sequence[Config]) -> list[str]:
        """Names of the settings that were not run."""
        return [] if self.runs else [setting(config) for config in needs]

    def groups(self, name: str) -> np.ndarray:
        """Whether every group of seeds of the deciding setting has a line."""
        return per_group(self.runs, name) > 0


def _deciding(config: Config) -> Config:
    """A configuration without what no verdict depends on."""
    return replace(config, n_seeds=1, seed=0, device="cpu", at_once=1)


def _d8(e: Evidence) -> Finding:
    found = {level: share(e.groups(f"line {level}")) for level in LEVELS}
    control = {level: share(e.groups(f"control {level}")) for level in LEVELS}
    halves = share(per_seed(e.runs, "densities_at_half") >= FEWEST_DENSITIES)
    parts = [*found.values(), halves]
    rarest = min(found, key=lambda level: found[level].mean)
    return Finding(
        value=found[rarest].mean,
        interval=found[rarest].interval,
        unit="share of groups of five seeds with a line at the level that has the fewest",
        null="random directions: " + ", ".join(f"{k} {s.mean:.2g}" for k, s in control.items()),
        n_seeds=halves.n_seeds,
        verdict=verdict_of([p.low > 0.5 for p in parts], [p.high < 0.5 for p in parts]),
        sentence=f"Share of {len(e.groups('line 1'))} groups of seeds with a line: "
        + ", ".join(f"{level} ({SHAPES[level]}) {s}" for level, s in found.items())
        + f"; dimensions per feature at 1/2 in {halves} of the seeds. The value "
        f"is that of {rarest}." + _beside(e.others),
    )


def _beside(others: Sequence[Results]) -> str:
    """What the other settings with equal importances show."""
    said = []
    for name, runs in group_by_setting(others).items():
        lines = {level: per_group(runs, f"line {level}") for level in LEVELS}
        shown = ", ".join(f"{level} {values.mean():.2g}" for level, values in lines.items())
        said.append(f" {name}, {len(lines['1'])} groups: {shown}.")
    return "".join(said)


RULE = Rule(
    "D8",
    "known geometry: feature dimensionality sticks at 1, 3/4, 2/3, 1/2, 2/5, 3/8",
    "40 features in 4 dimensions, 20 densities from 1 to .05; five seeds together are a group with "
    "as many features as the published run, 4,000. A group has a line at a level if ten or more "
    "features are within .005 of it, and at least twice as many as in either flank (as wide, .0125 "
    "away). Reproduced if the exact 95% interval of the share of groups with a line lies above one "
    "half at each of the six levels, and so does the share of seeds whose dimensions per feature "
    "d/|W|² are within .03 of 1/2 at three or more densities; refuted if one of the seven lies "
    "below one half. Control: random directions of the same norms.",
    (DEFAULT,),
    _d8,
)
