"""The code of docs/basins.md runs as it stands, from top to bottom."""

import re
from pathlib import Path

import pytest
import torch

from phasescope.models import MLP, seeded

GUIDE = (Path(__file__).parents[2] / "docs" / "basins.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)


def test_every_block_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = seeded(lambda: MLP((4, 12, 12, 3)), 0)
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    first, second = (
        {n: 3 * v for n, v in seeded(lambda: MLP((4, 12, 12, 3)), s).state_dict().items()}
        for s in (0, 1)
    )
    names = {"model": model, "first": first, "second": second, "x": x, "y": y}
    names |= {"x_test": x[:20], "y_test": y[:20]}
    for block in BLOCKS:
        exec(block, names)
    assert "barrier, weights matched" in capsys.readouterr().out
    page = (tmp_path / "basin.html").read_text(encoding="utf-8")
    assert "Two models: " in page
    assert "rises half-way to random targets" in page
    assert names["matched"].similarity[-1] > names["matched"].similarity[0]
