import json
from pathlib import Path

import pytest
import torch
from torch import nn

import phasescope as ps
from phasescope.cli import main
from phasescope.report.phases import run_phases


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose loss drops from 250 to 350, while the second layer moves ten times as fast."""
    folder = tmp_path_factory.mktemp("phases") / "run"
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    save = {"norms": ps.every(1), "gradients": ps.every(40)}
    with ps.Recorder(folder, model, optimizer, n_steps=1_000, save=save) as recorder:
        for step in range(1_000):
            in_phase = 250 <= step <= 350
            for name, p in model.named_parameters():
                fast = 10.0 if in_phase and name == "1.weight" else 1.0
                p.grad = fast * torch.randn_like(p)
            recorder.log(
                step=step,
                loss=2.0 - 1.5 / (1 + (300 / (step + 1)) ** 12) + 0.05 * torch.randn(()).item(),
                noise=torch.randn(()).item(),
            )
            optimizer.step()
    return folder


def test_the_phase_and_the_part_that_moved_are_found(directory: Path):
    found = run_phases(directory)
    assert found.searched == ("loss", "noise")
    assert found.activity == "norms/updates"
    (phase,) = found.phases
    assert phase.metric == "loss"
    assert phase.transition.midpoint_low <= 299 <= phase.transition.midpoint_high
    assert phase.moved[0]["name"] == "1.weight"
    assert phase.moved[0]["ratio"] > 5 * phase.moved[1]["ratio"]


def test_the_command_line_lists_phases_below_the_spectrum(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "140")
    assert main(["analyse", str(directory), "--nulls", "no"]) == 0
    printed = capsys.readouterr().out
    assert "participation" in printed
    assert "1.weight x" in printed
    assert "from norms/updates" in printed
    assert main(["analyse", str(directory), "--nulls", "no", "--json"]) == 0
    (phase,) = json.loads(capsys.readouterr().out)["phases"]
    assert phase["metric"] == "loss"
    assert phase["moved"][0]["name"] == "1.weight"


def test_a_run_without_metrics_says_what_to_do(tmp_path: Path):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with ps.Recorder(tmp_path / "a", model, optimizer, save={"norms": ps.every(1)}):
        pass
    assert run_phases(tmp_path / "a").text().startswith("phases: no metric has 30 evaluations")
