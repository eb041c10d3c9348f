"""The end of a sweep: statistics of every grid point over its seeds, and what failed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phasescope.analysis.intervals import interval
from phasescope.experiments.runner import headline
from phasescope.sweeps.grid import varying, without_seed
from phasescope.sweeps.outcome import Outcome

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = 4  # of statistics; the JSON file has them all
_ERROR_LINES = 3
_FAILURES = 20


@dataclass(frozen=True)
class Statistic:
    """A number over the seeds of a grid point."""

    mean: float | None
    """Mean over the seeds; None if it is not finite for one of them."""
    interval: tuple[float, float] | None
    """95% interval of the mean; None for fewer than two seeds."""
    n_seeds: int
    """Seeds that have the number."""

    def __str__(self) -> str:
        if self.mean is None:
            return "not finite"
        if self.interval is None:
            return f"{self.mean:.4g}"
        return f"{self.mean:.4g} [{self.interval[0]:.4g}, {self.interval[1]:.4g}]"


@dataclass(frozen=True)
class GridPoint:
    """The runs that differ in their seed only."""

    values: dict[str, Any]
    """The fields that differ between the points of the sweep."""
    n_seeds: int
    """Finished runs."""
    n_failed: int
    """Failed runs."""
    statistics: dict[str, Statistic]
    """The experiment's main numbers, by name."""


def grid_points(experiment: Any, outcomes: Sequence[Outcome]) -> list[GridPoint]:
    """The grid points of a sweep in their order, each over its seeds.

    Args:
        experiment: The experiment's module.
        outcomes: What `sweep` returned.

    Returns:
        A point for every combination of values.

    Example:
        >>> from phasescope.experiments import gradient_spectrum
        >>> grid_points(gradient_spectrum, [])
        []
    """
    fields = varying([outcome.config for outcome in outcomes])
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(without_seed(outcome.config), []).append(outcome)
    points = []
    for group in groups.values():
        finished = [o for o in group if o.status == "finished"]
        rows = [headline(experiment, o.results) for o in finished]
        names = dict.fromkeys(name for row in rows for name in row)
        points.append(
            GridPoint(
                {name: getattr(group[0].config, name) for name in fields},
                len(finished),
                sum(o.status == "failed" for o in group),
                {name: _statistic([row[name] for row in rows if name in row]) for name in names},
            )
        )
    return points


def _statistic(values: list[float]) -> Statistic:
    if not all(map(math.isfinite, values)):
        return Statistic(None, None, len(values))
    mean = float(np.mean(values))
    if len(values) < 2:
        return Statistic(mean, None, len(values))
    ends = interval(values)
    return Statistic(mean, (ends.low, ends.high), len(values))


def points_table(points: Sequence[GridPoint], title: str) -> Table:
    """A row per grid point: its fields, its seeds, its main numbers with intervals, its failures.

    Args:
        points: From `grid_points`.
        title: What stands above.
    """
    from rich.table import Table

    names = list(dict.fromkeys(name for point in points for name in point.statistics))
    caption = "mean [95% interval over seeds]"
    if len(names) > _COLUMNS:
        caption += f"; {len(names) - _COLUMNS} more numbers are in sweep.json"
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    fields = list(points[0].values) if points else []
    for name in [*fields, "seeds", *names[:_COLUMNS], "failed"]:
        table.add_column(
            name.replace("_", " "), justify="left" if name in fields else "right", overflow="fold"
        )
    for point in points:
        cells = [str(point.values[name]) for name in fields]
        numbers = [str(point.statistics.get(name, "")) for name in names[:_COLUMNS]]
        failed = f"[red]{point.n_failed}[/red]" if point.n_failed else "0"
        table.add_row(*cells, str(point.n_seeds), *numbers, failed)
    return table


def failures_table(outcomes: Sequence[Outcome]) -> Table:
    """A row per failed run: its configuration where it differs, its error, and where that arose.

    Args:
        outcomes: What `sweep` returned; of many failures the first ones are shown.
    """
    from rich.table import Table
    from rich.text import Text

    fields = (*varying([outcome.config for outcome in outcomes]), "seed")
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    left_out = len(failed) - _FAILURES
    table = Table(
        "run",
        "why it failed",
        show_lines=True,
        title="failed",
        title_justify="left",
        caption=f"{left_out} more are in sweep.json" if left_out > 0 else None,
        caption_justify="left",
    )
    for outcome in failed[:_FAILURES]:
        values = "\n".join(f"{name} {getattr(outcome.config, name)}" for name in fields)
        why = Text(outcome.error, style="bold")
        place = [row for row in outcome.traceback if row not in outcome.error]
        for row in place[-_ERROR_LINES:]:
            why.append(f"\n{row}", style="not bold dim")
        table.add_row(Text(values), why)
    return table


def described(
    experiment_name: str,
    preset: str,
    points: Sequence[GridPoint],
    outcomes: Sequence[Outcome],
) -> dict[str, Any]:
    """The content of sweep.json.

    Args:
        experiment_name: Name of the experiment.
        preset: The preset that the grid started from.
        points: From `grid_points`.
        outcomes: What `sweep` returned.
    """
    return {
        "experiment": experiment_name,
        "preset": preset,
        "points": [vars(point) | {"statistics": _plain(point.statistics)} for point in points],
        "failures": [o.to_json() for o in outcomes if o.status == "failed"],
        "runs": [o.to_json() for o in outcomes if o.status != "failed"],
    }


def _plain(statistics: Mapping[str, Statistic]) -> dict[str, Any]:
    return {name: dict(vars(statistic)) for name, statistic in statistics.items()}
