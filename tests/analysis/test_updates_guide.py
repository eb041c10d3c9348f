"""The code of docs/updates.md runs as it stands, on a recorded training of two heads."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import phasescope as ps

GUIDE = (Path(__file__).parents[2] / "docs" / "updates.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(torch.randn(2, 6, 3)) for _ in range(3))
        self.W_O = nn.Parameter(torch.randn(2, 3, 6))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 6)
        self.blocks = nn.ModuleList([nn.ModuleDict({"attn": Attention()})])


def test_the_guide_runs_on_a_recorded_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    save = {name: ps.every(25) for name in ("gradients", "updates", "decay")}
    save["weights"] = ps.every(50)
    with ps.Recorder(tmp_path / "runs" / "mine", model, optimizer, n_steps=1500, save=save):
        for _ in range(1500):
            for p in model.parameters():
                p.grad = torch.randn_like(p)
            optimizer.step()
    monkeypatch.chdir(tmp_path)
    space = {"model": model, "rates": torch.full((1500,), 1e-2), "torch": torch}
    for example in EXAMPLES:
        exec(example, space)
    moved, parts = space["moved"], space["parts"]
    assert moved.names == ("l0h0", "l0h1", "l0 attn", "embed")
    assert len(moved.steps) == 31
    assert np.isfinite(moved.per_squared_rates.numpy()).all()
    assert space["heads"].names == ("l0h0", "l0h1")
    assert space["found"].steps.tolist() == list(range(0, 1500, 50))
    assert 0.5 < space["msd"].exponent < 1.8
    # The optimizer's part and decay, exactly as they were recorded.
    run = ps.open_run("runs/mine")
    split = ps.gradient_statistics(
        run.gradients, updates=run.updates, decay=run.decay, components=parts
    )
    torch.testing.assert_close(
        split.optimizer_norm[3],
        torch.from_numpy((run.updates[:] - run.decay[:])[:, :30]).double().norm(dim=1),
        rtol=1e-5,
        atol=0,
    )
