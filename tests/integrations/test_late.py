import subprocess
import sys
import textwrap
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

import phasescope as ps
from phasescope.errors import RecordingWarning, RunError
from phasescope.integrations.late import LateRecorder

SAVE = {"gradients": ps.every(1)}


def training():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def update(model, optimizer, scale=1.0):
    optimizer.zero_grad()
    (model(torch.ones(4, 3)).square().mean() * scale).backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, TypeError, r"requires save=, such as save=\{'gradients': every\(1\)\}"),
        ({"save": SAVE, "dtyp": "float32"}, TypeError, r"'dtyp' arrived\. Did you mean 'dtype'"),
        ({"save": SAVE, "model": None}, TypeError, r"model= is taken from the trainer"),
        ({"save": SAVE, "checkpoint": ps.every(1)}, ValueError, "trainer writes the checkpoints"),
        ({"save": SAVE, "state": {}}, ValueError, "state= belongs to a loop of one's own"),
    ],
)
def test_settings_are_those_of_the_recorder_and_checked_at_once(settings, error, message):
    with pytest.raises(error, match=message):
        LateRecorder("run", settings)


def test_what_another_callback_left_in_the_directory_is_closed_first(tmp_path):
    """As after Ctrl-C, which a trainer may tell no callback."""
    model, optimizer = training()
    left = LateRecorder(tmp_path / "run", {"save": SAVE})
    left.begin(model, optimizer, n_steps=None, state={"step": 0})
    for _ in range(3):
        update(model, optimizer)
    late = LateRecorder(tmp_path / "run", {"save": SAVE})
    late.begin(model, optimizer, n_steps=None, state={"step": 2})
    assert left.recorder is None
    update(model, optimizer)
    late.end("complete")
    left.end("interrupted")  # changes nothing
    run = ps.open_run(tmp_path / "run")
    assert (run.status, run.info["step"]) == ("complete", 3)


def test_settings_reach_the_recorder(tmp_path):
    settings = {"save": SAVE, "dtype": "bfloat16", "n_steps": 7, "config": {"seed": 5}}
    late = LateRecorder(tmp_path / "run", settings)
    late.begin(*training(), n_steps=99, state={"step": 0})
    late.end("complete")
    run = ps.open_run(tmp_path / "run")
    assert run.config == {"seed": 5}
    assert run.path == tmp_path / "run"
    text = (tmp_path / "run" / "run.json").read_text()
    assert '"dtype": "bfloat16"' in text
    assert '"n_steps": 7' in text


def test_the_trainers_length_is_used_where_none_was_given(tmp_path):
    late = LateRecorder(tmp_path / "run", {"save": {"weights": ps.log_spaced(3)}})
    recorder = late.begin(*training(), n_steps=99, state={"step": 0})
    with pytest.warns(RecordingWarning, match="n_steps=99 was announced"):
        late.end("complete")
    assert recorder.n_steps == 99


def test_logs_belong_to_the_update_just_done_until_the_next_begins(tmp_path):
    model, optimizer = training()
    late = LateRecorder(tmp_path / "run", {"save": SAVE})
    late.log({"nothing": 1.0})  # before the training: no error, no metric
    late.begin(model, optimizer, n_steps=None, state={"step": 0})
    late.log({"start": 10.0})
    for step in range(3):
        late.begin_update()
        late.log({"during": step})
        update(model, optimizer)
        late.log({"after": np.float32(step), "lr/group 0": 0.1, "note": "text", "list": [1.0]})
        late.log({"now": torch.tensor(step)}, now=True)
    late.end("complete")
    late.log({"nothing": 1.0})
    frame = ps.open_run(tmp_path / "run").dataset("metrics").load().to_dataframe()
    assert set(frame) == {"start", "during", "after", "now", "lr.group 0"}
    assert frame["start"].dropna().to_dict() == {0: 10.0}
    assert frame["during"].dropna().to_dict() == {0: 0.0, 1: 1.0, 2: 2.0}
    assert frame["after"].dropna().to_dict() == {0: 0.0, 1: 1.0, 2: 2.0}
    assert frame["now"].dropna().to_dict() == {1: 0.0, 2: 1.0, 3: 2.0}


