"""Write verdicts and tables of docs/maze_goals.md from results/maze_goals.json.

python docs/tabulate_maze_goals.py
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import pages

from phasescope.experiments import maze_goals as experiment
from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.maze_goals.ablations import CONTROLS
from phasescope.experiments.maze_goals.config import CORNER, Results, group_by_setting
from phasescope.experiments.maze_goals.evidence import (
    CHEESE_GOAL,
    CORNER_GOAL,
    after,
    drop,
    final,
    later_goal,
    order,
    selectivity,
    untrained,
)
from phasescope.experiments.maze_goals.figures import PARTS

RESULTS = pages.results_file("maze_goals")
MARKS = ("<!-- tables -->", "<!-- end of tables -->")


def main() -> None:
    """Replace what stands between the marks of the page."""
    pages.fill("maze_goals", MARKS, shown())


def shown(file: Path = RESULTS) -> Iterator[str]:
    """What stands between the marks: verdicts and tables, or that nothing has run."""
    return pages.verdicts_and(lambda stored: tables(pages.runs_of(experiment, stored)), file)


def tables(runs: Sequence[Results]) -> Iterator[str]:
    """Every table under its caption: means over seeds with 95% intervals."""
    yield "**When goals were learned** (step, median over seeds, smallest to largest):"
    yield learned(runs)
    for name, of in group_by_setting(runs).items():
        seeds = f"{len(of)} seed{'s' if len(of) > 1 else ''}"
        if not any(r.numbers.get("ablations") for r in of):
            yield f"**Behaviour, {name}** ({seeds}; shares of levels):"
            yield behaviour(of, ())
            continue
        yield f"**Behaviour, {name}** ({seeds}; shares of levels; strength 1):"
        yield behaviour(of, PARTS)
        yield f"**Selectivity, {name}** (drop of the target, of the other goal: their difference):"
        yield selectivities(of, name == CORNER)


def learned(runs: Sequence[Results]) -> str:
    """When each goal was half learned in every setting, and which of two was the later one."""
    rows = [["setting", "first goal", "second goal", "second after first, tied", "last step"]]
    for name, of in group_by_setting(runs).items():
        stars = of[0].config.stars
        pair = ("cheese", "star") if stars else (CORNER_GOAL, CHEESE_GOAL)
        cells = []
        for goal in pair:
            times = [r.numbers["training"]["learned"][goal] for r in of]
            known = sorted(t[0] for t in times if t is not None)
            spread = f"{median(known):g}, {known[0]} to {known[-1]}" if known else "never"
            missed = f"; never in {len(of) - len(known)}" if known and len(known) < len(of) else ""
            cells.append(f"{goal}: {spread}{missed}")
        orders = [order(r, *pair) for r in of]
        after_first = f"{sum(o > 0 for o in orders)} of {len(of)}, {orders.count(0)}"
        last = max(r.numbers["training"]["steps"][-1] for r in of)
        rows.append([name, *cells, after_first, f"{last}"])
    return pages.markdown(rows[0], rows[1:])


def behaviour(runs: Sequence[Results], parts: Sequence[str]) -> str:
    """Every measure before the training, after it, and without each part."""
    rows = [["measure", "untrained", "trained", *(f"without {part}" for part in parts)]]
    for measure in runs[0].numbers["final"]:
        row = [measure, mean(runs, lambda r, m=measure: untrained(r, m))]
        row.append(mean(runs, lambda r, m=measure: final(r, m)))
        row += [mean(runs, lambda r, m=measure, p=part: after(r, p, m)) for part in parts]
        rows.append(row)
    return pages.markdown(rows[0], rows[1:])


def selectivities(runs: Sequence[Results], corner: bool) -> str:
    """Drops of both goals, and the selectivity of each part and of its controls."""
    rows = [["", *PARTS]]

    def goals(r: Results, part: str) -> tuple[str, str]:
        later, earlier = (CHEESE_GOAL, CORNER_GOAL) if corner else later_goal(r)
        return (later, earlier) if part.startswith("late") else (earlier, later)

    for control in (None, *CONTROLS):
        cells = []
        for part in PARTS:
            target, other = (
                mean(runs, lambda r, p=part, i=i, c=control: drop(r, p, goals(r, p)[i], c))
                for i in range(2)
            )
            difference = mean(runs, lambda r, p=part, c=control: selectivity(r, p, *goals(r, p), c))
            cells.append(
                "–"
                if difference == "–"
                else f"{target.split()[0]}, {other.split()[0]}: {difference}"
            )
        rows.append([control or "the ablation", *cells])
    return pages.markdown(rows[0], rows[1:])


def mean(runs: Sequence[Results], statistic: Callable[[Results], float | None]) -> str:
    """Mean and interval over the seeds that have a value, to two digits."""
    values = [value for value in map(statistic, runs) if value is not None]
    if not values:
        return "–"
    found = OverSeeds(values)
    if found.interval is None:
        return f"{found.mean:.2f}"
    return f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"


if __name__ == "__main__":
    main()
