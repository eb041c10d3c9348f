import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

import phasescope as ps
from phasescope import errors as ps_errors
from phasescope.cli import main


@pytest.fixture
def run_directory(tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    save = {"gradients": ps.every(1), "norms/gradients": ps.every(1)}
    with ps.Recorder(tmp_path / "run", model, optimizer, save=save) as recorder:
        for _ in range(8):
            optimizer.zero_grad()
            loss = model(torch.randn(4, 5)).square().mean()
            loss.backward()
            optimizer.step()
            recorder.log(train_loss=loss)
    return tmp_path / "run"


def test_help_describes_every_command(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for command in ("demo", "list", "run", "sweep", "analyse", "report", "claims"):
        assert f"• {command} " in text
    with pytest.raises(SystemExit):
        main(["run", "gradient_spectrum", "--help"])
    text = capsys.readouterr().out
    assert "--learning-rate FLOAT" in text
    assert "verdicts need 10" in text


def test_a_preset_need_not_be_one_of_every_experiment(capsys):
    with pytest.raises(SystemExit):
        main(["run", "monosemanticity", "--preset", "sweep", "--help"])
    assert "phasescope run monosemanticity" in capsys.readouterr().out


def test_a_field_is_set_in_every_run_of_a_preset_also_to_the_value_of_the_first(monkeypatch):
    from phasescope import cli
    from phasescope.experiments.grokking import PRESETS

    made: list[Any] = []
    monkeypatch.setattr(cli, "_finish_runs", lambda *a, **k: made.append(a[3]))
    assert PRESETS["grid"][0].operation == "add"
    for operation in ("add", "subtract"):
        assert main(["run", "grokking", "--preset", "grid", "--operation", operation]) == 0
        assert {config.operation for config in made[-1]} == {operation}
    assert main(["run", "grokking", "--preset", "grid"]) == 0
    assert len({config.operation for config in made[-1]}) == 3


def test_json_of_what_is_not_finite_is_strict(capsys):
    from phasescope.cli.analyse import print_json

    print_json({"loss": float("nan"), "ratio": [float("inf"), 1.0]})
    assert json.loads(capsys.readouterr().out) == {"loss": None, "ratio": [None, 1.0]}


def test_errors_are_one_message_without_a_traceback(tmp_path, capsys):
    assert main(["analyse", str(tmp_path / "nothing")]) == 1
    assert "a run directory is required" in capsys.readouterr().err
    assert main(["run", "grokkin"]) == 1
    assert "needs the name of an experiment (gradient_nulls" in capsys.readouterr().err
    assert main(["run"]) == 1
    assert "needs the name of an experiment" in capsys.readouterr().err
    assert main(["run", "gradient_spectrum", "--preset", "huge"]) == 1
    assert "has the presets smoke, default, paper" in capsys.readouterr().err
    assert main(["claims", "--results", str(tmp_path)]) == 1
    assert "has none" in capsys.readouterr().err
    process = subprocess.run(
        [sys.executable, "-m", "phasescope.cli", "analyse", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert process.stderr.startswith("phasescope: a run directory holds run.json")


def test_analyse_prints_counts_beside_their_null(run_directory, capsys):
    assert main(["analyse", str(run_directory), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    spectrum = ps.spectrum(ps.gram(ps.open_run(run_directory).gradients))
    assert rows["raw"]["counts"][1] == ps.count_above(spectrum.S, 0.1)
    assert rows["raw"]["null_counts"][1] == ps.count_above(ps.norm_null(spectrum).S, 0.1)
    assert set(rows) == {
        "raw", "centred", "raw, steps normalised", "centred, steps normalised", "nulls",
        "phases",
    }  # fmt: skip
    assert main(["analyse", str(run_directory)]) == 0
    assert "(null)" in capsys.readouterr().out
    assert main(["analyse", str(run_directory), "--series", "updates"]) == 1
    assert "has not recorded 'updates'" in capsys.readouterr().err


def test_analyse_says_what_other_nulls_leave_and_when_it_leaves_them_out(
    tmp_path, monkeypatch, capsys
):
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(300, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    save = {"gradients": ps.every(1), "weights": ps.every(1)}
    planted = torch.randn(602, generator=generator)
    with ps.Recorder(tmp_path / "run", model, optimizer, save=save):
        for t in range(30):
            flat = torch.randn(602, generator=generator) + 3 * planted * (-1) ** (t // 5)
            model.weight.grad = flat[:600].reshape(2, 300)
            model.bias.grad = flat[600:]
            optimizer.step()
    run = str(tmp_path / "run")
    assert main(["analyse", run]) == 0
    out = capsys.readouterr().out
    assert "components above random signs (centred, steps normalised, level 0.05): 1;" in out
    assert "with every parameter scaled alike: 1" in out
    assert "of the whitened trajectory: 1 detected" in out
    assert main(["analyse", run, "--json"]) == 0
    nulls = json.loads(capsys.readouterr().out)["nulls"]
    assert (nulls["flip_rank"], nulls["located"], nulls["flip_rank_converged"]) == (1, 1, True)
    assert main(["analyse", run, "--nulls", "no"]) == 0
    assert "other nulls: not asked for (--nulls yes)" in capsys.readouterr().out
    assert main(["analyse", run, "--series", "weights", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["nulls"]["shares"]) == len(found["nulls"]["p"]) == 3
    assert {"raw", "centred"} <= set(found)
    assert "centred, steps normalised" not in found
    # The increments lie along one direction, and so do walks of them: the norms alone say 31.
    assert 1 <= found["centred"]["null_counts"][1] <= 6
    assert main(["analyse", run, "--series", "weights"]) == 0
    assert "random walks of the same increments" in capsys.readouterr().out
    output = tmp_path / "report.html"
    assert main(["report", run, "-o", str(output)]) == 0
    text = output.read_text(encoding="utf-8")
    for title in ("When components act", "Components detected and located", "Variance that"):
        assert title in text
    assert "random signs: rank 1" in text
    monkeypatch.setattr("phasescope.report.nulls.CHEAP", 0.0)
    assert main(["analyse", run]) == 0
    assert "minutes; --nulls yes computes them" in capsys.readouterr().out
    assert main(["report", run, "-o", str(output)]) == 0
    text = output.read_text(encoding="utf-8")
    assert "phasescope analyse run --nulls yes computes them" in text
    assert "random signs: rank" not in text


def test_report_writes_one_file_about_any_runs(run_directory, tmp_path, capsys):
    output = tmp_path / "report.html"
    assert main(["report", str(run_directory), "-o", str(output)]) == 0
    assert str(output) in capsys.readouterr().out
    text = output.read_text(encoding="utf-8")
    for name in ("gradients_scree", "gradients_time_vectors", "norms", "metrics"):
        assert name in text


def test_run_finishes_resumes_and_reports(tmp_path, capsys):
    arguments = ["run", "gradient_spectrum", "--preset", "smoke", "--n-epochs", "1"]
    arguments += ["--directory", str(tmp_path / "gs"), "--results", str(tmp_path / "r" / "x.json")]
    assert main([*arguments, "--json"]) == 0
    claims = json.loads(capsys.readouterr().out)
    assert [claim["id"] for claim in claims] == ["A1", "A2", "A3", "A4", "A5", "A7"]
    assert {claim["verdict"] for claim in claims} == {"not tested"}  # one seed, not MNIST
    folder = next((tmp_path / "gs").glob("seed0-*"))
    before = (folder / "numbers.json").stat().st_mtime_ns
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == claims
    assert (folder / "numbers.json").stat().st_mtime_ns == before
    assert not (folder / "trajectory.zarr" / "gradients").exists()
    assert (tmp_path / "gs" / "report.html").exists()
    assert main(["claims", "--results", str(tmp_path / "r"), "A1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == claims[:1]
    assert main(["claims", "--results", str(tmp_path / "r"), "Z9"]) == 1
    assert "no result has the claims Z9; there are: A1, A2" in capsys.readouterr().err


def test_a_run_shows_what_it_measured_and_names_what_it_did_not(tmp_path, capsys):
    folder = str(tmp_path / "run")
    assert main(["run", "s_curves", "--preset", "smoke", "--directory", folder]) == 0
    assert "not measured by these runs: E1, E2, " in capsys.readouterr().out


def test_list_names_the_experiments_with_their_claims(capsys):
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert "gradient_spectrum" in [row["experiment"] for row in rows]
    assert "default" in rows[0]["presets"]


def test_a_run_with_a_bad_gradient_still_gets_its_report(tmp_path, capsys):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    recorder = ps.Recorder(tmp_path / "bad", model, optimizer, save={"gradients": ps.every(1)})
    recorder.attach()
    for value in (1.0, float("nan"), 2.0):
        for p in model.parameters():
            p.grad = torch.full_like(p, value)
        optimizer.step()
        recorder.log(loss=value)
    with pytest.warns(ps_errors.RecordingWarning):
        recorder.close()
    assert "not finite: gradients of 1 steps, first step 1 (nan in weight)" in repr(
        ps.open_run(tmp_path / "bad")
    )
    output = tmp_path / "bad.html"
    assert main(["report", str(tmp_path / "bad"), "-o", str(output)]) == 0
    text = output.read_text(encoding="utf-8")
    assert "Not analysed in bad, gradients: every value must be finite, but step 1" in text
    assert "What the loop logged" in text
    assert ">Claims<" not in text.split("<script")[0]
    assert main(["analyse", str(tmp_path / "bad")]) == 1
    assert "every value must be finite, but step 1" in capsys.readouterr().err
