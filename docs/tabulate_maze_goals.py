"""Write verdicts and tables of docs/maze_goals.md from results/maze_goals.json.

python docs/tabulate_maze_goals.py
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

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
    selectivity,
    untrained,
)
from phasescope.experiments.maze_goals.figures import PARTS

ROOT = Path(__file__).parents[1]
MARKS = ("<!-- tables -->", "<!-- end of tables -->")


def main() -> None:
    """Replace what stands between the marks of the page."""
    page = ROOT / "docs" / "maze_goals.md"
    before, rest = page.read_text(encoding="utf-8").split(MARKS[0])
    text = "\n\n".join([before + MARKS[0], *shown(), MARKS[1] + rest.split(MARKS[1])[1]])
    page.write_text(text, encoding="utf-8")


def shown() -> Iterator[str]:
    """What stands between the marks: the verdicts and the tables of the committed results."""
    stored = json.loads((ROOT / "results" / "maze_goals.json").read_text(encoding="utf-8"))
    yield "\n".join(f"- **{c['id']}** ({c['verdict']}): {c['sentence']}" for c in stored["claims"])
    yield from tables(
        [
            Results(experiment.Config(**run["config"]), run["numbers"])
            for run in stored["settings"]["runs"]
        ]
    )


def tables(runs: Sequence[Results]) -> Iterator[str]:
    """Every table under its caption: means over seeds with 95% intervals."""
    for name, of in group_by_setting(runs).items():
        seeds = f"{len(of)} seed{'s' if len(of) > 1 else ''}"
        if not any(r.numbers.get("ablations") for r in of):
            yield f"**Behaviour, {name}** ({seeds}; shares of levels):"
            yield behaviour(of, ())
            continue
        yield f"**Behaviour, {name}** ({seeds}; shares of levels; strength 1):"
        yield behaviour(of, PARTS)
        yield f"**Selectivity, {name}** (drop of the target minus drop of the other goal):"
        yield selectivities(of, name == CORNER)


def behaviour(runs: Sequence[Results], parts: Sequence[str]) -> str:
    """Every measure before the training, after it, and without each part."""
    rows = [["measure", "untrained", "trained", *(f"without {part}" for part in parts)]]
    for measure in runs[0].numbers["final"]:
        row = [measure, mean(runs, lambda r, m=measure: untrained(r, m))]
        row.append(mean(runs, lambda r, m=measure: final(r, m)))
        row += [mean(runs, lambda r, m=measure, p=part: after(r, p, m)) for part in parts]
        rows.append(row)
    return table(rows)


def selectivities(runs: Sequence[Results], corner: bool) -> str:
    """Drops of both goals, and the selectivity of each part and of its controls."""
    rows = [["", *PARTS]]

    def goals(r: Results, part: str) -> tuple[str, str]:
        later, earlier = (CHEESE_GOAL, CORNER_GOAL) if corner else later_goal(r)
        return (later, earlier) if part.startswith("late") else (earlier, later)

    for i, name in enumerate(("drop of the target", "drop of the other")):
        rows.append(
            [name, *(mean(runs, lambda r, p=p, i=i: drop(r, p, goals(r, p)[i])) for p in PARTS)]
        )
    for control in (None, *CONTROLS):
        cells = [
            mean(runs, lambda r, p=p, c=control: selectivity(r, p, *goals(r, p), c)) for p in PARTS
        ]
        rows.append([f"selectivity: {control or 'ablation'}", *cells])
    return table(rows)


def mean(runs: Sequence[Results], statistic: Callable[[Results], float | None]) -> str:
    """Mean and interval over the seeds that have a value, to two digits."""
    values = [value for value in map(statistic, runs) if value is not None]
    if not values:
        return "–"
    found = OverSeeds(values)
    if found.interval is None:
        return f"{found.mean:.2f}"
    return f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as Markdown."""
    head, *rest = rows
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rest)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
