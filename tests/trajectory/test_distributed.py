import random

import numpy as np
import pytest
import torch

import phasescope as ps
from phasescope.errors import RecordingWarning
from phasescope.trajectory.checkpoint import (
    common_checkpoint,
    load_part,
    rank_folder,
    remove_later,
)
from trajectory import loops, several
from trajectory.loops import newest_checkpoint


@pytest.fixture(scope="module")
def uninterrupted(together, tmp_path_factory):
    """A recorded training that nobody disturbs, the same without a recorder, and what they saw."""
    directory = tmp_path_factory.mktemp("uninterrupted") / "run"
    results = together(several.recorded_and_bare, directory)
    return directory, [recorded for recorded, _ in results], [bare for _, bare in results]


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


# --- replicas ---------------------------------------------------------------------------------


def test_replicas_train_on_as_if_nobody_recorded(uninterrupted):
    _, recorded, bare = uninterrupted
    for rank in (0, 1):
        assert recorded[rank]["step"] == several.N_STEPS
        assert_same(recorded[rank]["state"], bare[rank]["state"])
        np.testing.assert_array_equal(recorded[rank]["random"], bare[rank]["random"])
        np.testing.assert_array_equal(recorded[rank]["clipped"], bare[rank]["clipped"])
    assert not np.array_equal(recorded[0]["random"], recorded[1]["random"])


def test_a_run_of_two_processes_is_written_once_under_the_models_own_names(uninterrupted):
    directory, recorded, _ = uninterrupted
    run = ps.open_run(directory)
    assert run.status == "complete"
    assert run.parameters.names[:2] == ("fc1.weight", "fc1.bias")
    for name, series in ((name, run[name]) for name in run.series_names):
        assert (np.diff(series.steps) > 0).all(), name
    assert run.gradients.steps.tolist() == list(range(several.N_STEPS))
    assert {path.name for path in directory.iterdir()} == {
        "run.json",
        "trajectory.zarr",
        "checkpoints",
        "lock",
    }
    saved = load_part(directory / "checkpoints", several.N_STEPS, 0)["model"]
    assert list(saved) == [name.removeprefix("module.") for name in recorded[0]["state"]]


def test_hooks_see_this_processs_gradient_and_the_recorder_that_of_all(uninterrupted):
    directory, recorded, _ = uninterrupted
    run = ps.open_run(directory)
    local = np.stack([recorded[rank]["local"] for rank in (0, 1)])
    assert (np.abs(local[0] - local[1]).max(axis=1) > 1e-3).all()
    # Halves are exact, so the two orders of dividing and adding agree to the last bit.
    mean = local[0] / 2 + local[1] / 2
    for rank in (0, 1):
        np.testing.assert_array_equal(recorded[rank]["reduced"], mean)
    np.testing.assert_array_equal(run["unclipped_gradients"][:], mean)
    np.testing.assert_array_equal(run.gradients[:], recorded[0]["clipped"])
    assert (np.linalg.norm(mean, axis=1) > 0.5).any()  # the loop did clip
    expected = np.linalg.norm(mean[:, slice(*run.parameters.interval("fc1.weight"))], axis=1)
    np.testing.assert_allclose(run["norms/unclipped_gradients"][:, 0], expected, rtol=1e-6)


def test_every_rank_saves_its_own_random_state_and_position(uninterrupted):
    directory, recorded, _ = uninterrupted
    parts = [load_part(directory / "checkpoints", several.N_STEPS, rank) for rank in (0, 1)]
    assert torch.equal(parts[0]["model"]["fc1.weight"], parts[1]["model"]["fc1.weight"])
    assert parts[0]["optimizer"]["param_groups"] == parts[1]["optimizer"]["param_groups"]
    assert not torch.equal(parts[0]["random"]["torch"], parts[1]["random"]["torch"])
    for rank, part in enumerate(parts):
        # Without broadcast_buffers the running statistics differ, so each keeps its own.
        mean = recorded[rank]["state"]["module.norm.running_mean"]
        np.testing.assert_array_equal(part["model"]["norm.running_mean"], mean)
    own = rank_folder(directory / "checkpoints", 1) / f"step-{several.N_STEPS:09d}"
    whole = directory / "checkpoints" / own.name
    sizes = [(path / "tensors.safetensors").stat().st_size for path in (own, whole)]
    assert "fc1" not in (own / "state.json").read_text()
    assert sizes[0] < sizes[1]


def test_a_recorder_on_rank_0_alone_records_the_same(together, tmp_path, uninterrupted):
    directory, recorded, _ = uninterrupted
    results = together(several.only_on_rank_0, tmp_path / "run")
    for rank in (0, 1):
        assert_same(results[rank]["state"], recorded[rank]["state"])
        np.testing.assert_array_equal(results[rank]["random"], recorded[rank]["random"])
    assert loops.fingerprint(tmp_path / "run") == loops.fingerprint(directory)


# --- resuming ---------------------------------------------------------------------------------


