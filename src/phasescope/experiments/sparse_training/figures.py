"""Figures of loss and monosemanticity by way of being sparse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import phasescope as ps
from phasescope.experiments.sparse_training.config import (
    Results,
    group_by_setting,
    left,
    per_seed,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def figures(results: Sequence[Results]) -> dict[str, Figure]:
    """Loss and mono/N of every kind of training, a figure of each for every setting.

    Args:
        results: Runs of one or more settings.
    """
    found = {}
    for name, runs in group_by_setting(results).items():
        config = runs[0].config
        kinds = {
            "dense": "dense",
            f"fixed mask, {1 - config.kept:.0%} sparse": "fixed",
            f"SET, {1 - config.kept:.0%}": "set",
            f"RigL, {1 - config.kept:.0%}": "rigl",
        }
        for level in range(1, config.n_levels + 1):
            share = f"{1 - left(config, level):.0%}"
            kinds[f"ticket, {share}"] = f"ticket {level}"
            if level in config.checked:
                kinds[f"shuffled masks, {share}"] = f"shuffled {level}"
                kinds[f"other initialisation, {share}"] = f"reinit {level}"
        for what, title, unit, log in (
            ("loss", "Held-out loss", "held-out loss", True),
            ("mono", "Monosemantic neurons", "monosemantic neurons per feature (.9)", False),
        ):
            found[f"{what} of {name}"] = ps.figures.seed_strips(
                {label: {what: per_seed(runs, f"{key} {what}")} for label, key in kinds.items()},
                x_title=unit,
                title=f"{title} of dense and sparse networks: {name}",
                seen="Rows are ways of being sparse, with the share of weights that is zero.",
                computed="After training at learning rate zero, on the same batches and the same "
                "held-out rows for all rows of a seed.",
                misleads="Tickets are pruned over both matrices together, random masks within "
                "each: their layers differ in density, see the numbers.",
                log=log,
            )
    return found
