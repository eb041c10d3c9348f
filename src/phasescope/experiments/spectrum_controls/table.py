"""The axes as rows of a table: what each shows, and what the rule says of it.

``python -m phasescope.experiments.spectrum_controls.table results/spectrum_controls.json`` prints
the table of the documentation.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from phasescope.experiments.spectrum_controls.axes import AXES
from phasescope.experiments.spectrum_controls.config import Config, Results
from phasescope.experiments.spectrum_controls.rules import judge, unchanged
from phasescope.experiments.spectrum_controls.series import DECIDING, Series, all_series
from phasescope.report import load_results

HEADER = (
    "| axis, first to last level | training | frozen | distance left | correlation | largest fall "
    "| accuracy | falls smoothly |",
    "| --- | --- | --- | --- | --- | --- | --- | --- |",
)


def axes_table(results: Sequence[Results], statistic: str = DECIDING) -> list[str]:
    """Lines of a Markdown table, a row for each axis that was run.

    Training and frozen weights: means over seeds at the first and the last level. Distance left: at
    the last level, as a share of the first, with its 95% interval. Correlation: Spearman's, between
    level and distance. Largest fall: between neighbouring levels, as a share of the whole fall.

    Args:
        results: Levels of one or more axes.
        statistic: One of those of `series.STATISTICS`.
    """
    return [*HEADER, *(_row(series) for series in all_series(results, statistic))]


def stored(path: Path) -> list[Results]:
    """The levels in a results file."""
    rows = load_results(path).settings["runs"]
    return [Results(Config(**row["config"]), row["numbers"]) for row in rows]


def _row(series: Series) -> str:
    claim = series.axis.claim
    judged = judge(series.excess, sum(axis.claim == claim for axis in AXES))
    low, high = judged.left_interval
    fallen = f"{_percent(judged.largest_jump)}" if judged.left < 1 else "none"
    cells = (
        f"{series.axis.name}: {series.axis.labels[0]} to {series.axis.labels[-1]}",
        _ends(series.values, 1),
        _ends(series.null, 1),
        f"{_percent(judged.left)} [{_percent(low)}, {_percent(high)}]",
        f"{judged.trend:.2f}",
        fallen,
        _ends(series.accuracy, 3),
        _verdict(series),
    )
    return "| " + " | ".join(cells) + " |"


def _verdict(series: Series) -> str:
    if not series.axis.claim:
        answer = unchanged(series.excess)
        words = {"holds": "control: unchanged", "contradicted": "control: changed"}
        return words.get(answer, "control: open")
    judged = judge(series.excess, sum(axis.claim == series.axis.claim for axis in AXES))
    if judged.holds:
        return "yes"
    if judged.failed:
        return f"no: not '{judged.failed[0]}'"
    unsettled = [name for name, answer in judged.answers.items() if answer == "open"]
    return f"open: '{unsettled[0]}'"


def _ends(values: np.ndarray, digits: int) -> str:
    return " to ".join(f"{values[i].mean():.{digits}f}" for i in (0, -1))


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


if __name__ == "__main__":
    found = stored(Path(sys.argv[1]))
    chosen = sys.argv[2] if len(sys.argv) > 2 else DECIDING
    sys.stdout.write("\n".join(axes_table(found, chosen)) + "\n")
