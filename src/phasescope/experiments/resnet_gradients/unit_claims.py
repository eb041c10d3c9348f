"""The claims B13 and B16; their rules were committed before any seed ran."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from phasescope.experiments.deciding import answered, decided, positive_beyond, told
from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.resnet_gradients.config import SOURCE, UNITS, Results, Runs
from phasescope.experiments.resnet_gradients.units import AFTER, BEFORE, LEVEL, N_CONTROLS, N_NULL
from phasescope.experiments.settings import by_seed
from phasescope.report import Claim

MIN_EVENTS = 3  # units that begin to score, for a seed to count
SLACK = 0.1  # log2 that counts as none, as for the heads of B13 in induction_heads
NAMES = {"edge": "edge", "colour": "colour", "curve": "curve", "high_low": "high-low"}
SCORING = (
    f"A unit (channel of a convolution, behind its batch norm) scores when its edge, colour, curve "
    f"or high-low score exceeds the {LEVEL:.0%} quantile of the largest such score in its layer in "
    f"{N_NULL} random networks, at two checkpoints in succession, and not at the start. It is "
    f"compared with the {N_CONTROLS} units of its layer that have not scored and whose filters "
    f"moved most alike in the {BEFORE} intervals before (of 1/{UNITS.scored} of the training); "
    f"behind are {AFTER} intervals. A seed counts if {MIN_EVENTS} of its units begin to score."
)


def unit_claims(results: Sequence[Results]) -> list[Claim]:
    """B13 and B16."""
    runs = by_seed(results, UNITS)
    return [_carriers(runs), _scores(runs)]


def _mean(result: Results, which: str, name: str) -> float:
    """Mean over the units that begin to score of their change; NaN where there are too few."""
    events = result.numbers["units"]["events"]
    if len(events) < MIN_EVENTS:
        return math.nan
    return float(np.mean([event[which][name] for event in events]))


def _over(runs: Runs, which: str, name: str) -> list[float]:
    return [_mean(r, which, name) for r in runs.values()]


def _less(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return (np.array(a) - np.array(b)).tolist()


def _carriers(runs: Runs) -> Claim:
    def kept(which: str, kind: str) -> list[float]:
        """How much more of their movement readers keep than the filters that they read."""
        return _less(_over(runs, which, f"reader_{kind}"), _over(runs, which, f"filter_{kind}"))

    own = kept("change", "ways")
    beyond = _less(own, kept("matched", "ways"))
    placebo = _less(kept("placebo", "ways"), kept("placebo_matched", "ways"))
    by_updates = _less(kept("change", "updates"), kept("matched", "updates"))

    return decided(
        "B13",
        "once a concept is learned its substrate stops changing while what reads it goes on",
        SOURCE,
        f"{SCORING} log2 of the relative change of weights per interval behind over that before, "
        "of the weights of the next layer that read the unit less that of its filter. Reproduced "
        "if the 95% interval lies above 0 and, less the same of the matched units, above 0 too; "
        f"refuted if either lies below {SLACK:g}.",
        own,
        "log2",
        f"matched units {told(kept('matched', 'ways'))}; the rest {told(beyond)}; with another "
        f"unit that does not score in the place of the one that does {told(placebo)}",
        positive_beyond(beyond, SLACK),
        lambda found: (
            f"Readers keep {found} (log2) more of their movement than the units that score, which "
            f"is {told(beyond)} more than with matched units; by single updates "
            f"{told(by_updates)} more."
        ),
    )


def _scores(runs: Runs) -> Claim:
    def slower(kind: str) -> list[float]:
        return _less(
            _over(runs, "change", f"filter_{kind}"), _over(runs, "matched", f"filter_{kind}")
        )

    placebo = _less(
        _over(runs, "placebo", "filter_updates"), _over(runs, "placebo_matched", "filter_updates")
    )
    return decided(
        "B16",
        "curve, high-low, edge and colour scores per unit over training, against random networks; "
        "do units slow down once they score?",
        SOURCE,
        f"{SCORING} log2 of the root mean square of single updates over the norm of the filter, "
        "behind less before, less the same of the matched units. Below 0 units slow down. Beside: "
        "the change of the weights per interval, and the share of units that score at the end.",
        slower("updates"),
        "log2",
        f"with another unit that does not score in the place of the one that does {told(placebo)}; "
        f"share of units of a random network above the threshold of the others: {_shares(runs)}",
        answered,
        lambda found: (
            f"Units that begin to score ({told([_count(r) for r in runs.values()])} per network) "
            f"change their updates by {found} (log2) more than matched units, {_said(found)}; what "
            f"they move per interval by {told(slower('ways'))}. Above the threshold at the end: "
            f"{_at_end(runs)}."
        ),
    )


def _said(found: OverSeeds) -> str:
    if found.high < 0:
        return "so they slow down"
    return "so they speed up" if found.low > 0 else "which may be nothing"


def _count(result: Results) -> float:
    return float(len(result.numbers["units"]["events"]))


def share_scoring(result: Results, name: str) -> np.ndarray:
    """Share of the units of a network whose score is above the threshold, at every checkpoint."""
    units: dict[str, Any] = result.numbers["units"]
    return np.average(units["scores"][name]["scoring"], axis=0, weights=units["sizes"])


def _at_end(runs: Runs) -> str:
    return ", ".join(
        f"{label} {told([float(share_scoring(r, name)[-1]) for r in runs.values()])}"
        for name, label in NAMES.items()
    )


def _shares(runs: Runs) -> str:
    return ", ".join(
        f"{label} "
        + told([r.numbers["units"]["scores"][name]["random_scoring"] for r in runs.values()])
        for name, label in NAMES.items()
    )
