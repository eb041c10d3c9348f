import json
import logging
import math
import shutil

import numpy as np
import pytest
import torch
from torch import nn

import phasescope as ps
from integrations.witness import Witness, weights_of
from phasescope.errors import RecordingError, RunError

pytest.importorskip("lightning")

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, SingleDeviceStrategy

from phasescope.integrations.lightning import RecorderCallback

pytestmark = [
    # Lightning calls a function of torch.utils._pytree that PyTorch is about to replace.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
    # Advice that ten batches do not need.
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
]
SAVE = {name: ps.every(1) for name in ("gradients", "updates", "weights", "norms")}
N_BATCHES = 10


@pytest.fixture(autouse=True)
def quiet():
    """No remarks on accelerators and tips."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


def loader(seed, n=N_BATCHES):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n * 4, 6, generator=generator)
    y = torch.randint(0, 3, (n * 4,), generator=generator)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)


class Module(LightningModule):
    """A small classifier that logs at every place there is."""

    def __init__(self, dropout=0.3):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3))
        self.losses = []

    def loss(self, batch):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.losses.append(loss.item())
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        return loss

    def on_train_batch_end(self, *ignored):
        self.log("after_batch", torch.tensor(float(self.global_step)))

    def on_train_epoch_end(self):
        self.log("after_epoch", torch.tensor(float(self.current_epoch)))

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]


class Players(LightningModule):
    """Two optimizers, stepped by hand, each of whose losses reaches the other's weights."""

    automatic_optimization = False

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 3)

    def training_step(self, batch, batch_idx):
        for i, optimizer in enumerate(self.optimizers()):
            if i == 0 and batch_idx % 2:
                continue
            loss = nn.functional.cross_entropy(self.second(self.first(batch[0])), batch[1])
            optimizer.zero_grad()
            self.manual_backward(loss * (1 - 2 * i))
            self.clip_gradients(optimizer, gradient_clip_val=0.1, gradient_clip_algorithm="norm")
            optimizer.step()
            self.log(f"loss{i}", loss)

    def configure_optimizers(self):
        return [torch.optim.SGD(p.parameters(), lr=0.1) for p in (self.first, self.second)]


def fit(module, *callbacks, validate=True, ckpt_path=None, directory=None, **settings):
    arguments = {"max_epochs": 2, "accumulate_grad_batches": 3, "gradient_clip_val": 0.1}
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=1,
        callbacks=list(callbacks),
        default_root_dir=directory,
        **(arguments | settings),
    )
    trainer.fit(module, loader(1), loader(2, 2) if validate else None, ckpt_path=ckpt_path)
    return trainer


def module(kind=Module, **options):
    torch.manual_seed(0)
    return kind(**options)


