import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import phasescope as ps
import sweep_experiment as experiment
from phasescope.analysis.columns import source
from phasescope.cli import main
from phasescope.errors import PhasescopeError
from phasescope.experiments import gradient_spectrum
from phasescope.experiments.runner import (
    config_hash,
    headline,
    known_runs,
    run_all,
    run_folder,
    with_seeds,
)
from phasescope.report import load_results
from phasescope.sweeps import Outcome, Progress, RunProgress, distributed_gram, grid, grid_points
from phasescope.sweeps import sweep as start_sweep
from phasescope.sweeps.cluster import connect, cores, threads_per_run, usable_workers
from phasescope.sweeps.command import sweep_command
from phasescope.sweeps.gram import ColumnWindow, Passes
from phasescope.sweeps.outcome import seconds_left
from phasescope.sweeps.progress import line, shown
from phasescope.sweeps.room import DiskRoom
from phasescope.sweeps.table import failures_table, points_table
from sweep_experiment import ACT_AT, CHECKPOINT_EVERY, Config

DEADLINE = 200.0  # seconds; only a hung test gets there, however busy the machine is

# Dask closes its connections to a killed worker late.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning:distributed")


@pytest.fixture(scope="module")
def client():
    """One local cluster for all tests, started as a sweep starts its own."""
    with connect(workers=2, retries=1) as client:
        yield client


@pytest.fixture
def sweep(client):
    """A sweep on that cluster, by its address."""

    def start(configs, directory, **options):
        address = client.cluster.scheduler_address
        return start_sweep(experiment, configs, directory, scheduler=address, **options)

    return start