def assert_complete_and_identical(directory, uninterrupted):
    whole, _, _ = uninterrupted
    assert loops.fingerprint(directory) == loops.fingerprint(whole)
    assert ps.open_run(directory).status == "complete"
    for rank in (0, 1):
        folders = [rank_folder(path / "checkpoints", rank) for path in (directory, whole)]
        steps = [newest_checkpoint(folder)[0] for folder in folders]
        assert steps == [several.N_STEPS] * 2
        found, expected = (
            load_part(path / "checkpoints", several.N_STEPS, rank) for path in (directory, whole)
        )
        assert_same(found["model"], expected["model"])
        assert torch.equal(found["random"]["torch"], expected["random"]["torch"])
        assert found["state"] == expected["state"]


def deaths_of(forks, folder, seed):
    return several.Deaths(forks, folder, seed, several.training, several.N_STEPS)


def test_random_deaths_of_one_and_then_both_leave_no_trace(forks, tmp_path, uninterrupted):
    def check(directory, results):
        assert_complete_and_identical(directory, uninterrupted)
        for rank in (0, 1):
            assert_same(results[rank]["state"], uninterrupted[1][rank]["state"])

    several.die_and_resume(deaths_of(forks, tmp_path, 0), tmp_path, 5, check)


@pytest.mark.slow
def test_sixty_random_deaths_of_one_and_then_both_leave_no_trace(forks, tmp_path, uninterrupted):
    def check(directory, results):
        assert_complete_and_identical(directory, uninterrupted)

    several.die_and_resume(deaths_of(forks, tmp_path, 1), tmp_path, 60, check)


def test_a_rank_that_was_killed_before_its_part_was_written_takes_all_back(
    forks, tmp_path, uninterrupted
):
    deaths = deaths_of(forks, tmp_path, 0)
    # Rank 1 renames twice for each checkpoint: the tree, then the folder. The fifth is step 20's.
    with deaths.start(tmp_path / "run", 1, ("before rename", 5)) as group:
        group.wait_for_a_death()
        folder = tmp_path / "run" / "checkpoints"
        group.wait_until(lambda: newest_checkpoint(folder)[0] == 20)
    assert newest_checkpoint(rank_folder(folder, 1))[0] == 10
    assert common_checkpoint(folder, 2)[0] == 10
    deaths.finish(tmp_path / "run")
    assert_complete_and_identical(tmp_path / "run", uninterrupted)


def test_a_rank_that_was_killed_before_it_saved_anything_begins_anew(
    forks, tmp_path, uninterrupted
):
    deaths = deaths_of(forks, tmp_path, 0)
    with deaths.start(tmp_path / "run", 1, ("before rename", 1)) as group:
        group.wait_for_a_death()
    folder = tmp_path / "run" / "checkpoints"
    assert newest_checkpoint(folder)[0] == 0
    assert newest_checkpoint(rank_folder(folder, 1)) is None
    deaths.finish(tmp_path / "run")
    assert_complete_and_identical(tmp_path / "run", uninterrupted)


def test_more_or_fewer_processes_go_on_from_rank_0_and_say_so(together, tmp_path, monkeypatch):
    directory = tmp_path / "run"
    together(several.stopped, directory, 10)
    with pytest.warns(RecordingWarning, match="recorded by 2 processes and goes on with 1") as said:
        alone = several.training(0, directory, resume=True, stop=20, one_order=True)
    assert "step 10, but not bit-identically" in str(said[0].message)
    assert alone["step"] == 20
    assert not rank_folder(directory / "checkpoints", 1).exists()
    results = together(several.with_warnings, several.resumed, directory)
    (first, said_0), (second, said_1) = results
    assert [first["step"], second["step"]] == [several.N_STEPS] * 2
    assert len(said_0) == 1
    assert "recorded by 1 processes and goes on with 2" in said_0[0]
    assert said_1 == []
    for name in ("module.fc1.weight", "module.fc2.bias"):
        np.testing.assert_array_equal(first["state"][name], second["state"][name])
    assert not np.array_equal(first["random"], second["random"])
    run = ps.open_run(directory)
    assert run.gradients.steps.tolist() == list(range(several.N_STEPS))


def test_a_rank_without_a_part_is_named(together, tmp_path):
    directory = tmp_path / "run"
    together(several.stopped, directory, 10)
    folder = rank_folder(directory / "checkpoints", 1)
    folder.rename(tmp_path / "lost")
    results = together(several.with_warnings, several.resumed, directory)
    assert len(results[0][1]) == 1
    assert "ranks [1] saved no state of their own" in results[0][1][0]
    assert results[0][0]["step"] == several.N_STEPS
    assert newest_checkpoint(folder)[0] == several.N_STEPS


def test_resuming_on_rank_0_alone_is_refused_before_anything_is_trained(together, tmp_path):
    directory = tmp_path / "run"
    together(several.stopped, directory, 10)
    before = loops.fingerprint(directory)
    results = together(several.error_of, several.resumed_only_on_rank_0, directory)
    assert "rank 1 has none, so it was not put back to the checkpoint" in results[0]
    assert "Build the Recorder on every rank" in results[0]
    assert results[1] == "RuntimeError"  # its peer is gone
    after = loops.fingerprint(directory)
    assert after["gradients"] == before["gradients"]
    assert after["norms/updates"] == before["norms/updates"]
    assert newest_checkpoint(directory / "checkpoints")[0] == 10


