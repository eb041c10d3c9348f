"""A full disk and Ctrl-C, by doing them; deaths of the process are in test_resume.py."""

import os
import shutil
import subprocess
import warnings

import pytest
import torch

import phasescope as ps
from phasescope.errors import RecordingError, RecordingWarning
from trajectory import loops
from trajectory.test_resume import (
    assert_complete_and_identical,
    assert_prefix,
    one_thread,
    uninterrupted,
)

__all__ = ["one_thread", "uninterrupted"]  # fixtures

MEGABYTES = 3


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with a few megabytes, and a function that makes it larger."""
    path = tmp_path / "disk"
    path.mkdir()

    def mount(*options):
        mount = shutil.which("mount")
        command = [mount or "mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(path)]
        return mount and subprocess.run(command, capture_output=True, check=False).returncode == 0

    if not mount(f"size={MEGABYTES}m"):
        pytest.skip("a small file system cannot be mounted here: needs root on Linux")
    yield path, lambda: mount("remount", "size=200m")
    # Lazily: a file that a failed test left open must not keep it mounted.
    subprocess.run(["umount", "-l", str(path)], check=False)


def fill(directory):
    """Write until the disk is full."""
    with (
        open(directory / "ballast", "wb", buffering=0) as file,
        pytest.raises(OSError, match="No space left"),
    ):
        while True:
            file.write(bytes(4096))


def fill_at(directory, step):
    def on_step(now):
        if now == step:
            fill(directory)

    return on_step


@pytest.mark.parametrize("step", [1, 9, 15, 33])
def test_a_disk_that_fills_stops_the_recording_and_freeing_it_resumes(
    small_disk, uninterrupted, step
):
    disk, enlarge = small_disk
    with pytest.raises(RecordingError, match=r"disk is full.*[Ff]ree some space.*resume=True"):
        loops.recorded_training(disk / "run", on_step=fill_at(disk, step))
    assert_prefix(disk / "run", uninterrupted)
    kept = len(ps.open_run(disk / "run").gradients)
    assert kept >= step // 10 * 10 - 1
    assert enlarge()
    loops.recorded_training(disk / "run", resume=True)
    assert_complete_and_identical(disk / "run", uninterrupted)


def checkpointed_training(directory, *, fill_before=None, room=0, **options):
    """Ten updates of a model whose checkpoint is larger than everything else, every third saved."""
    torch.manual_seed(0)
    model = torch.nn.Linear(200, 200)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    recorder = ps.Recorder(
        directory, model, optimizer, save={"norms": ps.every(1)}, checkpoint=ps.every(3), **options
    )
    with recorder:
        while recorder.step < 10:
            optimizer.zero_grad()
            model(torch.ones(1, 200)).square().mean().backward()
            optimizer.step()
            if recorder.step == fill_before:
                fill(directory.parent)
                with open(directory.parent / "ballast", "r+b") as file:
                    file.truncate((directory.parent / "ballast").stat().st_size - room)
            recorder.end_step()
    return model.weight.detach()


@pytest.mark.parametrize("on_failure", ["raise", "continue"])
def test_a_disk_that_fills_within_a_checkpoint_says_what_is_safe(small_disk, on_failure):
    disk, _ = small_disk
    options = {"fill_before": 6, "room": 60_000, "on_failure": on_failure}
    message = r"checkpoint of step 6 could not .* the disk is full.*intact.*resume=True"
    caught = (
        pytest.raises(RecordingError, match=message)
        if on_failure == "raise"
        else pytest.warns(RecordingWarning, match=message)
    )
    with caught:
        checkpointed_training(disk / "run", **options)
    run = ps.open_run(disk / "run")
    assert run.status == "interrupted"
    assert "the disk is full" in run.info["failure"]
    assert len(run["norms/gradients"]) >= 6
    folders = sorted(path.name for path in (disk / "run" / "checkpoints").iterdir())
    assert folders == ["step-000000000", "step-000000003"]
    (disk / "ballast").unlink()
    with pytest.warns(RecordingWarning, match="without a data position"):
        resumed = checkpointed_training(disk / "run", resume=True)
    undisturbed = checkpointed_training(disk / "other")
    assert torch.equal(resumed, undisturbed)
    assert loops.fingerprint(disk / "run") == loops.fingerprint(disk / "other")
    assert ps.open_run(disk / "run").info["failure"] is None


def test_a_checkpoint_that_cannot_be_written_is_a_recording_error(tmp_path, monkeypatch):
    """As above, where no small disk can be mounted."""
    import safetensors.torch

    def full(*ignored):
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(RecordingError, match=r"step 0 .* the disk is full\. Everything committed"):
        checkpointed_training(tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_what_may_go_wrong_stands_in_run_json_from_the_beginning(tmp_path):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with ps.Recorder(tmp_path / "run", model, optimizer, save={"norms": ps.every(1)}):
        info = ps.open_run(tmp_path / "run").info
    assert (info["failure"], info["nonfinite"]) == (None, [])
    assert (info["missing_gradients"], info["densified_gradients"]) == ({}, [])


def test_a_training_goes_on_without_a_disk_if_that_was_asked_for(small_disk, uninterrupted):
    disk, enlarge = small_disk
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = loops.recorded_training(
            disk / "run", on_step=fill_at(disk, 13), on_failure="continue"
        )
    assert [w.category for w in caught] == [RecordingWarning]
    assert "the training goes on without it" in str(caught[0].message)
    assert "disk is full" in str(caught[0].message)
    for name, value in uninterrupted[2].items():
        assert torch.equal(model.state_dict()[name], value), name
    assert_prefix(disk / "run", uninterrupted)
    # The same run is recorded to its end once there is room.
    assert enlarge()
    loops.recorded_training(disk / "run", resume=True)
    assert_complete_and_identical(disk / "run", uninterrupted)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for other processes")
@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05])
def test_ctrl_c_at_any_moment_leaves_a_run_that_goes_on(tmp_path, forks, uninterrupted, delay):
    started, proceed = forks.Event(), forks.Event()
    process = forks.Process(
        target=loops.interruptible_training, args=(tmp_path / "run", started, proceed, delay)
    )
    process.start()
    assert started.wait(60)
    proceed.set()
    process.join(60)
    assert process.exitcode == 130
    run = ps.open_run(tmp_path / "run")
    assert run.status == "interrupted"
    assert_prefix(tmp_path / "run", uninterrupted)
    loops.recorded_training(tmp_path / "run", resume=True)
    assert_complete_and_identical(tmp_path / "run", uninterrupted)


def test_ctrl_c_in_the_middle_of_a_hook_loses_the_step_and_nothing_else(tmp_path, uninterrupted):
    calls = iter(range(100))

    def interrupt():
        if next(calls) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loops.recorded_training(tmp_path / "run", on_probe=interrupt)
    run = ps.open_run(tmp_path / "run")
    assert run.status == "interrupted"
    assert run.gradients.steps[-1] == 23  # the probe of step 24 was interrupted
    assert_prefix(tmp_path / "run", uninterrupted)
    loops.recorded_training(tmp_path / "run", resume=True)
    assert_complete_and_identical(tmp_path / "run", uninterrupted)
