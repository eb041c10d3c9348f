"""The code of docs/grokking_networks.md runs as it stands, from top to bottom."""

import re
from pathlib import Path

import pytest

GUIDE = (Path(__file__).parents[2] / "docs" / "grokking_networks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)


def test_every_block_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in BLOCKS:
        exec(block, names)
    task, curves = names["task"], names["curves"]
    assert names["logits"].shape == (len(names["train"][1]), 14)
    assert float(curves.train_loss[-1]) < float(curves.train_loss[0])
    assert names["losses"].shape == (21, 3)
    same, model = names["same"], names["model"]
    assert (same.logits_of_all_pairs() == model.logits_of_all_pairs()).all()
    regular = task.pairs[task.is_regular]
    assert (names["clock"](regular).argmax(1) == task.labels[task.is_regular]).all()
    assert (names["wave"](regular).argmax(1) == task.labels[task.is_regular]).all()
    assert names["times"].memorised is not None
    assert names["phases"][0].name == "memorisation"
    assert names["weights"].steps[-1] == 400
    assert len(names["rows"]) == len(names["weights"].steps)
    assert {trace.name for trace in names["figure"].data} >= {"train", "test"}
