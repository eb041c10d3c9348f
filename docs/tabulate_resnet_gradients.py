"""Write verdicts and tables of docs/resnet_gradients.md from results/resnet_gradients.json.

python docs/tabulate_resnet_gradients.py
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from phasescope.experiments import resnet_gradients as experiment
from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.resnet_gradients import evidence
from phasescope.experiments.resnet_gradients.config import Results
from phasescope.experiments.settings import grouped

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "resnet_gradients.md"
RESULTS = ROOT / "results" / "resnet_gradients.json"
MARKS = ("<!-- results -->", "<!-- end of results -->")
KINDS = ("conv", "bn", "downsample conv", "downsample bn", "fc")
COLUMNS = {"drop": "drop", "rise": "rise", "double_descent": "double descent", "noise": "noise"}


def main() -> None:
    """Replace what stands between the marks."""
    before, rest = PAGE.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    text = "\n\n".join([before + MARKS[0], *shown(), MARKS[1] + after])
    PAGE.write_text(text, encoding="utf-8")


def shown() -> Iterator[str]:
    """What stands between the marks: verdicts and tables, or that nothing has run."""
    if not RESULTS.exists():
        yield "No seed has been run yet; the rules are in the code, and so is what each run costs."
        return
    stored: Mapping[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    yield "\n".join(f"- **{c['id']}** ({c['verdict']}): {c['sentence']}" for c in stored["claims"])
    runs = [
        Results(experiment.Config(**run["config"]), run["numbers"])
        for run in stored["settings"]["runs"]
    ]
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
    lines = [
        "| kind | " + " | ".join(COLUMNS.values()) + " | rise of ‖g‖‖w‖ |",
        "| --- " * (len(COLUMNS) + 2) + "|",
    ]
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
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    yield "\n".join(lines)


if __name__ == "__main__":
    main()
