"""The code of docs/interventions.md runs as it stands, from top to bottom."""

import re
from pathlib import Path

import pytest

import phasescope as ps
from phasescope.interventions import flat_weights

GUIDE = (Path(__file__).parents[2] / "docs" / "interventions.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)


def test_every_block_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec("\n".join(BLOCKS[:1]), names)
    trained = flat_weights(names["model"])
    for block in BLOCKS[1:]:
        exec(block, names)
    # No intervention changed the trained model.
    assert (flat_weights(names["model"]) == trained).all()
    curves = names["curves"]
    assert float(curves.full[-1]) > 0.8
    assert float(curves.inside[2, 2]) > float(curves.inside[0, 2])
    assert names["found"].dimension in (320, 640)
    assert names["ablation"].values.shape == (5, 10)
    assert names["ablation"].controls_within.shape == (5, 5, 10)
    fork = ps.open_run("runs/second")
    assert fork.origin is not None
    assert fork.origin["step"] == 50
    assert fork.updates.steps[0] == 50
    assert "without component 0" in capsys.readouterr().out
