import copy

import numpy as np
import pytest
import torch
from torch import nn

import phasescope as ps
from phasescope.errors import RecordingWarning, RunError
from phasescope.interventions import flat_weights, fork, keep, random_subspace
from phasescope.trajectory.checkpoint import checkpoints_in, load_checkpoint
from trajectory import loops


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def original(one_thread, tmp_path_factory):
    directory = tmp_path_factory.mktemp("original") / "run"
    model = loops.recorded_training(directory)
    return directory, flat_weights(model)


def forked_training(original, directory, step, *, transform=None, intervention="none", stop=None):
    """Goes on from a checkpoint as `loops.recorded_training` does, recorded as a fork."""
    model, optimizer, scheduler, batches = loops.setup(seed=5)
    state = {"scheduler": scheduler, "loader": batches}
    # Another seed: whatever the fork does not restore would show.
    batches.seed = 0
    batches.inputs, batches.labels = loops.setup()[3].inputs, loops.setup()[3].labels
    with ps.Recorder(
        directory,
        model,
        optimizer,
        save=loops.everything() | {"probes": ps.every(4)},
        n_steps=loops.N_STEPS,
        checkpoint=ps.every(10),
        state=state,
        components=ps.components(model, "*.weight"),
        sketch=ps.CountSketch(16),
        probes={"logits": lambda m: m(torch.linspace(-1, 1, 12).reshape(2, 6))},
        config={"seed": 0},
        resume=fork(original, step, model, optimizer, state=state, intervention=intervention),
    ) as recorder:
        for x, y in batches:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            if transform is not None:
                ps.training.transform_gradients(model, transform)
            optimizer.step()
            scheduler.step()
            recorder.log(train_loss=loss)
            if recorder.step % 6 == 0:
                recorder.log(step=recorder.step, lr=optimizer.param_groups[0]["lr"])
            recorder.end_step()
            if recorder.step == stop:
                break
    return model


@pytest.mark.parametrize("step", [10, 30])
def test_a_fork_without_intervention_is_the_original_bit_for_bit(original, tmp_path, step):
    path, final = original
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    model = forked_training(path, tmp_path / "fork", step)
    assert torch.equal(flat_weights(model), final)
    whole, forked = ps.open_run(path), ps.open_run(tmp_path / "fork")
    assert forked.status == "complete"
    assert set(forked.series_names) == set(whole.series_names)
    for name in whole.series_names:
        rows = whole[name].steps >= step
        assert rows.any()
        np.testing.assert_array_equal(forked[name].steps, whole[name].steps[rows], err_msg=name)
        np.testing.assert_array_equal(forked[name][:], whole[name][:][rows], err_msg=name)
    last = loops.N_STEPS
    states = [
        load_checkpoint(checkpoints_in(p / "checkpoints")[last])["model"]
        for p in (path, tmp_path / "fork")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


def test_a_fork_says_where_it_came_from_and_parts_from_the_original(original, tmp_path):
    path, final = original
    subspace = random_subspace(len(final), 5, seed=0)
    what = "gradients kept in 5 random directions"
    model = forked_training(path, tmp_path / "f", 20, transform=keep(subspace), intervention=what)
    assert not torch.equal(flat_weights(model), final)
    run = ps.open_run(tmp_path / "f")
    assert run.origin is not None
    assert run.origin["run"] == "run"
    assert run.origin["created"] == ps.open_run(path).info["created"]
    assert (run.origin["step"], run.origin["intervention"]) == (20, what)
    assert "forked from run at step 20, intervention: gradients kept in 5" in repr(run)
    assert ps.open_run(path).origin is None
    # Up to the fork it is the original: the first gradient is the projection of the original's.
    g = torch.from_numpy(ps.open_run(path).gradients[20])
    B = subspace.basis
    torch.testing.assert_close(torch.from_numpy(run.gradients[0]), B.T @ (B @ g))


def test_an_interrupted_fork_goes_on_from_its_own_checkpoints_and_stays_a_fork(original, tmp_path):
    path, final = original
    with pytest.warns(RecordingWarning, match="n_steps=40 was announced"):
        forked_training(path, tmp_path / "fork", 10, stop=25)
    model = loops.recorded_training(tmp_path / "fork", resume=True)
    assert torch.equal(flat_weights(model), final)
    run = ps.open_run(tmp_path / "fork")
    assert run.origin is not None
    assert run.origin["step"] == 10
    assert run.gradients.steps[0] == 10


def test_a_fork_without_a_checkpoint_of_its_own_is_not_resumed_from_step_0(original, tmp_path):
    path, _ = original
    model, optimizer, scheduler, batches = loops.setup()
    state = {"scheduler": scheduler, "loader": batches}
    restored = fork(path, 10, model, optimizer, state=state)
    save = {"gradients": ps.every(1)}
    ps.Recorder(tmp_path / "f", model, optimizer, save=save, resume=restored).attach().close()
    with pytest.raises(RunError, match=r"interrupted before its first checkpoint.*resume=fork"):
        ps.Recorder(tmp_path / "f", model, optimizer, save=save, resume=True).attach()


def test_mistakes_are_named_before_anything_is_changed(original, tmp_path):
    path, _ = original
    model, optimizer = loops.setup(seed=3)[:2]
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RunError, match=r"its checkpoints, 0, 10, 20, 30, 40, but step=15 arrived"):
        fork(path, 15, model, optimizer)
    other = nn.Linear(3, 3)
    with pytest.raises(ValueError, match=r"'bias' of shape \(3,\) is in one of the two only"):
        fork(path, 10, other, torch.optim.AdamW(other.parameters()))
    turned = nn.ModuleDict(dict(reversed(list(model.named_children()))))
    with pytest.raises(ValueError, match=r"in the order recorded .* stands where '.*' was"):
        fork(path, 10, turned, torch.optim.AdamW(turned.parameters()))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"trained with AdamW, whose state.*SGD arrived"):
        fork(path, 10, model, sgd)
    with pytest.raises(RunError, match=r"holds state of \['loader', 'scheduler'\].*state=\[\]"):
        fork(path, 10, model, optimizer)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    with pytest.raises(RunError, match=r"a run directory holds run.json"):
        fork(tmp_path, 0, model, optimizer)
    with ps.Recorder(tmp_path / "bare", model, optimizer, save={"norms": ps.every(1)}):
        pass
    with pytest.raises(RunError, match=r"of which it has none.*checkpoint=phasescope.every"):
        fork(tmp_path / "bare", 0, model, optimizer)