def test_what_is_logged_at_a_skipped_update_belongs_to_the_coming_one(tmp_path):
    """A scaler that finds infinite gradients leaves the update out: it is no step."""
    model, optimizer = training()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    late = LateRecorder(tmp_path / "run", {"save": SAVE})
    late.begin(model, optimizer, n_steps=None, state={"step": 0}, scaler=scaler)
    for i in range(4):
        late.begin_update()
        optimizer.zero_grad()
        loss = model(torch.ones(4, 3)).square().mean()
        scaler.scale(loss * (torch.inf if i == 1 else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        late.log({"i": i})
    late.end("complete")
    run = ps.open_run(tmp_path / "run")
    frame = run.dataset("metrics").load().to_dataframe()
    assert frame["i"].to_dict() == {0: 0.0, 1: 2.0, 2: 3.0}
    assert run.gradients.steps.tolist() == [0, 1, 2]
    assert run.dataset("skipped").load().scale.to_series().to_dict() == {1: 4.0}


def test_state_carries_what_was_not_committed_yet(tmp_path):
    model, optimizer = training()
    late = LateRecorder(tmp_path / "run", {"save": SAVE})
    late.begin(model, optimizer, n_steps=None, state={"step": 0})
    for _ in range(5):
        late.begin_update()
        update(model, optimizer)
        late.log({"loss": 1.0})
    late.log({"validation": 2.0}, now=True)
    late.flush()
    state = late.state()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert state["step"] == 5
    # Rows 0 to 3 are committed; what may still be added to is in the state.
    assert state["metrics"] == {4: {"loss": 1.0}, 5: {"validation": 2.0}}
    for _ in range(3):
        late.begin_update()
        update(model, optimizer, scale=2.0)
    late.end("interrupted")
    assert late.state()["step"] == 8

    model.load_state_dict(weights)
    late = LateRecorder(tmp_path / "run", {"save": SAVE})
    late.begin(model, optimizer, n_steps=None, state=state)
    update(model, optimizer)
    late.end("complete")
    run = ps.open_run(tmp_path / "run")
    assert run.gradients.steps.tolist() == list(range(6))
    frame = run.dataset("metrics").load().to_dataframe()
    assert frame["loss"].dropna().index.tolist() == [0, 1, 2, 3, 4]
    assert frame["validation"].dropna().to_dict() == {5: 2.0}


def test_rows_that_a_checkpoint_is_ahead_of_are_named(tmp_path):
    model, optimizer = training()
    late = LateRecorder(tmp_path / "run", {"save": SAVE | {"weights": ps.every(4)}})
    late.begin(model, optimizer, n_steps=None, state={"step": 0})
    for _ in range(5):
        update(model, optimizer)
    late.end("interrupted")
    with pytest.warns(RecordingWarning, match="at step 9, but .* missing: gradients from 5 to 8;"):
        late.begin(model, optimizer, n_steps=None, state={"step": 9})
    late.end("complete")


def test_a_training_that_is_prolonged_keeps_the_schedule_it_began_with(tmp_path):
    save = {"updates": ps.log_spaced(3), "gradients": ps.every(1)}
    for n, state in ((4, {"step": 0}), (6, {"step": 4})):
        model, optimizer = training()
        late = LateRecorder(tmp_path / "run", {"save": save})
        late.begin(model, optimizer, n_steps=n, state=state)
        for _ in range(n - state["step"]):
            update(model, optimizer)
        with pytest.warns(RecordingWarning, match="after 6") if n == 6 else nullcontext():
            late.end("complete")
    run = ps.open_run(tmp_path / "run")
    assert run.gradients.steps.tolist() == list(range(6))
    assert run.updates.steps.tolist() == [0, 1, 3]
    late = LateRecorder(tmp_path / "run", {"save": save, "n_steps": 6})
    with pytest.raises(RunError, match="begun with n_steps = 4, but is resumed with 6"):
        late.begin(*training(), n_steps=6, state={"step": 4})


def test_a_new_training_ends_the_recording_of_one_that_raised(tmp_path):
    late = LateRecorder(tmp_path / "run", {"save": SAVE})
    model, optimizer = training()
    late.begin(model, optimizer, n_steps=None, state={"step": 0})
    update(model, optimizer)
    with pytest.raises(RunError, match="status 'interrupted'"):
        late.begin(*training(), n_steps=None, state={"step": 0})
    assert len(ps.open_run(tmp_path / "run").gradients) == 1


LIBRARIES = ("accelerate", "lightning", "tensorboard", "transformers", "wandb")


def test_an_error_that_nobody_tells_of_is_noticed_when_the_process_ends(tmp_path):
    script = f"""
        import torch
        import phasescope as ps
        from phasescope.integrations.late import LateRecorder
        model = torch.nn.Linear(3, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        late = LateRecorder({str(tmp_path / "run")!r}, {{"save": {{"gradients": ps.every(1)}}}})
        late.begin(model, optimizer, n_steps=None, state={{"step": 0}})
        for _ in range(3):
            model(torch.ones(4, 3)).mean().backward()
            optimizer.step()
        import sys
        print(sorted(set(sys.modules) & set({LIBRARIES!r})))
        raise KeyboardInterrupt
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert "KeyboardInterrupt" in process.stderr
    assert process.stdout.strip() == "[]"  # none of them is loaded without being used
    run = ps.open_run(tmp_path / "run")
    assert (run.status, len(run.gradients)) == ("interrupted", 3)


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [
        ("huggingface", "transformers.trainer_callback", "hf"),
        ("lightning", "lightning.pytorch", "lightning"),
        ("tensorboard", "tensorboard.summary.writer.event_file_writer", "trackers"),
        ("wandb", "wandb", "trackers"),
    ],
)
def test_a_missing_extra_is_named(monkeypatch, module, library, extra):
    monkeypatch.delitem(sys.modules, f"phasescope.integrations.{module}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf'pip install "phasescope\[{extra}\]"'):
        __import__(f"phasescope.integrations.{module}")
