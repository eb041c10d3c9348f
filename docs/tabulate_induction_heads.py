"""Write verdicts and table of docs/induction_heads.md from results/induction_heads.json.

python docs/tabulate_induction_heads.py
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pages

from phasescope.experiments import induction_heads as experiment
from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.induction_heads.config import Results
from phasescope.experiments.induction_heads.evidence import induction_heads, scores, window
from phasescope.experiments.settings import grouped

RESULTS = pages.results_file("induction_heads")
MARKS = ("<!-- results -->", "<!-- end of results -->")
COLUMNS = (
    "networks",
    "seeds",
    "with induction heads",
    "fall of the copy loss (steps, medians)",
    "copy loss at the end",
    "largest stripe",
    "largest previous-token score",
)


def main() -> None:
    """Replace what stands between the marks of the page."""
    pages.fill("induction_heads", MARKS, shown())


def shown(file: Path = RESULTS) -> Iterator[str]:
    """What stands between the marks: verdicts and tables, or that nothing has run."""
    return pages.verdicts_and(tables, file)


def tables(stored: dict[str, Any]) -> Iterator[str]:
    """The table and what its columns are."""
    yield (
        "A head with a stripe of .3 or more on repeated random tokens counts as an induction head. "
        "Means over seeds with 95% intervals; a network whose loss has no sudden fall has none in "
        "the fourth column."
    )
    yield table(pages.runs_of(experiment, stored))


def table(runs: Sequence[Results]) -> str:
    """One row for each setting."""
    rows = []
    for name, of in grouped(runs, lambda r: experiment.setting(r.config)).items():
        falls = [found for found in map(window, of) if found is not None]
        fall = (
            f"{median(f[0] for f in falls):,.0f} to {median(f[2] for f in falls):,.0f} "
            f"({len(falls)} seeds)"
            if falls
            else "–"
        )
        cells = (
            name,
            str(len(of)),
            f"{sum(len(induction_heads(r)) > 0 for r in of)} of {len(of)}",
            fall,
            _over(of, lambda r: r.numbers["final"]["copy_loss"]),
            _over(of, lambda r: scores(r, "stripe")[:, -1].max()),
            _over(of, lambda r: scores(r, "previous_token")[:, -1].max()),
        )
        rows.append(cells)
    return pages.markdown(COLUMNS, rows)


def _over(runs: Sequence[Results], statistic: Callable[[Results], float]) -> str:
    return str(OverSeeds([float(statistic(r)) for r in runs]))


if __name__ == "__main__":
    main()
