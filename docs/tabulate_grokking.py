"""Write verdicts and tables of docs/grokking.md from results/grokking.json.

python docs/tabulate_grokking.py
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import pages

from phasescope.experiments import grokking as experiment
from phasescope.experiments.grokking.config import Results
from phasescope.experiments.grokking.evidence import Evidence, number
from phasescope.experiments.settings import grouped

RESULTS = pages.results_file("grokking")
MARKS = ("<!-- results -->", "<!-- end of results -->")
COLUMNS = (
    "setting",
    "seeds",
    "memorised",
    "grokked",
    "clean-up",
    "clock, own basis",
    "other basis",
    "pure neurons",
    "spikes up",
    "falling steps",
)


def main() -> None:
    """Replace what stands between the marks of the page."""
    pages.fill("grokking", MARKS, shown())


def shown(file: Path = RESULTS) -> Iterator[str]:
    """What stands between the marks: verdicts and tables, or that nothing has run."""
    return pages.verdicts_and(tables, file)


def tables(stored: dict[str, Any]) -> Iterator[str]:
    """The table and what its columns are."""
    yield (
        "Medians over seeds of the steps, with the number of seeds that got there; means of the "
        "others. Clean-up: in how many `grokking_phases` finds one. The clock is the share of the "
        "logits' variance along cos w(a + b − c); spikes are those of the training loss, per run."
    )
    yield table(pages.runs_of(experiment, stored))


def table(runs: Sequence[Results]) -> str:
    """One row for each setting."""
    singles = Evidence(runs).all  # a seed that ran alone and in a batch counts once
    rows = []
    for name, seeds in grouped(singles, lambda r: experiment.setting(r.config)).items():
        cells = (
            name,
            str(len(seeds)),
            _time(seeds, "memorised"),
            _time(seeds, "grokked"),
            str(sum(_has_clean_up(seed) for seed in seeds)),
            _mean(seeds, "final_measures", "cube_fve"),
            _mean(seeds, "other_basis", "cube_fve"),
            _mean(seeds, "final_measures", "pure_neurons"),
            _mean(seeds, "spikes", "train_loss_up", "n"),
            _mean(seeds, "falling_share"),
        )
        rows.append(cells)
    return pages.markdown(COLUMNS, rows)


def _time(seeds: Sequence[Results], event: str) -> str:
    """Median step over all seeds, and how many got there; a dash where fewer than half did."""
    times = [s.numbers["times"][event] for s in seeds]
    reached = [t for t in times if t is not None]
    if 2 * len(reached) <= len(times):
        return f"– ({len(reached)})"
    last = max(s.config.n_steps for s in seeds)
    return f"{median([last if t is None else t for t in times]):,.0f} ({len(reached)})"


def _has_clean_up(seed: Results) -> bool:
    return any(phase["name"] == "clean-up" for phase in seed.numbers.get("phases", []))


def _mean(seeds: Sequence[Results], *path: str) -> str:
    values = [v for s in seeds for v in [number(s, *path)] if v is not None]
    return f"{mean(values):.3g}" if values else "–"


if __name__ == "__main__":
    main()