def until(condition):
    """Return once a condition holds."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.05)


def same_everywhere(numbers):
    """The numbers of a run that do not depend on the process that made it."""
    return {key: numbers[key] for key in ("weight", "trace")}


# --- grids -----------------------------------------------------------------------------------


def test_a_grid_is_every_combination_with_every_seed():
    configs = grid(Config(seed=4), {"size": [2, 3], "act": ["finish", "raise"]}, n_seeds=2)
    assert [(c.size, c.act, c.seed) for c in configs] == [
        (size, act, seed) for size in (2, 3) for act in ("finish", "raise") for seed in (4, 5)
    ]
    assert grid(list(experiment.PRESETS["two"]), {"size": [3]}) == [Config(size=3)]


def test_a_wrong_grid_is_refused_with_the_field_that_was_meant(unchecked_types):
    with pytest.raises(ValueError, match=r"'sise' arrived\. Did you mean 'size'"):
        grid(Config(), {"sise": [1]})
    with pytest.raises(ValueError, match="Count seeds with n_seeds"):
        grid(Config(), {"seed": [1, 2]})
    with pytest.raises(ValueError, match="'size' has none"):
        grid(Config(), {"size": []})
    with pytest.raises(ValueError, match="at least 1 seed, but got 0"):
        grid(Config(), {}, n_seeds=0)
    with pytest.raises(ValueError, match=r"size=200, rate=0\.5 is refused: size must be at most"):
        grid(Config(), {"size": [200], "rate": [0.5]})


# --- runs on the cluster ---------------------------------------------------------------------


def test_a_sweep_gives_what_the_runs_give_one_by_one_and_repeats_none(sweep, client, tmp_path):
    configs = grid(Config(), {"size": [2, 3]}, n_seeds=2)
    outcomes = sweep(configs, tmp_path / "swept")
    assert [outcome.config for outcome in outcomes] == configs
    alone = list(run_all(experiment, configs, tmp_path / "alone"))
    for outcome, result in zip(outcomes, alone, strict=True):
        assert outcome.status == "finished"
        assert same_everywhere(outcome.results.numbers) == same_everywhere(result.numbers)
        assert outcome.results.numbers["process"] != os.getpid()
        assert outcome.results.numbers["threads"] == max(1, cores() // 2)
    again = sweep(configs, tmp_path / "swept")
    assert all(outcome.seconds is None for outcome in again)
    assert [o.results.numbers["starts"] for o in again] == [1] * 4
    known = {config_hash(c): r.numbers for c, r in zip(configs, alone, strict=True)}
    elsewhere = sweep(configs, tmp_path / "elsewhere", known=known)
    assert [o.results.numbers for o in elsewhere] == [r.numbers for r in alone]
    assert not (tmp_path / "elsewhere").exists()


def test_a_configuration_that_raises_is_reported_and_stops_no_other(sweep, tmp_path):
    configs = grid(Config(), {"act": ["raise", "finish"]}, n_seeds=2)
    outcomes = sweep(configs, tmp_path)
    assert [o.status for o in outcomes] == ["failed", "failed", "finished", "finished"]
    failed = outcomes[0]
    assert failed.config == configs[0]
    assert failed.error == "ArithmeticError: rate 0.1 is not to its taste"
    assert failed.traceback[-1] == failed.error
    assert "sweep_experiment.py" in failed.traceback[-3]
    assert failed.to_json()["config"]["act"] == "raise"
    assert not failed.folder.exists()  # what it recorded is of no use, and takes disk
    (kept, *_) = sweep(configs[:1], tmp_path, keep_failed=True)
    assert kept.folder.exists()


def test_a_worker_killed_in_mid_run_loses_one_task_which_goes_on(sweep, tmp_path):
    dying, other = Config(act="die"), Config(act="finish", seed=1)
    outcomes = sweep([dying, other], tmp_path)
    assert [o.status for o in outcomes] == ["finished", "finished"]
    numbers = outcomes[0].results.numbers
    assert numbers["starts"] == 2
    assert numbers["first step"] == ACT_AT - ACT_AT % CHECKPOINT_EVERY  # not from the beginning
    (alone,) = run_all(experiment, [Config()], tmp_path / "alone")
    assert same_everywhere(numbers) == same_everywhere(alone.numbers)
    assert outcomes[1].results.numbers["starts"] == 1


def test_a_run_that_kills_every_worker_is_given_up(sweep, tmp_path):
    config = Config(act="die", deaths=99)
    (outcome,) = sweep([config], tmp_path)
    assert outcome.status == "failed"
    assert "the worker died 2 times" in outcome.error
    starts = tmp_path / f"starts-{run_folder(config, tmp_path).name}"
    assert starts.stat().st_size == 2  # the first, and the one new start of this cluster


def test_what_a_killed_run_left_damaged_is_begun_anew(sweep, tmp_path):
    config = Config(size=5)
    folder = run_folder(config, tmp_path)
    with pytest.raises(ArithmeticError):
        experiment.run(replace(config, act="raise"), folder)
    (folder / "trajectory.zarr" / "zarr.json").write_text("{")
    (outcome,) = sweep([config], tmp_path)
    assert outcome.status == "finished", outcome.error
    assert outcome.results.numbers["first step"] == 0


def test_an_interrupted_sweep_stops_its_runs_and_goes_on_where_it_was(sweep, tmp_path):
    configs = [Config(), Config(act="hold"), Config(act="hold", seed=1)]
    holding = [run_folder(config, tmp_path) / "holding" for config in configs[1:]]

    def interrupt(progress):
        if progress.finished and all(path.exists() for path in holding):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        sweep(configs, tmp_path, watch=interrupt)
    until(lambda: not any(path.exists() for path in holding))  # the workers let go of them
    (tmp_path / "release").touch()
    outcomes = sweep(configs, tmp_path)
    assert [o.status for o in outcomes] == ["finished"] * 3
    assert outcomes[0].seconds is None
    assert [o.results.numbers["starts"] for o in outcomes] == [1, 2, 2]
    assert [o.results.numbers["first step"] for o in outcomes] == [0, 10, 10]


def test_the_command_takes_sigterm_for_an_interrupt_while_it_sweeps(tmp_path, monkeypatch):
    def terminated(*arguments, **options):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("phasescope.sweeps.command.sweep", terminated)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        sweep_command(["sweep_experiment", "--directory", str(tmp_path)], (), "default")
    assert signal.getsignal(signal.SIGTERM) is before


def test_progress_counts_runs_and_estimates_the_time_left(sweep, tmp_path):
    seen = []
    configs = grid(Config(), {"act": ["finish", "raise"]}, n_seeds=3)
    sweep(configs[:1], tmp_path)
    sweep(configs, tmp_path, watch=seen.append)
    last = seen[-1]
    assert (last.total, last.kept, last.finished, last.failed) == (6, 1, 2, 3)
    assert last.ended == 6
    assert not last.running
    assert max(len(p.running) for p in seen) <= 2
    assert all(p.seconds_left is not None for p in seen if p.finished)
    assert len({id(p.last) for p in seen if p.last is not None}) == 5  # every end is shown
    assert [p.ended for p in seen] == sorted(p.ended for p in seen)


def test_runs_wait_until_there_is_room_on_the_disk(sweep, tmp_path, monkeypatch):
    free = [10, 10, 1000]

    def usage(path):
        return SimpleNamespace(total=1000, free=free.pop(0) if len(free) > 1 else free[0])

    monkeypatch.setattr("phasescope.sweeps.room.shutil", SimpleNamespace(disk_usage=usage))
    seen = []
    (outcome,) = sweep([Config(disk=500)], tmp_path, watch=seen.append)
    assert outcome.status == "finished"
    assert seen[0].waiting.startswith("waiting for disk: the next run needs 5e-07 GB")
    assert not seen[0].running
    with pytest.raises(PhasescopeError, match="a run needs 2e-06 GB of disk, but the whole disk"):
        sweep([Config(disk=2000)], tmp_path)


def test_running_runs_keep_the_disk_that_they_will_need(tmp_path, monkeypatch):
    usage = SimpleNamespace(total=1000, free=600)
    monkeypatch.setattr(
        "phasescope.sweeps.room.shutil", SimpleNamespace(disk_usage=lambda path: usage)
    )
    running = tmp_path / "running"
    running.mkdir()
    room = DiskRoom(tmp_path, experiment, None)
    mine, other = tmp_path / "mine", Config(disk=400)
    assert room.missing(Config(disk=200), mine, {running: other}) is None
    why = room.missing(Config(disk=201), mine, {running: other})
    assert why is not None
    assert "of which running runs will take 4e-07 GB" in why
    (running / "written").write_bytes(bytes(100))  # no longer to come, and no longer free
    usage.free = 500
    assert room.missing(Config(disk=200), mine, {running: other}) is None
    mine.mkdir()
    (mine / "left by an interrupted run").write_bytes(bytes(50))
    assert room.missing(Config(disk=250), mine, {running: other}) is None
    assert room.missing(Config(disk=0), mine, {running: other}) is None
    assert DiskRoom(tmp_path, experiment, 300).needed(Config(disk=1)) == 300


def test_only_workers_with_the_memory_get_runs(sweep, tmp_path):
    found = {
        "a:1": {"host": "a", "memory_limit": 10},
        "a:2": {"host": "a", "memory_limit": 20},
        "b:1": {"host": "b", "memory_limit": 0},  # no limit
    }
    assert usable_workers(found, 15) == {"a:2": "a", "b:1": "b"}
    with pytest.raises(PhasescopeError, match="but the largest worker has"):
        sweep([Config()], tmp_path, memory_per_run=10**15)
    with (
        pytest.raises(PhasescopeError, match="but this machine has"),
        connect(workers=1, memory_per_run=10**15),
    ):
        pass


def test_a_local_cluster_listens_on_this_machine_only_and_shows_no_dashboard(client):
    import psutil

    here = psutil.Process()
    listening = [
        connection.laddr.ip
        for process in (here, *here.children(recursive=True))
        for connection in process.net_connections(kind="inet")
        if connection.status == "LISTEN"
    ]
    assert len(listening) >= 3  # the scheduler and two workers
    assert set(listening) == {"127.0.0.1"}
    page = HTTPConnection("127.0.0.1", client.cluster.scheduler.http_server.port, timeout=DEADLINE)
    with contextlib.closing(page):
        page.request("GET", "/status")
        with page.getresponse() as answer:
            assert answer.status == 404
    info = client.scheduler_info(n_workers=-1)["workers"].values()
    assert [worker["nthreads"] for worker in info] == [1, 1]


def test_wrong_arguments_of_a_cluster_are_refused(tmp_path, unchecked_types):
    with pytest.raises(ValueError, match=r"workers=2 and scheduler='tcp://127\.0\.0\.1:1'"):
        start_sweep(experiment, [Config()], tmp_path, workers=2, scheduler="tcp://127.0.0.1:1")
    with pytest.raises(ValueError, match="workers=0 arrived"):
        start_sweep(experiment, [Config()], tmp_path, workers=0)
    with pytest.raises(TypeError, match="requires the experiment's module"):
        start_sweep(SimpleNamespace(), [Config()], tmp_path)


def test_threads_of_all_workers_of_a_host_fit_on_its_cores():
    for sharing in range(1, 20):
        for n_cores in range(1, 20):
            threads = threads_per_run(sharing, n_cores)
            assert threads == 1 or threads * sharing <= n_cores
            assert (threads + 1) * sharing > n_cores
    assert threads_per_run(1, 8, most=3) == 3


# --- what is shown ---------------------------------------------------------------------------


def test_the_time_left_is_what_is_left_shared_out_over_the_workers():
    running = (RunProgress(0.75, "x", 30.0),)
    # 10 runs of 40 s and a quarter of one, on 4 workers
    assert seconds_left([30.0, 50.0], running, 10, n_workers=4) == pytest.approx(102.5)
    assert seconds_left([], running, 1, n_workers=4) == pytest.approx((10 + 40) / 2)
    assert seconds_left([], (RunProgress(0.0, "x", 30.0),), 1, n_workers=4) is None


def test_lines_are_written_where_there_is_no_terminal(capsys):
    with shown("grokking") as tell:
        for finished in (0, 0, 1, 2):
            tell(Progress(2, 0, finished, 0, (), 3.0))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "sweep grokking: 0/2 done, about 3 s left",
        "sweep grokking: 1/2 done, about 3 s left",
        "sweep grokking: 2/2 done",
    ]
    with shown("grokking", quiet=True) as tell:
        tell(Progress(2, 0, 1, 0, (), 3.0))
    assert capsys.readouterr().err == ""
    assert "waiting for disk" in line(Progress(1, 0, 0, 0, (), None, "waiting for disk: x"))


def outcomes_of(values, **fields):
    """Finished runs of one grid point, a seed per value, and a failed one."""
    runs = [Config(seed=seed, **fields) for seed in range(len(values) + 1)]
    done = [
        Outcome(c, Path("x"), "finished", experiment.Results(c, {"weight": v, "trace": 1.0}))
        for c, v in zip(runs, values, strict=False)
    ]
    return [*done, Outcome(runs[-1], Path("x"), "failed", error="no")]


def test_a_grid_point_has_the_mean_and_interval_of_its_seeds():
    values = [1.0, 2.0, 4.0]
    points = grid_points(experiment, outcomes_of(values, size=2) + outcomes_of([7.0], size=3))
    assert [point.values for point in points] == [{"size": 2}, {"size": 3}]
    assert [(point.n_seeds, point.n_failed) for point in points] == [(3, 1), (1, 1)]
    weight = points[0].statistics["weight"]
    ends = ps.interval(values)
    assert weight.mean == pytest.approx(7 / 3)
    assert weight.interval == (ends.low, ends.high)
    assert points[1].statistics["weight"].interval is None
    bad = grid_points(experiment, outcomes_of([1.0, float("inf")]))[0].statistics["weight"]
    assert (bad.mean, str(bad)) == (None, "not finite")


def test_numbers_are_never_cut_where_the_terminal_is_narrow():
    points = grid_points(experiment, outcomes_of([-0.5582123, 1.136], size=2, rate=0.25))
    console = Console(width=40, record=True, file=io.StringIO())
    console.print(points_table(points, "narrow"))
    assert "…" not in console.export_text()


def test_of_many_failures_the_first_are_shown_with_their_place():
    failed = [
        Outcome(Config(seed=seed), Path("x"), "failed", error="E: no", traceback=("at it", "E: no"))
        for seed in range(23)
    ]
    table = failures_table(failed)
    assert table.row_count == 20
    assert table.caption == "3 more are in sweep.json"
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table)
    text = console.export_text()
    assert text.count("E: no") == text.count("at it") == 20
    assert "seed 19" in text


def test_without_a_summary_the_numbers_at_the_top_are_the_main_ones():
    numbers = {"accuracy": 0.5, "n": np.int64(3), "ok": True, "name": "x", "ranks": {"a": 1}}
    assert headline(SimpleNamespace(), SimpleNamespace(numbers=numbers)) == {
        "accuracy": 0.5,
        "n": 3.0,
    }


# --- the command -----------------------------------------------------------------------------


def test_the_command_prints_one_table_and_writes_what_run_writes(client, tmp_path, capsys):
    arguments = ["sweep", "sweep_experiment", "--scheduler", client.cluster.scheduler_address]
    arguments += ["--directory", str(tmp_path / "runs"), "--results", str(tmp_path / "x.json")]
    arguments += ["--size", "2", "3", "--act", "finish", "raise", "--seeds", "2"]
    assert main(arguments) == 1  # some failed
    out, err = capsys.readouterr()
    assert "sweep_experiment: 4 of 8 runs" in out
    assert "mean [95% interval over seeds]" in out
    assert "rate 0.1 is not to its taste" in out
    assert "claims: 1 not tested; report:" in out
    assert "4 of 8 runs failed" in err
    assert "8/8 done (4 failed)" in err
    stored = load_results(tmp_path / "x.json")
    assert stored.claims[0].sentence == "4 runs."
    assert len(known_runs(experiment, tmp_path / "x.json")) == 4
    summary = json.loads((tmp_path / "runs" / "sweep.json").read_text())
    assert [p["values"] for p in summary["points"]] == [
        {"size": size, "act": act} for size in (2, 3) for act in ("finish", "raise")
    ]
    assert [p["statistics"]["weight"]["n_seeds"] for p in summary["points"][::2]] == [2, 2]
    assert [f["config"]["act"] for f in summary["failures"]] == ["raise"] * 4
    assert "ArithmeticError: rate 0.1 is not to its taste" in "".join(
        summary["failures"][0]["traceback"]
    )
    assert main([*arguments[:6], "--preset", "two", "--rate", "0.1", "0.2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [p["values"] for p in rows["points"]] == [
        {"size": size, "rate": rate} for size in (2, 4) for rate in (0.1, 0.2)
    ]
    assert rows["claims"][0]["id"] == "T1"
    assert rows["runs"][0]["seconds"] is None  # size 2 was finished by the first sweep
    # What is given counts, even if the preset begins with it; a sequence is one value.
    given = [*arguments[:6], "--preset", "two", "--size", "2", "--shape", "3", "4", "--json"]
    assert main(given) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["config"]["size"], r["config"]["shape"]) for r in rows["runs"]] == [(2, [3, 4])]


def test_wrong_commands_are_answered_in_one_line(tmp_path, capsys):
    assert main(["sweep", "grokkin"]) == 1
    assert ") or of a module like one" in capsys.readouterr().err
    assert main(["sweep"]) == 1
    assert "sweep needs the name of an experiment" in capsys.readouterr().err
    assert main(["sweep", "sweep_experiment", "--preset", "huge"]) == 1
    assert "has the presets default, two, own seeds, but got 'huge'" in capsys.readouterr().err
    assert main(["sweep", "sweep_experiment", "--disk-per-run", "much"]) == 1
    assert "a size such as 500MB or 2GB is required, but 'much'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["sweep", "gradient_spectrum", "--help"])
    text = capsys.readouterr().out
    assert "--learning-rate" in text
    assert "--scheduler" in text


def test_gradient_spectrum_sweeps(client, tmp_path):
    arguments = ["sweep", "gradient_spectrum", "--scheduler", client.cluster.scheduler_address]
    arguments += ["--preset", "smoke", "--n-epochs", "1", "--hidden", "8", "--json"]
    arguments += ["--batch-size", "16", "32", "--directory", str(tmp_path)]
    assert main(arguments) == 0
    base = replace(gradient_spectrum.SMOKE, n_epochs=1, hidden=8)
    configs = grid(base, {"batch_size": [16, 32]})
    outcomes = start_sweep(gradient_spectrum, configs, tmp_path)  # all of it is there
    assert [o.results.numbers["n_steps"] for o in outcomes] == [90, 45]
    for outcome in outcomes:
        assert not (outcome.folder / "trajectory.zarr" / "gradients").exists()
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_control_c_in_a_terminal_stops_the_command_and_its_workers(tmp_path):
    """The signal goes to the whole group of processes, as a terminal sends it."""
    tests = str(Path(__file__).parent)
    command = [sys.executable, "-m", "phasescope.cli", "sweep", "sweep_experiment"]
    command += ["--directory", str(tmp_path), "--workers", "2", "--act", "finish", "hold"]
    environment = os.environ | {"PYTHONPATH": tests}
    begun = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    configs = grid(Config(), {"act": ["finish", "hold"]})
    finished, held = (run_folder(config, tmp_path) for config in configs)
    until(lambda: (finished / "numbers.json").exists() and (held / "holding").exists())
    until(lambda: begun.stderr is not None and "1/2 done" in begun.stderr.readline())
    os.killpg(begun.pid, signal.SIGINT)
    _, err = begun.communicate(timeout=DEADLINE)
    assert begun.returncode == 130
    assert "stopped; 1 of 2 runs are finished and kept" in err
    assert "the same command goes on where it stopped" in err
    assert "Traceback" not in err
    until(lambda: not _alive(begun.pid))
    before = (finished / "numbers.json").stat().st_mtime_ns
    (tmp_path / "release").touch()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert (finished / "numbers.json").stat().st_mtime_ns == before
    assert "2 of 2 runs" in again.stdout


@pytest.mark.slow
def test_a_scheduler_that_is_lost_ends_the_sweep_with_what_to_do(tmp_path):
    config = Config(act="hold")
    with connect(workers=1) as other:

        def lose(progress):
            if (run_folder(config, tmp_path) / "holding").exists():
                other.cluster.close()

        address = other.cluster.scheduler_address
        with pytest.raises(PhasescopeError, match=r"scheduler was lost .* goes on with"):
            start_sweep(experiment, [config], tmp_path, scheduler=address, watch=lose)


@pytest.mark.slow
def test_a_run_that_needs_more_memory_than_it_may_is_killed_and_reported(tmp_path):
    configs = [Config(act="hoard"), Config()]
    hoarded, other = start_sweep(
        experiment, configs, tmp_path, workers=1, memory_per_run=700_000_000, retries=0
    )
    assert hoarded.status == "failed"
    assert "the worker died 1 time while" in hoarded.error
    assert other.status == "finished", other.error


def _alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


# --- the Gram matrix on a cluster ------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A recorded run of 30 steps and 5,010 parameters."""
    torch.manual_seed(3)
    directory = tmp_path_factory.mktemp("gram") / "run"
    model = nn.Sequential(nn.Linear(48, 100), nn.Tanh(), nn.Linear(100, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    save = {"gradients": ps.every(1), "norms/gradients": ps.every(1)}
    with ps.Recorder(directory, model, optimizer, save=save):
        for _ in range(30):
            optimizer.zero_grad()
            model(torch.randn(16, 48)).square().mean().backward()
            optimizer.step()
    return directory


def test_the_gram_of_a_cluster_is_the_local_one(client, recorded):
    series = ps.open_run(recorded).gradients
    names = series.parameters.names
    components = {name: series.parameters.component(name) for name in names}
    components["every third"] = ps.Component("every third", [(i, i + 1) for i in range(0, 999, 3)])
    memory = 600_000  # blocks of about 400 columns
    shares = []
    found = distributed_gram(
        recorded, client=client, components=components, memory=memory, progress=shares.append
    )
    local = ps.gram(series, components=components, memory=memory)
    assert shares[-1] == 1.0
    assert len(shares) > 4
    assert found.n_columns == local.n_columns == series.shape[1]
    assert found.eps == local.eps
    assert torch.equal(found.steps, local.steps)
    assert set(found.components) == set(local.components)
    for mine, theirs in [(found, local)] + [
        (found.components[name], local.components[name]) for name in components
    ]:
        # Only the order of float64 additions differs, of at most a hundred blocks.
        scale = theirs.K.diagonal().sqrt()
        assert ((mine.K - theirs.K).abs() <= 100 * 2.0**-53 * torch.outer(scale, scale)).all()
        torch.testing.assert_close(mine.row_sums, theirs.row_sums, rtol=1e-12, atol=1e-12)
        assert mine.n_columns == theirs.n_columns


def test_a_zarr_array_is_opened_by_the_workers(client, tmp_path):
    import zarr

    values = np.random.default_rng(0).normal(size=(7, 3000))
    array = zarr.create_array(tmp_path / "a.zarr", shape=(7, 3000), chunks=(7, 64), dtype="f8")
    array[:] = values
    found = distributed_gram(
        tmp_path / "a.zarr", scheduler=client.cluster.scheduler_address, memory=200_000
    )
    np.testing.assert_allclose(found.K.numpy(), values @ values.T, rtol=1e-13, atol=1e-11)


def test_what_workers_cannot_open_is_refused(client, recorded, tmp_path, unchecked_types):
    with pytest.raises(TypeError, match=r"An array in memory is for phasescope\.gram"):
        distributed_gram(torch.ones(3, 4), client=client)
    with pytest.raises(PhasescopeError, match="a run directory is required"):
        distributed_gram(tmp_path / "nothing", client=client)
    with pytest.raises(ValueError, match=r"a Zarr group with \["):
        distributed_gram(recorded / "trajectory.zarr", client=client)
    with pytest.raises(KeyError, match="has not recorded 'updates'"):
        distributed_gram(recorded, "updates", client=client)
    outside = {"x": ps.Component("x", [(0, 10**6)])}
    with pytest.raises(ValueError, match=r"'x' is Component\('x'"):
        distributed_gram(recorded, client=client, components=outside)


def test_a_value_that_is_not_finite_is_named_with_its_window(client, recorded, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(recorded, copy)
    series = ps.open_run(copy).gradients
    place = copy / "trajectory.zarr" / "gradients" / "values" / "c" / "0" / "0"
    chunk = np.memmap(place, dtype="<f4", mode="r+").reshape(-1, series.chunk_columns)
    chunk[4, 4000] = np.inf
    chunk.flush()
    with pytest.raises(ValueError, match="every value must be finite, but step 4") as error:
        distributed_gram(copy, client=client, memory=400_000)
    assert f"of parameter {series.parameters.locate(4000)!r}" in str(error.value)
    first = int(str(error.value).split("counted from ")[1].split(":")[0])
    assert f"in column {4000 - first} " in str(error.value)


@pytest.mark.parametrize("chunk", [7, 64, 1000, 20_000])
@pytest.mark.parametrize("parts", [False, True])
def test_windows_are_read_in_the_blocks_of_the_one_pass(chunk, parts):
    for P in (63, 5000, 16_385, 40_000):
        components = {"a": ps.Component("a", [(0, (P + 1) // 2)])} if parts else {}
        for memory in (80_000, 150_000, 1_100_000):
            asked: list[tuple[int, int]] = []
            planted = _Noting((3, P), chunk, asked)
            ps.gram(planted, components=components, memory=memory)
            local = sorted(asked)
            work = Passes(source(planted), components, memory)
            for at_most in (1, 7):
                asked.clear()
                windows = work.windows(at_most)
                assert len(windows) <= max(2, at_most)
                for start, stop in windows:
                    ps.gram(
                        ColumnWindow(planted, start, stop),
                        components=work.inside(start, stop),
                        memory=work.memory_of(start, stop),
                    )
                assert sorted(asked) == local


class _Noting:
    """A matrix of zeros that notes the columns it is read in."""

    dtype = np.dtype(np.float32)

    def __init__(self, shape, chunk, asked):
        self.shape = shape
        self.chunk_columns = chunk
        self._asked = asked

    def __getitem__(self, key):
        raise AssertionError("columns are read by read_columns")

    def read_columns(self, start, stop, out):
        self._asked.append((start, stop))
        out[:] = 0


def test_seeds_of_a_preset_are_counted_up_together():
    def sizes_and_seeds(configs: list[experiment.Config]) -> list[tuple[int, int]]:
        return [(config.size, config.seed) for config in configs]

    preset = experiment.PRESETS["own seeds"]
    assert with_seeds(preset, 0) == list(preset)
    assert sizes_and_seeds(with_seeds(preset, 5)) == [(3, 5), (4, 5), (4, 6)]
    twice = [(3, 0), (4, 0), (4, 1), (3, 1), (4, 2)]  # (4, 1) once
    assert sizes_and_seeds(with_seeds(preset, 0, 2)) == twice