@pytest.fixture(scope="module")
def plain():
    """A training without a recorder, and what a witness saw of it."""
    trained = module()
    with Witness() as witness:
        fit(trained)
    return trained, witness


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The same training with the callback, and its run."""
    directory = tmp_path_factory.mktemp("recorded") / "run"
    trained = module()
    fit(trained, RecorderCallback(directory, save=SAVE))
    return trained, ps.open_run(directory)


def metrics(run):
    return run.dataset("metrics").load().to_dataframe()


def test_training_is_bit_identical_with_the_callback(plain, recorded):
    np.testing.assert_array_equal(weights_of(recorded[0]), weights_of(plain[0]))


def test_the_gradients_are_exactly_those_that_the_optimizer_consumed(plain, recorded):
    (trained, witness), (_, run) = plain, recorded
    np.testing.assert_array_equal(run.gradients[:], witness.rows(trained, "gradients"))
    np.testing.assert_array_equal(run.updates[:], witness.updates(trained))
    np.testing.assert_array_equal(run.weights[:][:-1], witness.rows(trained, "weights"))


def test_steps_are_updates_and_not_batches(plain, recorded):
    trained, run = recorded
    # Ten batches, gathered by three: four updates in each epoch, the last of one batch.
    assert len(plain[1].events) == 8
    assert len(trained.losses) == 20
    assert run.gradients.steps.tolist() == list(range(8))
    assert run.weights.steps.tolist() == list(range(9))
    content = json.loads((run.path / "run.json").read_text())
    assert (content["n_steps"], content["status"]) == (8, "complete")
    assert run.parameters.names[0] == "net.0.weight"


def test_clipping_is_in_the_gradients(recorded):
    norms = np.linalg.norm(recorded[1].gradients[:].astype(np.float64), axis=1)
    # PyTorch scales by 0.1 / (norm + 1e-6), in float32.
    np.testing.assert_allclose(norms, 0.1, rtol=1e-4)


def test_what_is_logged_stands_at_the_step_of_its_weights(recorded):
    trained, run = recorded
    logged = metrics(run)
    assert logged.index.tolist() == list(range(9))
    last_batches = [2, 5, 8, 9, 12, 15, 18, 19]
    expected = np.float32([trained.losses[i] for i in last_batches])
    np.testing.assert_array_equal(logged["train.loss"].iloc[:8], expected)
    np.testing.assert_array_equal(logged["train.loss_step"].iloc[:8], expected)
    # The mean over an epoch stands at its last update and does not replace the batch's value.
    means = logged["train.loss_epoch"].dropna()
    assert means.index.tolist() == [3, 7]
    np.testing.assert_allclose(means, np.reshape(trained.losses, (2, 10)).mean(1), rtol=1e-6)
    # What hooks of the module log comes after the callback's own hooks.
    assert logged["after_batch"].iloc[:8].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert logged["after_epoch"].dropna().to_dict() == {3: 0.0, 7: 1.0}
    # Validation sees the weights after the update; the sanity check at the start is no validation.
    validated = logged["val_loss"].dropna()
    assert validated.index.tolist() == [4, 8]
    trained.eval()
    for step, loss in validated.items():
        row = torch.from_numpy(run.weights[:][step])
        torch.nn.utils.vector_to_parameters(row, trained.parameters())
        with torch.no_grad():
            expected = torch.stack([trained.loss(batch) for batch in loader(2, 2)]).mean()
        np.testing.assert_allclose(loss, expected.item(), rtol=1e-6)


@pytest.mark.parametrize("index", [0, 1])
def test_one_of_several_optimizers_is_recorded(tmp_path, index):
    watched = module(Players)
    options = {"validate": False, "accumulate_grad_batches": 1, "gradient_clip_val": None}
    with Witness() as witness:
        fit(watched, **options)
    trained = module(Players)
    callback = RecorderCallback(tmp_path / "run", optimizer=index, save=SAVE)
    fit(trained, callback, **options)
    np.testing.assert_array_equal(weights_of(trained), weights_of(watched))
    chosen = {id(p) for p in (watched.first, watched.second)[index].parameters()}
    owner = {
        id(event["optimizer"]): event["optimizer"]
        for event in witness.events
        if chosen == event["weights"].keys()
    }
    (optimizer,) = owner.values()
    run = ps.open_run(tmp_path / "run")
    assert len(run.gradients) == (10, 20)[index]
    np.testing.assert_array_equal(run.gradients[:], witness.rows(watched, "gradients", optimizer))
    np.testing.assert_array_equal(run.updates[:], witness.updates(watched, optimizer))
    # The other player's weights have a gradient then, which this optimizer does not consume.
    other = run.parameters.names[2 - 2 * index]
    start, stop = run.parameters.interval(other)
    assert not run.gradients[:][:, start:stop].any()
    # The length of a manual optimization is not known, and losses stand where they were taken.
    assert json.loads((run.path / "run.json").read_text())["n_steps"] is None
    assert metrics(run)[f"loss{index}"].notna().sum() == len(run.gradients)


@pytest.mark.parametrize("index", [None, 2])
def test_several_optimizers_are_refused_without_a_choice(tmp_path, index):
    callback = RecorderCallback(tmp_path / "run", optimizer=index, save=SAVE)
    with pytest.raises(ValueError, match=r"has 2 \(0: SGD, 1: SGD\).*optimizer=0"):
        fit(
            module(Players), callback, validate=False, gradient_clip_val=None,
            accumulate_grad_batches=1,
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty:UserWarning")
def test_a_killed_training_goes_on_from_the_checkpoint_to_the_same_run(tmp_path):
    """Lightning does not restore the random state, so this training has none."""

    class Die(Callback):
        def on_train_batch_end(self, trainer, *ignored):
            if trainer.global_step == 7:
                raise KeyboardInterrupt

    class Freeze(Callback):
        """Keeps the run as a kill while the first checkpoint is written would leave it."""

        def on_save_checkpoint(self, *ignored):
            if not (tmp_path / "frozen").exists():
                shutil.copytree(tmp_path / "run", tmp_path / "frozen")

    whole = module(dropout=0.0)
    fit(whole, RecorderCallback(tmp_path / "whole", save=SAVE), max_epochs=3)

    def keep():
        return ModelCheckpoint(tmp_path / "checkpoints", save_top_k=-1, filename="{epoch}")

    callback = RecorderCallback(tmp_path / "run", save=SAVE)
    with pytest.raises(SystemExit):
        fit(module(dropout=0.0), Die(), callback, Freeze(), keep(), max_epochs=3)
    assert len(ps.open_run(tmp_path / "frozen").gradients) == 4
    run = ps.open_run(tmp_path / "run")
    assert (run.status, len(run.gradients)) == ("interrupted", 7)
    resumed = module(dropout=0.0)
    path = tmp_path / "checkpoints" / "epoch=0.ckpt"
    with Witness() as witness:
        callback = RecorderCallback(tmp_path / "run", save=SAVE)
        fit(resumed, callback, keep(), ckpt_path=path, max_epochs=3)
    assert len(witness.events) == 8
    run, expected = ps.open_run(tmp_path / "run"), ps.open_run(tmp_path / "whole")
    assert run.status == "complete"
    assert set(run.series_names) == set(expected.series_names)
    for name in expected.series_names:
        np.testing.assert_array_equal(run[name].steps, expected[name].steps, err_msg=name)
        np.testing.assert_array_equal(run[name][:], expected[name][:], err_msg=name)


def test_a_checkpoint_written_after_training_holds_the_state(tmp_path):
    callback = RecorderCallback(tmp_path / "run", save=SAVE)
    trainer = fit(module(), callback)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert content["callbacks"][callback.state_key]["step"] == 8


def test_a_checkpoint_of_an_unrecorded_training_begins_a_run_at_its_step(tmp_path):
    fit(module()).save_checkpoint(tmp_path / "one.ckpt")
    callback = RecorderCallback(tmp_path / "run", save=SAVE)
    fit(module(), callback, ckpt_path=tmp_path / "one.ckpt", max_epochs=3)
    assert ps.open_run(tmp_path / "run").gradients.steps.tolist() == [8, 9, 10, 11]


def test_one_that_several_optimizers_wrote_cannot_say_how_many_updates_were_whose(tmp_path):
    options = {"accumulate_grad_batches": 1, "gradient_clip_val": None, "validate": False}
    fit(module(Players), **options).save_checkpoint(tmp_path / "one.ckpt")
    callback = RecorderCallback(tmp_path / "run", optimizer=0, save=SAVE)
    with pytest.raises(RecordingError, match="30 updates were done before by 2 optimizers"):
        fit(module(Players), callback, ckpt_path=tmp_path / "one.ckpt", max_epochs=3, **options)


def test_an_error_ends_the_recording_as_interrupted(tmp_path):
    class Fail(Module):
        def training_step(self, batch, batch_idx):
            if self.global_step == 2:
                raise ArithmeticError("the loss is gone")
            return super().training_step(batch, batch_idx)

    callback = RecorderCallback(tmp_path / "run", save=SAVE)
    with pytest.raises(ArithmeticError):
        fit(module(Fail), callback)
    run = ps.open_run(tmp_path / "run")
    assert (run.status, len(run.gradients)) == ("interrupted", 2)
    assert callback.recorder is None


def test_a_second_training_into_the_same_directory_is_refused(tmp_path):
    fit(module(), RecorderCallback(tmp_path / "run", save=SAVE))
    with pytest.raises(RunError, match="a new run needs a directory of its own"):
        fit(module(), RecorderCallback(tmp_path / "run", save=SAVE))


def test_endless_trainings_have_no_known_length(tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, *ignored):
            trainer.should_stop = trainer.global_step == 2

    callback = RecorderCallback(tmp_path / "run", save={"norms": ps.every(1)})
    fit(module(), Stop(), callback, max_epochs=-1, accumulate_grad_batches=1)
    content = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (content["n_steps"], content["step"]) == (None, 2)
    assert math.isfinite(content["step"])


@pytest.mark.parametrize("strategy", [FSDPStrategy, DeepSpeedStrategy])
def test_strategies_that_take_the_parameters_away_are_refused(tmp_path, unchecked_types, strategy):
    class Sharded(SingleDeviceStrategy, strategy):
        def __init__(self):
            SingleDeviceStrategy.__init__(self)

    callback = RecorderCallback(tmp_path / "run", save=SAVE)
    trainer = type("T", (), {"strategy": Sharded.__new__(Sharded)})
    message = r"Sharded keeps them in flat partitions.*ModelParallelStrategy and fully_shard"
    with pytest.raises(RecordingError, match=message):
        callback.on_train_start(trainer, None)
