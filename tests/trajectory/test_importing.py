import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import phasescope as ps
from phasescope.cli import main
from phasescope.trajectory.checkpoint_files import find_checkpoints
from phasescope.trajectory.importing import import_checkpoints


class Attention(nn.Module):
    """TransformerLens' attention-only layout, its buffers included."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(torch.randn(2, 6, 3)) for _ in range(3))
        self.W_O = nn.Parameter(torch.randn(2, 3, 6))
        self.register_buffer("mask", torch.ones(4, 4).tril().bool())
        self.register_buffer("IGNORE", torch.tensor(-1e5))


def series(n: int) -> list[nn.Module]:
    torch.manual_seed(0)
    return [Attention() for _ in range(n)]


def flat(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def save_all(models: list[nn.Module], folder: Path, layout: str) -> list[int]:
    """Write a series in one of the layouts; their steps."""
    steps = [0, 64, 1000][: len(models)]
    for step, model in zip(steps, models, strict=True):
        state = model.state_dict()
        if layout == "torch files":
            torch.save(state, folder / f"attn_only_2L_v11_{step:010d}.pth")
        elif layout == "nested with prefix":
            inner = {f"module.{k}": v for k, v in state.items()}
            torch.save({"model_state_dict": inner, "step": step}, folder / f"ckpt-{step}.pt")
        elif layout == "safetensors files":
            safetensors.torch.save_file(state, folder / f"{step}.safetensors")
        elif layout == "Hugging Face folders":
            (folder / f"step{step}").mkdir()
            safetensors.torch.save_file(state, folder / f"step{step}" / "model.safetensors")
        elif layout == "sharded folders":
            place = folder / f"checkpoint-{step}"
            place.mkdir()
            names = list(state)
            shards = {"a.safetensors": names[:3], "b.safetensors": names[3:]}
            for file, part in shards.items():
                safetensors.torch.save_file({n: state[n] for n in part}, place / file)
            index = {"weight_map": {n: f for f, part in shards.items() for n in part}}
            (place / "model.safetensors.index.json").write_text(json.dumps(index))
        else:
            (folder / "refs").mkdir(exist_ok=True)
            commit = f"{step:040x}"
            (folder / "snapshots" / commit).mkdir(parents=True)
            (folder / "refs" / f"step{step}").write_text(commit)
            torch.save(state, folder / "snapshots" / commit / "pytorch_model.bin")
    return steps


LAYOUTS = (
    "torch files",
    "nested with prefix",
    "safetensors files",
    "Hugging Face folders",
    "sharded folders",
    "hub cache",
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_becomes_the_same_run(layout: str, tmp_path: Path):
    models = series(3)
    (tmp_path / "in").mkdir()
    steps = save_all(models, tmp_path / "in", layout)
    parts = ps.components(models[0], "embed", structure=ps.Structure((), embed="embed"))
    run = import_checkpoints([tmp_path / "in"], tmp_path / "run", model=models[0], components=parts)
    assert run.status == "complete"
    assert run.weights.steps.tolist() == steps
    expected = torch.stack([flat(model) for model in models])
    assert torch.equal(torch.from_numpy(run.weights[:]), expected)
    assert run.parameters == ps.ParameterTable.from_module(models[0])
    norms = torch.stack([torch.stack([p.norm() for p in m.parameters()]) for m in models])
    torch.testing.assert_close(torch.from_numpy(run["norms/weights"][:]), norms.detach())
    at = run.parameters.names.index("embed.weight")
    torch.testing.assert_close(
        torch.from_numpy(run["component_norms/weights"][:, 0]), norms[:, at].detach()
    )
    assert list(run.components) == ["embed"]
    moved = ps.update_statistics(run.weights)  # of every tensor
    torch.testing.assert_close(
        moved.change[at, 0],
        (models[1].embed.weight - models[0].embed.weight).norm().detach().double(),
        rtol=1e-6,
        atol=0,
    )


def test_without_a_model_names_and_order_are_those_of_the_files(tmp_path: Path):
    models = series(2)
    save_all(models, tmp_path, "torch files")
    run = import_checkpoints([tmp_path], tmp_path / "run")
    assert set(run.parameters.names) == {n for n, _ in models[0].named_parameters()}
    row = run.parameters.unflatten(torch.from_numpy(run.weights[1]))
    assert torch.equal(row["W_V"], models[1].W_V.detach())
    assert run.info["imported"]["left_out"]["mask"] == "of dtype bool"
    assert "IGNORE" in run.info["imported"]["left_out"]
    assert ps.open_run(tmp_path / "run").dataset("weights").sizes["step"] == 2


def test_norms_only_keeps_no_weights_and_low_precision_is_widened_exactly(tmp_path: Path):
    states = [{"w": torch.randn(50).to(dtype)} for dtype in (torch.bfloat16, torch.float16)]
    for step, state in enumerate(states):
        torch.save(state, tmp_path / f"{step}.pt")
    run = import_checkpoints([tmp_path], tmp_path / "norms", save="norms")
    assert run.series_names == ("norms/weights",)
    exact = [float(state["w"].double().norm()) for state in states]
    np.testing.assert_allclose(run["norms/weights"][:, 0], exact, rtol=1e-6)
    whole = import_checkpoints([tmp_path], tmp_path / "whole")
    assert torch.equal(torch.from_numpy(whole.weights[0]), states[0]["w"].float())


def test_tied_tensors_of_a_torch_file_count_once(tmp_path: Path):
    w = torch.randn(3, 3)
    for step in (0, 1):
        torch.save({"embed": w, "unembed": w, "other": torch.ones(2)}, tmp_path / f"{step}.pt")
    run = import_checkpoints([tmp_path], tmp_path / "run")
    assert run.parameters.names == ("embed", "other")
    assert run.info["imported"]["left_out"] == {"unembed": "shares the memory of embed"}


def test_the_command_line_imports_and_analyses(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_all(series(3), tmp_path, "torch files")
    files = [str(p) for p in sorted(tmp_path.glob("*.pth"))]
    out = str(tmp_path / "run")
    assert main(["import", *files, "-o", out, "--steps", "1", "2", "5"]) == 0
    printed = capsys.readouterr().out
    assert "steps 1 … 5" in printed
    assert "left out: mask (of dtype bool)" in printed
    assert main(["import", *files, "-o", out]) == 1
    assert "holds a run already" in capsys.readouterr().err
    assert main(["analyse", out, "--nulls", "no"]) == 0
    assert "no metric has 30 evaluations" in capsys.readouterr().out


def test_bad_input_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="does not exist"):
        find_checkpoints([tmp_path / "nothing"])
    with pytest.raises(ValueError, match=r"holds \.safetensors or"):
        find_checkpoints([tmp_path])
    for name in ("a1", "b1"):
        torch.save({"w": torch.ones(2)}, tmp_path / f"{name}.pt")
    with pytest.raises(ValueError, match="both say 1"):
        find_checkpoints([tmp_path])
    with pytest.raises(ValueError, match="3 steps and 2 checkpoints"):
        find_checkpoints([tmp_path], [1, 2, 3])
    torch.save({"w": torch.ones(3)}, tmp_path / "b2.pt")
    (tmp_path / "b1.pt").unlink()
    with pytest.raises(ValueError, match=r"'w' of the first checkpoint, of shape \(2,\), but it"):
        import_checkpoints([tmp_path], tmp_path / "run")
    torch.save({"model": nn.Linear(2, 2)}, tmp_path / "b2.pt")
    with pytest.raises(ValueError, match=r"without pickle \(weights_only=True\)"):
        import_checkpoints([tmp_path], tmp_path / "other")
    torch.save({"w": torch.tensor([1.0, torch.nan])}, tmp_path / "b2.pt")
    with pytest.raises(ValueError, match=r"weights must be finite, but those of 'w'"):
        import_checkpoints([tmp_path], tmp_path / "third")
    with pytest.raises(ValueError, match="Pass model= as well"):
        import_checkpoints(
            [tmp_path], tmp_path / "x", components={"a": ps.Component("a", ((0, 1),))}
        )
    torch.save({"n": 3}, tmp_path / "b2.pt")
    with pytest.raises(ValueError, match="must hold named tensors"):
        import_checkpoints([tmp_path / "b2.pt"], tmp_path / "y")


CAMPAIGN = """
import sys
from phasescope.trajectory.importing import import_checkpoints
run = import_checkpoints([sys.argv[1]], sys.argv[2], save="norms")
assert len(run["norms/weights"]) == 100
"""


@pytest.mark.slow
def test_a_hundred_checkpoints_of_a_hundred_million_parameters_fit_in_two_gigabytes(tmp_path: Path):
    """One file under a hundred names; peak memory of the process that imports norms."""
    (tmp_path / "in").mkdir()
    layers = {f"l{i}": torch.randn(5_000_000) for i in range(16)} | {"e": torch.randn(20_000_000)}
    original = tmp_path / "in" / "step0.safetensors"
    safetensors.torch.save_file(layers, original)
    del layers
    for step in range(1, 100):
        (tmp_path / "in" / f"step{step}.safetensors").hardlink_to(original)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    subprocess.run([sys.executable, "-c", CAMPAIGN, tmp_path / "in", tmp_path / "run"], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak >= before
    assert peak * 1024 < 2e9


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("nothing", [[], "ck/pt"])
def test_checkpoints_are_a_sequence(tmp_path, nothing):
    with pytest.raises(ValueError, match="one file or folder or more is required, such as"):
        ps.import_checkpoints(nothing, tmp_path / "run")


def test_given_steps_go_to_files_in_the_order_of_their_numbers(tmp_path: Path):
    for epoch in (1, 2, 10, 11):
        torch.save({"w": torch.full((2,), float(epoch))}, tmp_path / f"epoch_{epoch}.pt")
    found = find_checkpoints([tmp_path], steps=[100, 200, 1000, 1100])
    assert [(c.step, c.path.stem) for c in found] == [
        (100, "epoch_1"),
        (200, "epoch_2"),
        (1000, "epoch_10"),
        (1100, "epoch_11"),
    ]
