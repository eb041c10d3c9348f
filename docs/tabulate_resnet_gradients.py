"""Write verdicts and tables of docs/resnet_gradients.md from results/resnet_gradients.json.

python docs/tabulate_resnet_gradients.py
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pages

from phasescope.experiments import resnet_gradients as experiment
from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.resnet_gradients import evidence
from phasescope.experiments.resnet_gradients.config import Results
from phasescope.experiments.settings import grouped

RESULTS = pages.results_file("resnet_gradients")
MARKS = ("<!-- results -->", "<!-- end of results -->")
KINDS = ("conv", "bn", "downsample conv", "downsample bn", "fc")
COLUMNS = {"drop": "drop", "rise": "rise", "double_descent": "double descent", "noise": "noise"}


def main() -> None:
    """Replace what stands between the marks of the page."""
    pages.fill("resnet_gradients", MARKS, shown())


def shown(file: Path = RESULTS) -> Iterator[str]:
    """What stands between the marks: verdicts and tables, or that nothing has run."""
    return pages.verdicts_and(tables, file)


def tables(stored: dict[str, Any]) -> Iterator[str]:
    """A table for each setting that recorded its norms."""
    runs = pages.runs_of(experiment, stored)
    for name, group in grouped(runs, lambda r: experiment.setting(r.config)).items():
        if all("gradients" in r.numbers for r in group):
            yield from _table(name, group)


def _table(name: str, runs: Sequence[Results]) -> Iterator[str]:
    loss, accuracy = (
        OverSeeds([experiment.summary(r)[key] for r in runs])
        for key in ("final training loss (nats)", "test accuracy")
    )
    yield (
        f"**{name}**, {len(runs)} seeds: training loss of the last epoch {loss} nats, test "
        f"accuracy {accuracy}. Mean over the layers of a kind in log2, with 95% intervals over "
        "seeds; rise of ‖g‖‖w‖ over scale-invariant layers only."
    )
    rows = []
    for kind in KINDS:
        cells = [
            str(OverSeeds([evidence.mean(r, c, evidence.layers(r, kind)) for r in runs]))
            for c in COLUMNS
        ]
        free = [evidence.layers(r, kind, invariant=True) for r in runs]
        cells.append(
            str(
                OverSeeds(
                    [
                        evidence.mean(r, "rise", rows, "angular")
                        for r, rows in zip(runs, free, strict=True)
                    ]
                )
            )
            if len(free[0])
            else "–"
        )
        rows.append([kind, *cells])
    yield pages.markdown(["kind", *COLUMNS.values(), "rise of ‖g‖‖w‖"], rows)


if __name__ == "__main__":
    main()
