import json
import shutil

import numpy as np
import pytest
import torch

import phasescope as ps
from integrations.witness import Witness, weights_of
from phasescope.errors import RecordingError, RunError

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from transformers import (  # noqa: E402
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from phasescope.integrations import huggingface  # noqa: E402
from phasescope.integrations.huggingface import RecorderCallback  # noqa: E402

SAVE = {name: ps.every(1) for name in ("gradients", "updates", "weights", "norms")}
# 40 sequences in batches of 2, gathered by 3: the last update of each epoch has two of them.
N_UPDATES = 14


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Neither progress bars nor advice about tiny configurations."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def sequences(n=40, seed=1):
    ids = torch.randint(0, 50, (n, 8), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": row, "labels": row} for row in ids]


class LossTrainer(Trainer):
    """Keeps the loss of every micro-batch with the number of updates done before it."""

    def training_step(self, *arguments, **options):
        loss = super().training_step(*arguments, **options)
        self.__dict__.setdefault("losses", []).append((self.state.global_step, loss.item()))
        return loss


def trainer(output, *callbacks, dropout=0.1, **settings):
    """A GPT-2 of two layers, with dropout, accumulation and clipping; evaluated and saved."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=50, n_positions=8, n_embd=32, n_layer=2, n_head=2,
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    arguments = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 3,
        "max_grad_norm": 0.5,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "save_steps": 6,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 3,
    }
    return LossTrainer(
        model=GPT2LMHeadModel(config),
        args=TrainingArguments(output_dir=str(output), **(arguments | settings)),
        train_dataset=sequences(),
        eval_dataset=sequences(6, seed=2),
        callbacks=list(callbacks),
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A training without a recorder, and what a witness saw of it."""
    training = trainer(tmp_path_factory.mktemp("plain"))
    with Witness() as witness:
        training.train()
    return training, witness


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The same training with the callback, and its run."""
    directory = tmp_path_factory.mktemp("recorded")
    training = trainer(directory, RecorderCallback(directory / "run", save=SAVE))
    training.train()
    return training, ps.open_run(directory / "run")


def metrics(run):
    """Per step, what was logged there; timings left out."""
    frame = run.dataset("metrics").load().to_dataframe()
    timings = [name for name in frame if name.endswith(("runtime", "per_second"))]
    return frame.drop(columns=timings)


def test_training_is_bit_identical_with_the_callback(plain, recorded):
    np.testing.assert_array_equal(weights_of(recorded[0].model), weights_of(plain[0].model))


def test_the_gradients_are_exactly_those_that_the_optimizer_consumed(plain, recorded):
    (training, witness), (_, run) = plain, recorded
    np.testing.assert_array_equal(run.gradients[:], witness.rows(training.model, "gradients"))
    np.testing.assert_array_equal(run.updates[:], witness.updates(training.model))
    np.testing.assert_array_equal(run.weights[:][:-1], witness.rows(training.model, "weights"))


def test_steps_are_updates_and_not_micro_batches(plain, recorded):
    training, run = recorded
    assert training.state.global_step == len(plain[1].events) == N_UPDATES
    assert len(training.losses) == 40
    assert run.gradients.steps.tolist() == list(range(N_UPDATES))
    assert run.weights.steps.tolist() == list(range(N_UPDATES + 1))
    content = json.loads((run.path / "run.json").read_text())
    assert (content["n_steps"], content["status"]) == (N_UPDATES, "complete")


def test_clipping_is_in_the_gradients_and_the_logged_norm_is_before_it(recorded):
    run = recorded[1]
    norms = np.linalg.norm(run.gradients[:].astype(np.float64), axis=1)
    # PyTorch scales by 0.5 / (norm + 1e-6), in float32.
    np.testing.assert_allclose(norms, 0.5, rtol=1e-5)
    assert (metrics(run)["grad_norm"].iloc[:N_UPDATES] > 1).all()


def test_what_is_logged_stands_at_the_step_of_its_weights(plain, recorded):
    training, run = recorded
    logged = metrics(run)
    assert logged.index.tolist() == list(range(N_UPDATES + 1))
    np.testing.assert_array_equal(logged["learning_rate"].iloc[:N_UPDATES], plain[1].learning_rates)
    for step in range(N_UPDATES):
        # The trainer divides each micro-batch's loss by their number itself.
        parts = [loss for before, loss in training.losses if before == step]
        np.testing.assert_allclose(logged["loss"][step], sum(parts), rtol=1e-6)
    evaluated = logged["eval_loss"].dropna()
    assert evaluated.index.tolist() == [3, 6, 9, 12, 14]
    for step, loss in evaluated.items():
        row = torch.from_numpy(run.weights[:][step])
        torch.nn.utils.vector_to_parameters(row, training.model.parameters())
        assert training.evaluate()["eval_loss"] == loss
    assert not {"train_runtime", "train_loss", "total_flos"} & set(logged)


def test_a_loss_over_several_updates_stands_at_the_last_of_them(tmp_path):
    callback = RecorderCallback(tmp_path / "run", save={"norms/updates": ps.every(1)})
    training = trainer(tmp_path, callback, logging_steps=4, save_strategy="no", max_steps=10)
    training.train()
    logged = metrics(ps.open_run(tmp_path / "run"))["loss"].dropna()
    assert logged.index.tolist() == [3, 7]
    parts = [loss for before, loss in training.losses if 4 <= before < 8]
    np.testing.assert_allclose(logged[7], sum(parts) / 4, rtol=1e-6)


def test_what_a_model_logs_during_its_forward_pass_belongs_to_the_coming_update(tmp_path):
    class Talking(LossTrainer):
        def compute_loss(self, *arguments, **options):
            self.log({"custom/updates": self.state.global_step, "text": "no number"})
            return super().compute_loss(*arguments, **options)

    callback = RecorderCallback(tmp_path / "run", save={"norms/updates": ps.every(1)})
    options = {"save_strategy": "no", "eval_strategy": "no", "max_steps": 4}
    training = trainer(tmp_path, callback, **options)
    training.__class__ = Talking
    training.train()
    logged = metrics(ps.open_run(tmp_path / "run"))
    assert logged["custom.updates"].dropna().tolist() == [0, 1, 2, 3]
    assert "text" not in logged


class Freeze(TrainerCallback):
    """Keeps everything on disk as a kill after some update would leave it, and goes on."""

    def __init__(self, output, frozen, step, recording=None):
        self.output, self.frozen, self.step, self.recording = output, frozen, step, recording

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            if self.recording is not None:
                self.recording.recorder.flush()
            shutil.copytree(self.output, self.frozen)


def frozen_when_saved(training, output, frozen):
    """Keeps everything on disk as a kill right after the first checkpoint would leave it."""
    save = training._save_checkpoint

    def save_and_freeze(*arguments, **options):
        save(*arguments, **options)
        if not frozen.exists():
            shutil.copytree(output, frozen)

    training._save_checkpoint = save_and_freeze
    return training


class SaveAt(TrainerCallback):
    """Wants a checkpoint that no other callback knows of before."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_save = control.should_save or state.global_step == self.step


def assert_same_run(run, expected):
    assert run.status == "complete"
    for name in ("gradients", "updates", "weights", "norms/gradients"):
        np.testing.assert_array_equal(run[name].steps, expected[name].steps, err_msg=name)
        np.testing.assert_array_equal(run[name][:], expected[name][:], err_msg=name)


@pytest.mark.parametrize("moment", ["right after the checkpoint", "five updates later"])
def test_a_killed_training_goes_on_from_the_checkpoint_to_the_same_run(tmp_path, recorded, moment):
    output, frozen = tmp_path / "output", tmp_path / "frozen"
    callback = RecorderCallback(output / "run", save=SAVE)
    if moment == "five updates later":
        trainer(output, callback, Freeze(output, frozen, 11, callback)).train()
    else:
        frozen_when_saved(trainer(output, callback), output, frozen).train()
    run = ps.open_run(frozen / "run")
    assert run.status == "recording"
    # Everything before the checkpoint of step 6 had been committed for it; later rows are dropped.
    assert len(run.gradients) == (11 if moment == "five updates later" else 6)
    resumed = trainer(frozen, RecorderCallback(frozen / "run", save=SAVE))
    with Witness() as witness:
        resumed.train(resume_from_checkpoint=True)
    assert len(witness.events) == N_UPDATES - 6
    run = ps.open_run(frozen / "run")
    assert_same_run(run, recorded[1])
    # The evaluation of step 6 came before the checkpoint and is not repeated.
    assert metrics(run).equals(metrics(recorded[1])[metrics(run).columns])


def test_a_checkpoint_that_came_as_a_surprise_can_be_resumed_too(tmp_path, recorded):
    output, frozen = tmp_path / "output", tmp_path / "frozen"
    callback = RecorderCallback(output / "run", save=SAVE)
    options = {"save_strategy": "no"}
    trainer(output, callback, SaveAt(4), Freeze(output, frozen, 11), **options).train()
    run = ps.open_run(frozen / "run")
    assert len(run.gradients) == 4
    resumed = trainer(frozen, RecorderCallback(frozen / "run", save=SAVE), **options)
    resumed.train(resume_from_checkpoint=True)
    assert_same_run(ps.open_run(frozen / "run"), recorded[1])


def test_a_checkpoint_of_an_unrecorded_training_begins_a_run_at_its_step(tmp_path, recorded):
    trainer(tmp_path, Freeze(tmp_path, tmp_path.parent / f"{tmp_path.name}-6", 8)).train()
    resumed = trainer(tmp_path, RecorderCallback(tmp_path / "run", save=SAVE))
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    run = ps.open_run(tmp_path / "run")
    assert run.gradients.steps.tolist() == list(range(6, N_UPDATES))
    np.testing.assert_array_equal(run.gradients[:], recorded[1].gradients[:][6:])


def test_updates_that_a_scaler_skipped_do_not_shift_the_steps_of_a_resumed_run():
    """The Trainer counts them, the recorder does not."""
    kept = {"global_step": 9, "recorder": {"step": 7, "metrics": {"7": {"loss": 1.0}}}}
    state = TrainerState(global_step=9, stateful_callbacks={"phasescope": kept})
    assert huggingface._restored(state) == kept["recorder"]
    state = TrainerState(global_step=10, stateful_callbacks={"phasescope": kept})
    assert huggingface._restored(state) == {"step": 8}
    assert huggingface._restored(TrainerState(global_step=4)) == {"step": 4}
    assert huggingface._restored(TrainerState()) == {"step": 0}


def test_the_last_weights_are_those_of_training_and_not_of_the_best_model(tmp_path):
    callback = RecorderCallback(tmp_path / "run", save={"weights": ps.at(0)})
    training = trainer(
        tmp_path, callback, load_best_model_at_end=True, metric_for_best_model="loss",
        greater_is_better=False, save_strategy="best",
    )  # fmt: skip
    with Witness() as witness:
        training.train()
    last = witness.rows(training.model, "after")[-1]
    run = ps.open_run(tmp_path / "run")
    assert not np.array_equal(weights_of(training.model), last)
    np.testing.assert_array_equal(run.weights[:][-1], last)
    assert run.weights.steps.tolist() == [0, N_UPDATES]


def test_a_second_training_into_the_same_directory_is_refused_unless_resume_is_set(tmp_path):
    options = {"save_strategy": "no", "eval_strategy": "no", "max_steps": 2}
    save = {"gradients": ps.every(1)}
    trainer(tmp_path, RecorderCallback(tmp_path / "run", save=save), **options).train()
    again = trainer(tmp_path, RecorderCallback(tmp_path / "run", save=save), **options)
    with pytest.raises(RunError, match="a new run needs a directory of its own"):
        again.train()
    callback = RecorderCallback(tmp_path / "run", save=save, resume=True)
    trainer(tmp_path, callback, **options).train()
    assert ps.open_run(tmp_path / "run").gradients.steps.tolist() == [0, 1]


def test_a_training_that_raised_can_be_closed_and_is_interrupted(tmp_path):
    class Fail(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise KeyboardInterrupt

    callback = RecorderCallback(tmp_path / "run", save={"gradients": ps.every(1)})
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, callback, Fail()).train()
    assert callback.recorder.step == 3
    callback.close()
    assert callback.recorder is None
    run = ps.open_run(tmp_path / "run")
    assert (run.status, len(run.gradients)) == ("interrupted", 3)


@pytest.mark.parametrize("strategy", ["MEGATRON_LM", "DEEPSPEED"])
def test_libraries_that_take_the_parameters_away_are_refused(tmp_path, monkeypatch, strategy):
    monkeypatch.setattr(
        huggingface, "AcceleratorState", lambda: type("S", (), {"distributed_type": strategy})
    )
    callback = RecorderCallback(tmp_path / "run", save={"gradients": ps.every(1)})
    message = f"{strategy} keeps them in flat partitions without names.*'fsdp_version': 2"
    with pytest.raises(RecordingError, match=message):
        trainer(tmp_path, callback).train()
    assert not (tmp_path / "run").exists()


def test_the_older_fsdp_is_refused_in_favour_of_its_successor(tmp_path, unchecked_types):
    from torch.distributed.fsdp import FullyShardedDataParallel

    class Wrapper(FullyShardedDataParallel):
        def __init__(self):
            torch.nn.Module.__init__(self)

    callback = RecorderCallback(tmp_path / "run", save={"norms": ps.every(1)})
    with pytest.raises(RecordingError, match=r"FullyShardedDataParallel keeps.*'fsdp_version': 2"):
        callback.on_train_begin(None, None, None, model=Wrapper(), optimizer=None)
