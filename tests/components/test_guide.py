"""The code of docs/components.md runs as it stands, on models that fit its words."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from components import toys
from phasescope.models import seeded
from phasescope.parameters import ParameterTable

GUIDE = (Path(__file__).parents[2] / "docs" / "components.md").read_text(encoding="utf-8")
USE, STATE, WRITE, VERIFY, ANY = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)


class Own(nn.Module):
    """The model that the guide writes down by hand: 8 heads of 32 in 2 groups, 64 neurons."""

    def __init__(self):
        super().__init__()
        self.tokens = toys.parameter(toys.D_VOCAB, 12)
        self.block = nn.ModuleList(OwnBlock() for _ in range(4))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens[tokens]
        for block in self.block:
            x = block(x)
        return x @ self.tokens.T


class OwnBlock(nn.Module):
    def __init__(self):
        super().__init__()
        shapes = {"wq": (12, 256), "wkv": (12, 128), "wo": (256, 12)}
        self.attention = nn.ParameterDict({n: toys.parameter(*s) for n, s in shapes.items()})
        self.w1, self.w2 = toys.parameter(12, 64), toys.parameter(64, 12)

    def forward(self, x: Tensor) -> Tensor:
        k, v = (x @ self.attention["wkv"]).unflatten(-1, (4, 32)).chunk(2, dim=-2)
        _, z = toys.attend((x @ self.attention["wq"]).unflatten(-1, (8, 32)), k, v)
        x = functional.layer_norm(x + z.flatten(2) @ self.attention["wo"], (12,))
        return functional.layer_norm(x + (x @ self.w1).relu() @ self.w2, (12,))


def test_the_first_and_the_last_example_run_on_any_known_model(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    model = seeded(toys.FAMILIES["nanoGPT"], 0)
    n = ParameterTable.from_module(model).size
    drawn = torch.randn(7, n, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def train():
        for row in drawn[:5]:
            for p, g in zip(
                model.parameters(), row.split([*map(Tensor.numel, model.parameters())]), strict=True
            ):
                p.grad = g.view(p.shape)
            optimizer.step()

    names = {"model": model, "optimizer": optimizer, "train": train, "directions": drawn[5:]}
    exec(USE + ANY, names)
    assert "l0...l1 h0...h3" in capsys.readouterr().out
    np.testing.assert_array_equal(names["gradients"], drawn[:5].numpy())
    expected = drawn[:5, names["parts"]["l0h1"].columns].double().norm(dim=1).numpy()
    np.testing.assert_allclose(names["norms"].gradients.sel(component="l0h1"), expected, rtol=1e-6)
    assert names["spectrum"].steps.tolist() == [0, 1, 2, 3, 4]
    assert 0 < names["parts"]["large"].size < n
    assert names["inside"].shape == (5, 2)


def test_heads_that_do_not_show_are_stated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(toys, "N_HEADS", 8)
    attention = toys.FusedAttention(names=("qkv_proj", "o_proj"), interleaved=True)
    del attention.n_head
    model = toys.Transformer([attention], [toys.LayerMLP(("c_fc",), "c_proj")])
    names = {"model": model}
    exec("import phasescope as ps\n" + STATE, names)
    assert list(names["parts"]) == [f"l0h{h}" for h in range(8)]


def test_a_structure_written_as_in_the_guide_passes_verify():
    model = seeded(Own, 0).double()
    names = {
        "model": model,
        "tokens": toys.tokens()[:, :-1],
        "targets": toys.tokens()[:, 1:],
        "loss_fn": lambda logits, wanted: functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten()
        ),
    }
    exec("import phasescope as ps\n" + WRITE + VERIFY, names)
    assert len(names["own"].layers) == 4
    broken = WRITE.replace("starts=(64, 96)", "starts=(96, 64)")
    with pytest.raises(ValueError, match="do not belong together"):
        exec("import phasescope as ps\n" + broken + VERIFY, names)
