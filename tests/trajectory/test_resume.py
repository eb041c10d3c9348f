import contextlib
import os
import random
import signal
import time

import numpy as np
import pytest
import torch

import phasescope as ps
from phasescope.errors import RunError
from phasescope.trajectory.checkpoint import load_checkpoint
from trajectory import loops
from trajectory.loops import newest_checkpoint

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes are killed by SIGKILL")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the children: on more threads sums are added up in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def uninterrupted(one_thread, tmp_path_factory):
    """Fingerprint, series and final state of a training that nobody disturbs."""
    directory = tmp_path_factory.mktemp("uninterrupted") / "run"
    model = loops.recorded_training(directory)
    run = ps.open_run(directory)
    series = {name: (run[name].steps, run[name][:]) for name in run.series_names}
    return loops.fingerprint(directory), series, model.state_dict()


def exit_code(forks, target, *arguments):
    process = forks.Process(target=target, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def kill(forks, directory, moment):
    assert exit_code(forks, loops.killed_training, directory, moment) == -signal.SIGKILL


def assert_complete_and_identical(directory, uninterrupted):
    digests, _, weights = uninterrupted
    assert loops.fingerprint(directory) == digests
    step, path = newest_checkpoint(directory / "checkpoints")
    assert step == loops.N_STEPS
    state = load_checkpoint(path)["model"]
    assert state.keys() == weights.keys()
    for name, value in weights.items():
        assert torch.equal(state[name], value), name
    assert ps.open_run(directory).status == "complete"


def assert_prefix(directory, uninterrupted):
    """What a stopped process left can be read, and is what the whole run has there."""
    run = ps.open_run(directory)
    # A loop that was interrupted adds the weights it was left with, and metrics of a step to come.
    interrupted = run.status == "interrupted"
    for name in run.series_names:
        steps, values = uninterrupted[1][name]
        n = len(run[name])
        if interrupted:
            n = int((run[name].steps < run.info["step"]).sum())
            assert n >= len(run[name]) - 1
        np.testing.assert_array_equal(run[name].steps[:n], steps[:n], err_msg=name)
        np.testing.assert_array_equal(run[name][:n], values[:n], err_msg=name)


@pytest.mark.parametrize(
    "moments",
    [
        [("step", 17)],
        [("step", 34)],
        [("before rename", 2)],
        [("step", 13), ("step", 4), ("after rename", 70)],
    ],
    ids=[
        "between checkpoints",
        "after one that a metric waits for",
        "before the first checkpoint",
        "three times in a row",
    ],
)
def test_a_killed_run_is_resumed_bit_for_bit(tmp_path, forks, uninterrupted, moments):
    for moment in moments:
        kill(forks, tmp_path / "run", moment)
    assert exit_code(forks, loops.killed_training, tmp_path / "run", ("step", 1000)) == 0
    assert_complete_and_identical(tmp_path / "run", uninterrupted)


def test_a_run_killed_at_any_moment_can_be_read(tmp_path, forks, uninterrupted):
    kill(forks, tmp_path / "run", ("step", 23))
    assert_prefix(tmp_path / "run", uninterrupted)
    run = ps.open_run(tmp_path / "run")
    assert run.status == "recording"
    assert len(run.gradients) == 20  # the checkpoint at step 20 committed everything before it
    for group in ("gradients", "norms", "metrics"):
        assert len(run.dataset(group).step) == 20


def random_death(forks, directory, generator):
    """Kill one process of a run somewhere; returns whether it died before it was through."""
    kind = generator.choice(["time", "step", "before rename", "after rename"])
    if kind != "time":
        moment = (kind, generator.randint(1, 15 if kind == "step" else 60))
        code = exit_code(forks, loops.killed_training, directory, moment)
        return code == -signal.SIGKILL
    started, proceed = forks.Event(), forks.Event()
    proceed.set()
    arguments = (directory, started, proceed)
    process = forks.Process(target=loops.announced_training, args=arguments)
    process.start()
    while not started.wait(0.05) and process.is_alive():
        pass
    time.sleep(generator.uniform(0, 0.1))
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def die_and_resume(directory, forks, uninterrupted, n_deaths, seed):
    """Runs of random deaths, each followed by a resume to the end, until enough have died."""
    generator = random.Random(seed)
    deaths = runs = 0
    while deaths < n_deaths:
        run = directory / str(runs)
        runs += 1
        for _ in range(generator.randint(1, 4)):
            deaths += random_death(forks, run, generator)
            if (run / "run.json").exists():
                assert_prefix(run, uninterrupted)
        exit_code(forks, loops.killed_training, run, ("step", 1000))
        assert_complete_and_identical(run, uninterrupted)
        assert runs < n_deaths + 5


def test_random_deaths_leave_no_trace(tmp_path, forks, uninterrupted):
    die_and_resume(tmp_path, forks, uninterrupted, n_deaths=20, seed=0)


@pytest.mark.slow
def test_a_hundred_random_deaths_leave_no_trace(tmp_path, forks, uninterrupted):
    die_and_resume(tmp_path, forks, uninterrupted, n_deaths=100, seed=1)


def test_a_run_interrupted_from_the_keyboard_is_resumed_bit_for_bit(tmp_path, uninterrupted):
    def interrupt(step):
        if step == 23:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        loops.recorded_training(tmp_path / "run", on_step=interrupt)
    assert ps.open_run(tmp_path / "run").status == "interrupted"
    assert ps.open_run(tmp_path / "run").weights.steps[-1] == 23  # the state it was left in
    loops.recorded_training(tmp_path / "run", resume=True)
    assert_complete_and_identical(tmp_path / "run", uninterrupted)


def test_a_training_that_stops_early_is_continued_beyond(tmp_path, uninterrupted):
    loops.recorded_training(tmp_path / "run", stop=10)
    assert ps.open_run(tmp_path / "run").status == "complete"
    loops.recorded_training(tmp_path / "run", resume=True)
    assert_complete_and_identical(tmp_path / "run", uninterrupted)


def test_resuming_a_finished_run_changes_nothing(tmp_path, uninterrupted):
    loops.recorded_training(tmp_path / "run")

    def files():
        paths = sorted(path for path in (tmp_path / "run").rglob("*") if path.is_file())
        return {p: p.read_bytes() for p in paths if p.name not in ("run.json", "lock")}

    before = files()
    model = loops.recorded_training(tmp_path / "run", resume=True)
    assert files() == before
    for name, value in uninterrupted[2].items():
        assert torch.equal(model.state_dict()[name], value), name


def test_a_run_whose_group_was_deleted_is_not_resumed_with_a_hole(tmp_path):
    loops.recorded_training(tmp_path / "run", stop=23)
    ps.delete_group(tmp_path / "run", "gradients")
    with pytest.raises(RunError, match=r"resumed at step 2\d, but its groups \['gradients'\] have"):
        loops.recorded_training(tmp_path / "run", resume=True)


def test_a_dead_process_does_not_keep_its_lock(tmp_path, forks):
    kill(forks, tmp_path / "run", ("step", 3))
    assert (tmp_path / "run" / "lock").read_text().startswith("process ")
    loops.recorded_training(tmp_path / "run", resume=True, stop=1)


def test_a_second_live_process_is_refused_and_the_first_goes_on(tmp_path, forks, uninterrupted):
    started, proceed = forks.Event(), forks.Event()
    arguments = (tmp_path / "run", started, proceed)
    process = forks.Process(target=loops.announced_training, args=arguments)
    process.start()
    try:
        assert started.wait(60)
        with pytest.raises(RunError, match=rf"another process \(process {process.pid}\)"):
            loops.recorded_training(tmp_path / "run", resume=True)
    finally:
        proceed.set()
        process.join()
    assert_complete_and_identical(tmp_path / "run", uninterrupted)
