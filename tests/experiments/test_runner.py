"""A results file is added to: what one command stored the next one keeps."""

import json
from pathlib import Path
from typing import Any

import pytest

import sweep_experiment as experiment
from phasescope import cli
from phasescope.cli import main
from phasescope.errors import PhasescopeError
from phasescope.experiments.runner import finish, known_runs, with_stored
from phasescope.report import load_results
from sweep_experiment import Config, Results


def store(path: Path, *configs: Config, weight: float = 1.0) -> None:
    results = [Results(config, {"weight": weight, "trace": 0.0}) for config in configs]
    together = with_stored(experiment, results, path.parent, path)
    finish(
        experiment,
        "toy",
        "default",
        together,
        results_file=path,
        report_file=path.parent / "r.html",
    )


def kept(path: Path) -> list[tuple[int, int, float]]:
    runs = load_results(path).settings["runs"]
    return [(r["config"]["size"], r["config"]["seed"], r["numbers"]["weight"]) for r in runs]


def test_other_runs_of_the_file_stay_and_count(tmp_path: Path):
    path = tmp_path / "toy.json"
    assert known_runs(experiment, None) == known_runs(experiment, path) == {}
    store(path, Config(), Config(size=4))
    store(path, Config(size=4, seed=1), Config(), weight=2.0)  # one of them anew
    assert kept(path) == [(4, 0, 1.0), (4, 1, 2.0), (3, 0, 2.0)]
    assert load_results(path).claims[0].sentence == "3 runs."
    assert load_results(path).seeds == (0, 1)


def test_runs_that_cannot_be_kept_are_not_written_over(tmp_path: Path):
    path = tmp_path / "toy.json"
    store(path, Config())
    content = json.loads(path.read_text())
    content["settings"]["runs"][0]["config"]["colour"] = 3
    del content["settings"]["runs"][0]["config"]["rate"]
    path.write_text(json.dumps(content))
    for call in (lambda: known_runs(experiment, path), lambda: store(path, Config(size=4))):
        with pytest.raises(PhasescopeError, match="holds runs of 'toy' that would be lost") as told:
            call()
        assert "unknown: colour; missing: rate" in str(told.value)
        assert "Name another file" in str(told.value)
    assert json.loads(path.read_text()) == content


def test_the_command_keeps_them_and_refuses_another_experiments_file(tmp_path: Path, capsys):
    arguments = ["run", "gradient_spectrum", "--preset", "smoke", "--n-epochs", "1"]
    arguments += ["--directory", str(tmp_path / "runs"), "--results", str(tmp_path / "x.json")]
    assert main(arguments) == 0
    assert main([*arguments, "--seed", "1"]) == 0
    assert load_results(tmp_path / "x.json").seeds == (0, 1)
    assert len(load_results(tmp_path / "x.json").settings["runs"]) == 2
    before = (tmp_path / "x.json").read_bytes()
    folders = sorted((tmp_path / "runs").iterdir())
    capsys.readouterr()
    other = ["run", "grokking", "--preset", "smoke", *arguments[6:]]
    assert main(other) == 1
    assert "holds runs of 'gradient_spectrum' that would be lost" in capsys.readouterr().err
    assert (tmp_path / "x.json").read_bytes() == before
    assert sorted((tmp_path / "runs").iterdir()) == folders  # it was told before anything ran


def test_a_value_for_the_field_that_a_preset_varies_leaves_one_run_of_each_seed(monkeypatch):
    made: list[Any] = []
    monkeypatch.setattr(cli, "_finish_runs", lambda *given, **_: made.extend(given[3]))
    assert main(["run", "spectrum_controls", "--label-noise", "0.3", "--seeds", "2"]) == 0
    assert [(config.label_noise, config.seed) for config in made] == [(0.3, 0), (0.3, 1)]
