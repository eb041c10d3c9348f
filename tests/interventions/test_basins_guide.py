"""The code of docs/basins.md runs as it stands, from top to bottom."""

import re
from pathlib import Path
from typing import Any

import pytest

GUIDE = (Path(__file__).parents[2] / "docs" / "basins.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)


def test_every_block_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(block, names)
    printed = capsys.readouterr().out
    assert "barrier, weights matched" in printed
    assert "95th percentile of 3 barriers between forks" in printed
    page = (tmp_path / "basin.html").read_text(encoding="utf-8")
    assert "Two models: " in page
    assert "rises half-way to random targets" in page
    assert names["ticket"].density == pytest.approx(1 / 8, rel=0.02)
    assert names["matched"].similarity[-1] > names["matched"].similarity[0]
