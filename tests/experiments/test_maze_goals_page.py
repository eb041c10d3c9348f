"""The example of docs/maze_goals.md runs and prints shares."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "maze_goals.md"


def test_the_example_prints_what_an_agent_without_goals_does(capsys):
    text = PAGE.read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(block, {})
    lines = capsys.readouterr().out.splitlines()
    shares = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
    assert list(shares) == ["cheese first", "corner first", "corner, no cheese seen"]
    assert all(0.05 < share < 0.5 for share in shares.values())
