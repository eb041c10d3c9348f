"""docs/maze_goals.md: its example runs, its tables are what results/maze_goals.json says."""

import re
from dataclasses import replace
from pathlib import Path

import tabulate_maze_goals as script

from phasescope.experiments.maze_goals.ablations import SHRINK
from phasescope.experiments.maze_goals.config import Config, Results

PAGE = Path(__file__).parents[2] / "docs" / "maze_goals.md"


def test_the_example_prints_what_an_agent_without_goals_does(capsys):
    text = PAGE.read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(block, {})
    lines = capsys.readouterr().out.splitlines()
    shares = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
    assert list(shares) == ["cheese first", "corner first", "corner, no cheese seen"]
    assert all(0.05 < share < 0.5 for share in shares.values())


def test_the_tables_say_what_the_runs_say():
    """Of two planted runs, whose shares are known."""
    runs = [
        Results(
            replace(Config(), seed=seed),
            {
                "final": {"corner": [0.9, 100], "from the corner": [0.7, 100]},
                "untrained": {"corner": 0.1, "from the corner": 0.2},
                "training": {
                    "steps": [0, 16, 32, 48],
                    "learned": {
                        "corner": [16, 0.5],
                        "from the corner": [48, 0.5][: 2 * seed] or None,
                    },
                },
                "ablations": {
                    "late gradients": {
                        "removed": 0.5,
                        "values": [[0.9, 0.7], [0.8 + 0.1 * seed, 0.2], [0.9, 0.7]],
                        "controls": {SHRINK: [[0.9, 0.7]] * 3},
                    }
                },
            },
        )
        for seed in range(2)
    ]
    caption, learned, first, behaviour, _, selectivity = script.tables(runs)
    assert caption.startswith("**When goals were learned**")
    assert learned.splitlines()[2] == (
        "| corner and cheese | corner: 16, 16 to 16 | from the corner: 48, 48 to 48; never in 1 "
        "| 2 of 2, 0 | 48 |"
    )
    assert first == "**Behaviour, corner and cheese** (2 seeds; shares of levels; strength 1):"
    rows = [line.split(" | ") for line in behaviour.splitlines()]
    assert rows[2][:3] == ["| corner", "0.10 [0.10, 0.10]", "0.90 [0.90, 0.90]"]
    assert rows[2][3].startswith("0.85 [")
    assert rows[3][3] == "0.20 [0.20, 0.20]"
    rows = [line.split(" | ") for line in selectivity.splitlines()]
    by_name = {row[0]: row[1] for row in rows}
    assert by_name["| the ablation"].startswith("1.00, 0.06: 0.94 [")
    assert by_name[f"| {SHRINK}"] == "0.00, 0.00: 0.00 [0.00, 0.00]"
    assert by_name["| random directions"] == "–"


def test_the_tables_of_the_page_are_those_of_the_results():
    shown = PAGE.read_text(encoding="utf-8").split(script.MARKS[0])[1].split(script.MARKS[1])[0]
    if (PAGE.parents[1] / "results" / "maze_goals.json").exists():
        assert shown.strip() == "\n\n".join(script.shown()).strip()
    else:
        assert shown.strip() == "The seeds have not been run yet."
