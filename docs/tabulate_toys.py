"""Write verdicts and tables of docs/superposition.md and docs/monosemanticity.md from results/.

python docs/tabulate_toys.py
"""

import dataclasses
import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.superposition.config import LEVELS, SHAPES

ROOT = Path(__file__).parents[1]
MARKS = ("<!-- results -->", "<!-- end of results -->")
Stored = Mapping[str, Any]
# Monosemantic neurons over features after 2^15 steps, read off a figure of the public replication
# jbloomAus/toy_model_interpretability, by learning rate.
READ_OFF = {
    "uniform": {0.001: 0, 0.003: 0.03, 0.005: 0.31, 0.007: 1.02, 0.01: 1.19, 0.03: 0.99},
    "power_law": {0.001: 0, 0.003: 0, 0.005: 0, 0.007: 0.07, 0.01: 0.53, 0.03: 0.68},
}


def main() -> None:
    """Replace what stands between the marks of both pages."""
    for name in TABLES:
        page = ROOT / "docs" / f"{name}.md"
        before, rest = page.read_text(encoding="utf-8").split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        text = "\n\n".join([before + MARKS[0], *shown(name), MARKS[1] + after])
        page.write_text(text, encoding="utf-8")


def shown(name: str) -> Iterator[str]:
    """What stands between the marks of a page: verdicts and tables, or that nothing has run."""
    file = ROOT / "results" / f"{name}.json"
    if not file.exists():
        yield "No seed has been run yet; the rules are in the code, and so is what each run costs."
        return
    stored = json.loads(file.read_text(encoding="utf-8"))
    yield "\n".join(f"- **{c['id']}** ({c['verdict']}): {c['sentence']}" for c in stored["claims"])
    yield from TABLES[name](stored["settings"]["runs"])


def superposition(runs: Sequence[Stored]) -> Iterator[str]:
    """Lines by level and setting."""
    experiment = importlib.import_module("phasescope.experiments.superposition")
    for run in runs:
        config = experiment.Config(**run["config"])
        if config.importance_decay != 1:
            continue
        numbers = run["numbers"]
        groups = len(numbers["per_group"]["line 1"])
        counts = np.sum(numbers["histogram"], axis=0)
        control = np.sum(numbers["control_histogram"], axis=0)
        yield (
            f"**{experiment.setting(config)}**, {config.n_seeds} seeds, {groups} groups: features "
            "within .0025 of a level, over the mean of the bins from .01 to .02 away on both sides:"
        )
        rows = []
        for level, place in LEVELS.items():
            lines = np.mean(numbers["per_group"][f"line {level}"])
            rows.append(
                f"| {level} | {SHAPES[level]} | {_above(counts, place)} | {_above(control, place)} "
                f"| {lines:.2g} |"
            )
        yield "\n".join(
            [
                "| level | shape | trained | random directions | groups with a line |",
                "| --- | --- | --- | --- | --- |",
                *rows,
            ]
        )


def _above(counts: np.ndarray, place: float) -> str:
    """Features in the bin of a level, and how many times as many as beside it."""
    middle = round(place / 0.005)
    beside = [i for i in range(middle - 4, middle + 5) if 2 <= abs(i - middle) <= 4]
    around = np.mean([counts[i] for i in beside if i < len(counts)])
    ratio = f"{counts[middle] / around:.3g} times" if around else "none beside"
    return f"{counts[middle]:,} ({ratio})"


def monosemanticity(runs: Sequence[Stored]) -> Iterator[str]:
    """One row for each point of the grids: means over seeds with 95% intervals."""
    experiment = importlib.import_module("phasescope.experiments.monosemanticity")
    columns = {
        "loss": "loss",
        "mono/N (.9)": "mono_90",
        "mono/N (.999)": "mono_999",
        "at the peak (.999)": "peak_mono_999",
        "features covered": "covered",
        "ignored": "ignored",
        "dead neurons": "dead",
        "bias, mono": "bias_mono",
        "bias, poly": "bias_poly",
    }
    lines = [
        "| setting | seeds | " + " | ".join(columns) + " |",
        "| --- " * (len(columns) + 2) + "|",
    ]
    published = [dataclasses.replace(c, seed=0) for c in experiment.PRESETS["replication"]]
    beside: list[Stored] = []
    for run in runs:
        config = experiment.Config(**run["config"])
        if dataclasses.replace(config, seed=0) in published:
            beside.append(run)
            continue
        for point, numbers in zip(config.points, run["numbers"]["points"], strict=True):
            cells = [_cell(numbers["per_seed"][name]) for name in columns.values()]
            n_seeds = len(numbers["per_seed"]["loss"])
            lines.append(f"| {experiment.setting(point)} | {n_seeds} | {' | '.join(cells)} |")
    yield (
        "Means over seeds with 95% intervals at the end of the training, where the learning rate "
        "is zero; *at the peak*: at the last record of the largest learning rate."
    )
    yield "\n".join(lines)
    if beside:
        yield from replication(beside)


def replication(runs: Sequence[Stored]) -> Iterator[str]:
    """The sweeps of learning rates at the size of the public replication, beside its numbers."""
    experiment = importlib.import_module("phasescope.experiments.monosemanticity")
    columns = {
        "mono/N (.9)": "mono_90",
        "mono/N (.999)": "mono_999",
        "at the peak (.999)": "peak_mono_999",
        "loss": "loss",
    }
    lines = [
        "| frequencies | learning rate | read off | " + " | ".join(columns) + " |",
        "| --- " * (len(columns) + 3) + "|",
    ]
    for run in runs:
        config = experiment.Config(**run["config"])
        for point, numbers in zip(config.points, run["numbers"]["points"], strict=True):
            (rate,) = point.learning_rates
            cells = [_cell(numbers["per_seed"][name]) for name in columns.values()]
            kind = config.frequencies.replace("_", " ")
            read = READ_OFF[config.frequencies][rate]
            lines.append(f"| {kind} | {rate:g} | {read:g} | {' | '.join(cells)} |")
    n_seeds = sum(run["config"]["n_seeds"] for run in runs) // len(READ_OFF)
    seeds_said = "one seed" if n_seeds == 1 else f"{n_seeds} seeds"
    yield (
        "At the size of the public replication (N 512, d 64, k 1,024, batch 256, 2^15 steps and a "
        f"last anneal), {seeds_said}, beside the monosemantic neurons over features that its "
        "figure shows, to about .03:"
    )
    yield "\n".join(lines)


def _cell(values: Sequence[float | None]) -> str:
    finite = [value for value in values if value is not None]
    return str(OverSeeds(finite)) if finite else "–"


TABLES: Mapping[str, Callable[[Sequence[Stored]], Iterator[str]]] = {
    "superposition": superposition,
    "monosemanticity": monosemanticity,
}

if __name__ == "__main__":
    main()
