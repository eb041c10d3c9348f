"""Write verdicts and tables of the pages of experiments on toy models from results/.

python docs/tabulate_toys.py
"""

import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pages

from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.superposition.config import LEVELS, SHAPES

MARKS = ("<!-- results -->", "<!-- end of results -->")
Stored = Mapping[str, Any]
# Monosemantic neurons over features after 2^15 steps, read off a figure of the public replication
# jbloomAus/toy_model_interpretability, by learning rate.
READ_OFF = {
    "uniform": {0.001: 0, 0.003: 0.03, 0.005: 0.31, 0.007: 1.02, 0.01: 1.19, 0.03: 0.99},
    "power_law": {0.001: 0, 0.003: 0, 0.005: 0, 0.007: 0.07, 0.01: 0.53, 0.03: 0.68},
}


def main() -> None:
    """Replace what stands between the marks of every page."""
    for name in TABLES:
        pages.fill(name, MARKS, shown(name))


def shown(name: str) -> Iterator[str]:
    """What stands between the marks of a page: verdicts and tables, or that nothing has run."""
    return pages.verdicts_and(
        lambda stored: TABLES[name](stored["settings"]["runs"]), pages.results_file(name)
    )


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
            above = (_above(counts, place), _above(control, place))
            rows.append([level, SHAPES[level], *above, f"{lines:.2g}"])
        yield pages.markdown(
            ["level", "shape", "trained", "random directions", "groups with a line"], rows
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
    rows = []
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
            rows.append([experiment.setting(point), str(n_seeds), *cells])
    yield (
        "Means over seeds with 95% intervals at the end of the training, where the learning rate "
        "is zero; *at the peak*: at the last record of the largest learning rate."
    )
    yield pages.markdown(["setting", "seeds", *columns], rows)
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
    rows = []
    for run in runs:
        config = experiment.Config(**run["config"])
        for point, numbers in zip(config.points, run["numbers"]["points"], strict=True):
            (rate,) = point.learning_rates
            cells = [_cell(numbers["per_seed"][name]) for name in columns.values()]
            kind = config.frequencies.replace("_", " ")
            read = READ_OFF[config.frequencies][rate]
            rows.append([kind, f"{rate:g}", f"{read:g}", *cells])
    n_seeds = sum(run["config"]["n_seeds"] for run in runs) // len(READ_OFF)
    seeds_said = "one seed" if n_seeds == 1 else f"{n_seeds} seeds"
    yield (
        "At the size of the public replication (N 512, d 64, k 1,024, batch 256, 2^15 steps and a "
        f"last anneal), {seeds_said}, beside the monosemantic neurons over features that its "
        "figure shows, to about .03:"
    )
    yield pages.markdown(["frequencies", "learning rate", "read off", *columns], rows)


def _cell(values: Sequence[float | None]) -> str:
    finite = [value for value in values if value is not None]
    return str(OverSeeds(finite)) if finite else "–"


def mode_connectivity(runs: Sequence[Stored]) -> Iterator[str]:
    """Barriers, losses and hops of every toy setting; the cells of the classifiers."""
    experiment = importlib.import_module("phasescope.experiments.mode_connectivity")
    groups = _grouped(experiment, runs)
    pairs = {"poly to mono": "cross", "poly to poly": "poly", "mono to mono": "mono"}
    ways = {
        "as they are": "naive",
        "weights matched": "weights",
        "activations matched": "activations",
        "quadratic curve": "curve",
    }
    for name, values in groups.items():
        if "cross best" not in values:
            continue
        yield (
            f"**{name}**, {len(values['tolerance'])} seeds, all of them, matched in loss or not. "
            f"Barriers between the two models of a pair (tolerance {_cell(values['tolerance'])}):"
        )
        yield pages.markdown(
            ["pair", *ways, "loss", "mono/N (.9)"],
            [
                [
                    pair,
                    *(_cell(values[f"{key} {way}"]) for way in ways.values()),
                    *(
                        f"{_cell(values[f'{key} {what} first'])} and "
                        f"{_cell(values[f'{key} {what} second'])}"
                        for what in ("loss", "mono")
                    ),
                ]
                for pair, key in pairs.items()
            ],
        )
        names = ("poly to mono", "mono to poly", "same basin", "random")
        yield "Smallest pull, and seeds in which none up to 10 suffices:"
        yield pages.markdown(
            ["from and to", "median", "none suffices"],
            [
                [
                    pair,
                    f"{np.median([np.inf if v is None else v for v in values[f'hop {pair}']]):.3g}",
                    f"{sum(v is None for v in values[f'hop {pair}'])}",
                ]
                for pair in names
            ],
        )
        yield "After fine-tuning away, after training on in the same way, and of another model:"
        columns = ("mono", "loss", "barrier naive", "barrier", "overlap")
        yield pages.markdown(
            ["model", "mono/N (.9)", "loss", "barrier", "barrier, aligned", "overlap"],
            [
                [label, *(_cell(values[f"{who} {what}"]) for what in columns)]
                for label, who in (
                    ("fine-tuned away", "away"),
                    ("trained on", "on"),
                    ("another model", "independent"),
                )
            ],
        )
    cells = {name: values for name, values in groups.items() if "ratio matched" in values}
    if cells:
        yield (
            "Pairs of classifiers: test loss half-way over that of the ends, and what they reach."
        )
        columns = ("naive", "matched", "activations", "random")
        yield pages.markdown(
            [
                "setting",
                "pairs",
                "as they are",
                "weights matched",
                "activations matched",
                "random target",
                "test loss",
                "test accuracy",
            ],
            [
                [
                    name,
                    str(len(values["test loss"])),
                    *(_cell(values[f"ratio {how}"]) for how in columns),
                    _cell(values["test loss"]),
                    _cell(values["test accuracy"]),
                ]
                for name, values in cells.items()
            ],
        )


def sparse_training(runs: Sequence[Stored]) -> Iterator[str]:
    """Every way of being sparse, a table for each setting."""
    experiment = importlib.import_module("phasescope.experiments.sparse_training")
    columns = {
        "loss": "loss",
        "mono/N (.9)": "mono",
        "mono/N (.999)": "mono strict",
        "silent neurons": "silent",
        "density of W_in": "density W_in",
        "density of W_out": "density W_out",
        "barrier of two data orders": "instability",
    }
    for name, values in _grouped(experiment, runs).items():
        kinds = [key.removesuffix(" loss") for key in values if key.endswith(" loss")]
        kinds.sort(key=lambda kind: (int(kind.split()[1]) if " " in kind else 0, kind))
        yield f"**{name}**, {len(values['dense loss'])} seeds (tickets: the number is the level):"
        yield pages.markdown(
            ["network", *columns],
            [
                [kind, *(_cell(values.get(f"{kind} {key}", [])) for key in columns.values())]
                for kind in kinds
            ],
        )


def _grouped(experiment: Any, runs: Sequence[Stored]) -> dict[str, dict[str, list]]:
    """The values of all seeds of every setting, by the name of the statistic."""
    found: dict[str, dict[str, list]] = {}
    for run in runs:
        values = found.setdefault(experiment.setting(experiment.Config(**run["config"])), {})
        for name, own in run["numbers"]["per_seed"].items():
            values.setdefault(name, []).extend(own)
    return found


TABLES: Mapping[str, Callable[[Sequence[Stored]], Iterator[str]]] = {
    "superposition": superposition,
    "monosemanticity": monosemanticity,
    "mode_connectivity": mode_connectivity,
    "sparse_training": sparse_training,
}

if __name__ == "__main__":
    main()
