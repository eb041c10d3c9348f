"""The claims B17 and B18; their rules were committed before any seed ran."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from phasescope.experiments.deciding import answered, decided, told
from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.resnet_gradients.config import (
    CONSTANT,
    COSINE,
    CUBIC,
    LINEAR,
    SETTLED,
    SHORT,
    SOURCE,
    STITCHED,
    Results,
    Runs,
)
from phasescope.experiments.settings import by_seed
from phasescope.report import Claim

MIDDLE = 2  # the stage after which networks are joined, for the number of B18


def freezing_claim(results: Sequence[Results]) -> Claim:
    """B17: what freezing in sequence, and stopping, cost and save."""
    base = by_seed(results, COSINE)
    kinds = {
        "FreezeOut linear": by_seed(results, LINEAR),
        "FreezeOut cubic": by_seed(results, CUBIC),
        "frozen when settled": by_seed(results, SETTLED),
    }
    short = by_seed(results, SHORT)
    constant = by_seed(results, CONSTANT)
    parts = [
        f"{name}: accuracy {told(_differences(runs, base))}, computation saved "
        f"{told([r.numbers['stages']['saved'] for r in runs.values()])}, processor time saved "
        f"{told(_time_saved(runs, base))}"
        for name, runs in kinds.items()
    ]
    stops = {s: r for s, r in constant.items() if r.numbers["stages"]["stop"] is not None}
    lost = [_at_stop(r) - r.numbers["curves"]["test_accuracy"][-1] for r in stops.values()]
    saved = [1 - r.numbers["stages"]["stop"] / r.config.n_steps for r in stops.values()]
    share = 1 - SHORT.n_epochs / COSINE.n_epochs
    return decided(
        "B17",
        "freezing layers in sequence: accuracy and time saved, schedules against a rule driven by "
        "the statistics; stopping early by the same rule",
        SOURCE,
        "Final accuracy on all test images, paired by seed, less that of the same training without "
        "freezing, when a stage and all before it are frozen once settled: the logarithm of its "
        "movement per window (a forty-eighth of the training), relative to its norm and to the sum "
        "of rates, changed by less than .1 three times in succession. Beside: FreezeOut with its "
        "linear (t0 .5) and cubic (t0 .8) schedule; a training of all stages that is "
        f"{share:.0%} shorter; stopping at a constant rate once all stages have settled.",
        _differences(kinds["frozen when settled"], base),
        "test accuracy, difference",
        f"{share:.0%} shorter without freezing: {told(_differences(short, base))}",
        answered,
        lambda found: (
            "Against training all stages (accuracy "
            f"{told([r.numbers['final_accuracy'] for r in base.values()])}): "
            + "; ".join(parts)
            + f". Stopping: all stages settled in {len(stops)} of {len(constant)} seeds, which "
            f"saves {told(saved)} of the steps and changes the accuracy by {told(lost)}."
        ),
    )


def _differences(runs: Runs, base: Runs) -> list[float]:
    return [
        r.numbers["final_accuracy"] - base[s].numbers["final_accuracy"]
        for s, r in runs.items()
        if s in base
    ]


def _time_saved(runs: Runs, base: Runs) -> list[float]:
    found = []
    for s, r in runs.items():
        if s in base:
            a, b = (x.numbers["stages"]["cpu_seconds"] for x in (r, base[s]))
            found.append(1 - a / b if a and b else math.nan)
    return found


def _at_stop(result: Results) -> float:
    """Accuracy at the end of the epoch in which all stages have settled."""
    curve = result.numbers["curves"]["test_accuracy"]
    epoch = result.config.n_steps // result.config.n_epochs
    return float(curve[min(-(-result.numbers["stages"]["stop"] // epoch), len(curve) - 1)])


def stitching_claim(results: Sequence[Results]) -> Claim:
    """B18: fronts of networks before backs of others."""
    runs = by_seed(results, STITCHED)

    def at(name: str, stage: int) -> list[float]:
        return [
            r.numbers["stitched"][name][r.numbers["stitched"]["stages"].index(stage)]
            for r in runs.values()
        ]

    alone = [r.numbers["stitched"]["alone"] for r in runs.values()]
    lost = (np.array(at("other", MIDDLE)) - np.array(alone)).tolist() if runs else []
    over = (np.array(at("other", MIDDLE)) - np.array(at("untrained", MIDDLE))).tolist()
    stages = range(1, len(STITCHED.n_blocks))

    def row(name: str) -> str:
        return ", ".join(told(at(name, stage)) for stage in stages)

    def sentence(found: OverSeeds) -> str:
        return (
            f"Joined after stage {MIDDLE}, the second network's accuracy of {told(alone)} changes "
            f"by {found}, which is {told(over)} more than with an untrained front. After stages "
            f"{', '.join(map(str, stages))}: {row('other')}; with its own front {row('same')}; "
            f"untrained {row('untrained')}."
        )

    return decided(
        "B18",
        "can layers of separately trained small networks be concatenated?",
        SOURCE,
        "Two networks of four blocks, trained from different seeds with different batches. The "
        "front of the first and the back of the second are joined by a 1 x 1 convolution, found by "
        "least squares and trained for two epochs with both fixed. Accuracy on all test images "
        f"when joined after stage {MIDDLE}, less that of the second network alone. Beside: other "
        "stages, the second network's own front, and a front that is not trained, all with such a "
        "layer.",
        lost,
        "test accuracy, difference",
        f"own front {row('same')}; untrained front {row('untrained')}" if runs else "not run",
        answered,
        sentence,
    )
