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
from phasescope.experiments.resnet_gradients.config import FREEZING, NORMS, STITCHED, UNITS, Results
from phasescope.experiments.resnet_gradients.unit_claims import NAMES, share_scoring
from phasescope.experiments.settings import by_seed

RESULTS = pages.results_file("resnet_gradients")
MARKS = ("<!-- results -->", "<!-- end of results -->")
KINDS = ("conv", "bn", "downsample conv", "downsample bn", "fc")
FRONTS = {"front of another": "other", "own front": "same", "untrained front": "untrained"}
COLUMNS = {"drop": "drop", "rise": "rise", "double_descent": "double descent", "noise": "noise"}


def main() -> None:
    """Replace what stands between the marks of the page."""
    pages.fill("resnet_gradients", MARKS, shown())


def shown(file: Path = RESULTS) -> Iterator[str]:
    """What stands between the marks: verdicts and tables, or that nothing has run."""
    return pages.verdicts_and(tables, file)


def tables(stored: dict[str, Any]) -> Iterator[str]:
    """Shapes of the norms, what freezing costs and saves, and accuracies of joined networks."""
    runs = pages.runs_of(experiment, stored)
    for base in NORMS:
        if group := list(by_seed(runs, base).values()):
            yield from _table(experiment.setting(base), group)
    yield from _frozen(runs)
    yield from _joined(runs)
    yield from _scored(runs)


def _frozen(runs: Sequence[Results]) -> Iterator[str]:
    groups = {name: list(by_seed(runs, base).values()) for name, base in FREEZING.items()}
    groups = {name: group for name, group in groups.items() if group}
    if not groups:
        return
    yield (
        "**Stages frozen in sequence**, "
        f"{', '.join(str(len(group)) for group in groups.values())} seeds: accuracy on all test "
        "images, share of the multiplications that frozen stages save, processor time of the "
        "training."
    )
    rows = [
        [
            name,
            str(group[0].config.n_epochs),
            str(OverSeeds([r.numbers["final_accuracy"] for r in group])),
            str(OverSeeds([r.numbers["stages"]["saved"] for r in group])),
            _seconds(group),
        ]
        for name, group in groups.items()
    ]
    yield pages.markdown(
        ["training", "epochs", "test accuracy", "computation saved", "processor time (s)"], rows
    )


def _seconds(runs: Sequence[Results]) -> str:
    known = [s for r in runs if (s := r.numbers["stages"]["cpu_seconds"])]
    return str(OverSeeds(known)) if known else "–"


def _joined(runs: Sequence[Results]) -> Iterator[str]:
    group = list(by_seed(runs, STITCHED).values())
    if not group:
        return
    found = [r.numbers["stitched"] for r in group]
    yield (
        f"**Joined networks**, {len(group)} seeds: test accuracy after each stage; the second "
        f"network alone has {OverSeeds([f['alone'] for f in found])}."
    )
    rows = [
        [str(stage), *(str(OverSeeds([f[key][i] for f in found])) for key in FRONTS.values())]
        for i, stage in enumerate(found[0]["stages"])
    ]
    yield pages.markdown(["joined after stage", *FRONTS], rows)


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


def _scored(runs: Sequence[Results]) -> Iterator[str]:
    group = list(by_seed(runs, UNITS).values())
    if not group:
        return
    yield (
        f"**Units that score**, {len(group)} seeds, test accuracy "
        f"{OverSeeds([r.numbers['final_accuracy'] for r in group])}: share of units above the "
        "threshold of random networks, at the start, at most and at the end; of random networks "
        "above that of the others; at the end above that of the final weights in random order; "
        "units per network that begin to score so."
    )
    rows = []
    for name, label in NAMES.items():
        tables = [r.numbers["units"]["scores"][name] for r in group]
        shares = [share_scoring(r, name) for r in group]
        begun = [sum(name in e["scores"] for e in r.numbers["units"]["events"]) for r in group]
        columns = (
            [s[0] for s in shares],
            [s.max() for s in shares],
            [s[-1] for s in shares],
            [t["random_scoring"] for t in tables],
            [t["beyond_shuffled"] for t in tables],
            begun,
        )
        rows.append([label, *(str(OverSeeds([float(v) for v in values])) for values in columns)])
    yield pages.markdown(
        ["score", "start", "most", "end", "random", "above shuffled", "begin to score"], rows
    )


if __name__ == "__main__":
    main()