def test_ranks_that_see_different_checkpoints_are_stopped(together, tmp_path):
    (tmp_path / "node-0").mkdir()
    together(several.stopped, tmp_path / "node-0" / "run", 10)
    results = together(several.error_of, several.resumed_on_disks_of_their_own, tmp_path)
    said = [result for result in results if "all ranks must begin at one step" in result]
    assert said
    assert any("rank 0 begins run at step 10 and rank 1 at step 0" in s for s in said) or any(
        "rank 1 begins run at step 0 and rank 0 at step 10" in s for s in said
    )
    assert "one file system" in said[0]


def test_a_rank_with_another_directory_says_that_it_records_nothing(together, tmp_path):
    results = together(several.with_warnings, several.into_different_directories, tmp_path)
    assert results[0][1] == []
    assert len(results[1][1]) == 1
    assert "rank 1 records nothing: only rank 0 writes" in results[1][1][0]
    assert ps.open_run(tmp_path / "run-0").gradients.shape[0] == 3
    assert not (tmp_path / "run-1" / "run.json").exists()
    assert not (tmp_path / "run-1" / "trajectory.zarr").exists()


def test_a_recorder_may_be_closed_after_the_process_group(together, tmp_path):
    together(several.closed_after_the_group, tmp_path / "run")
    run = ps.open_run(tmp_path / "run")
    assert run.status == "complete"
    assert run.dataset("metrics")["rank"].values.tolist() == [0, 0, 0]
    folder = tmp_path / "run" / "checkpoints"
    assert [newest_checkpoint(rank_folder(folder, rank))[0] for rank in (0, 1)] == [3, 3]


def leave(folder, rank, step, content="{}"):
    path = rank_folder(folder, rank) / f"step-{step:09d}"
    path.mkdir(parents=True, exist_ok=True)
    (path / "state.json").write_text(content)


@pytest.mark.parametrize(
    ("steps", "common"),
    [
        ([[0, 10, 20], [0, 10, 20]], 20),
        ([[0, 10, 20], [0, 10]], 10),
        ([[0, 10], [0, 10, 20]], 10),
        ([[0, 10, 20], [0, 10, 20], [0, 10]], 10),
        ([[0], [0]], 0),
        ([[0], []], 0),
        ([[], [0]], None),
        ([[], []], None),
        ([[0, 10], [0]], 0),
        ([[10], [0]], None),
        ([[0, 10, 20], []], 20),
        ([[0, 10, 20], [], [0, 10]], 10),
        ([[0, 10, 20]], 20),
    ],
)
def test_the_newest_checkpoint_of_which_all_have_a_part_is_chosen(tmp_path, steps, common):
    for rank, mine in enumerate(steps):
        for step in mine:
            leave(tmp_path, rank, step)
    leave(tmp_path, len(steps), 7)  # left by a rank that is no more
    found = common_checkpoint(tmp_path, len(steps))
    assert found == (None if common is None else (common, tmp_path / f"step-{common:09d}"))


def test_all_ranks_choose_the_same_step_whenever_they_look(tmp_path):
    generator = random.Random(0)
    for trial in range(150):
        folder = tmp_path / str(trial)
        size = generator.randint(2, 4)
        for rank in range(size):
            for step in generator.sample([0, 5, 10, 15], generator.randint(0, 4)):
                leave(folder, rank, step)
        saves_step_0 = generator.random() < 0.5
        chosen, weights = {}, {}
        # Each rank looks once and settles later. Nothing else is ordered: it holds even for a rank
        # that looks when others have settled.
        moments = [rank for rank in range(size) for _ in range(2)]
        for rank in generator.sample(moments, len(moments)):
            if rank not in chosen:
                found = common_checkpoint(folder, size)
                chosen[rank] = 0 if found is None else found[0]
                weights[rank] = "new" if found is None else (found[1] / "state.json").read_text()
                if rank == 0 and found is None and saves_step_0:
                    leave(folder, 0, 0, "new")
                continue
            if rank > 0:
                leave(folder, rank, chosen[rank])
            remove_later(folder, chosen[rank], rank=rank, world_size=size)
        assert len(set(chosen.values())) == 1, (trial, chosen)
        assert len(set(weights.values())) == 1, (trial, weights)
        # What is left behind the chosen step belongs to no later choice.
        found = common_checkpoint(folder, size)
        assert found is None or found[0] == chosen[0]


def test_checkpoints_of_processes_that_are_gone_are_removed_by_rank_0(tmp_path):
    for rank in range(4):
        for step in (5, 10):
            leave(tmp_path, rank, step)
    (tmp_path / "step-000000099.old").mkdir()
    remove_later(tmp_path, 5, rank=1, world_size=2)
    assert newest_checkpoint(rank_folder(tmp_path, 1))[0] == 5
    assert newest_checkpoint(rank_folder(tmp_path, 3))[0] == 10
    remove_later(tmp_path, 5, rank=0, world_size=2)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"step-000000005", "rank-1"}
