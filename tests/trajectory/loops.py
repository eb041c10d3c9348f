"""Small trainings that the recorder's tests share."""

import hashlib
import itertools
import json
import os
import signal
import threading
import time
import warnings
from pathlib import Path

import torch
from torch import nn

import phasescope as ps
from phasescope.datasets import ShuffledBatches
from phasescope.trajectory.checkpoint import common_checkpoint, take_snapshot, write_snapshot
from phasescope.trajectory.store import TrajectoryStore

N_STEPS = 40


class Net(nn.Module):
    """Dropout, batch normalisation and two linear layers: everything that has state."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.3)
        self.fc2 = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc2(self.drop(torch.relu(self.norm(self.fc1(x)))))


def setup(seed=0, lr=0.05, weight_decay=0.1):
    """Model, optimizer, scheduler and batches, all from one seed."""
    torch.manual_seed(seed)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 7, gamma=0.8)
    data = torch.Generator().manual_seed(seed)
    x = torch.randn(80, 6, generator=data)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    return model, optimizer, scheduler, ShuffledBatches(x, y, 8, seed=seed, n_epochs=4)


def step(model, optimizer, x, y):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def everything(n_steps=N_STEPS):
    """Every group, on schedules that do not coincide."""
    return {
        "gradients": ps.every(1),
        "unclipped_gradients": ps.every(7),
        "updates": ps.every(2),
        "decay": ps.every(3),
        "weights": ps.log_spaced(9) | ps.every(11),
        "moments": ps.every(5),
        "norms": ps.every(1),
        "component_norms": ps.every(2),
        "sketches": ps.every(3),
        "probes": ps.every(4),
    }


def recorded_training(
    directory, *, resume=False, stop=None, on_step=None, on_probe=lambda: None, **options
):
    """The training of `setup` with everything recorded; returns the model."""
    model, optimizer, scheduler, batches = setup()
    probe_input = torch.linspace(-1, 1, 12).reshape(2, 6)

    def logits(model):
        on_probe()
        return model(probe_input)

    recorder = ps.Recorder(
        directory,
        model,
        optimizer,
        save=everything(),
        n_steps=N_STEPS,
        checkpoint=ps.every(10),
        state={"scheduler": scheduler, "loader": batches},
        components=ps.components(model, "*.weight"),
        sketch=ps.CountSketch(16),
        probes={"logits": logits},
        config={"seed": 0},
        resume=resume,
        **options,
    )
    with warnings.catch_warnings(), recorder:
        if stop is not None:
            warnings.filterwarnings("ignore", message=f"n_steps={N_STEPS} was announced")
        for x, y in batches:
            loss = step(model, optimizer, x, y)
            scheduler.step()
            recorder.log(train_loss=loss)
            if recorder.step % 6 == 0:
                recorder.log(step=recorder.step, lr=optimizer.param_groups[0]["lr"])
            recorder.end_step()
            if on_step is not None:
                on_step(recorder.step)
            if recorder.step == stop:
                break
    return model


def fingerprint(directory):
    """A digest of every committed value of a run, group by group."""
    run = ps.open_run(Path(directory))
    digests = {}
    for name in run.series_names:
        series = run[name]
        content = series.steps.tobytes() + series[:].tobytes()
        digests[name] = (len(series), hashlib.sha256(content).hexdigest())
    return digests


def newest_checkpoint(folder):
    """Step and folder of the newest checkpoint of one process."""
    return common_checkpoint(folder, 1)


def save_checkpoint(folder, step, model, optimizer, state, extra, **process):
    """Write a checkpoint at once."""
    return write_snapshot(folder, step, take_snapshot(model, optimizer, state, extra, **process))


def death(moment):
    """Let this process kill itself without warning; returns what is called after every step.

    `moment` is ``("step", n)``, ``("before rename", n)`` or ``("after rename", n)``, counted in
    this process: every commit and every checkpoint ends in a rename.
    """
    kind, n = moment
    counter = itertools.count(1)
    replace = os.replace

    def die(*ignored):
        if next(counter) == n:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying_replace(source, target):
        if kind == "before rename":
            die()
        replace(source, target)
        if kind == "after rename":
            die()

    if kind == "step":
        return die
    os.replace = dying_replace
    return None


def killed_training(directory, moment):
    """`recorded_training`, begun or resumed, in a process that dies at a `moment`."""
    torch.set_num_threads(1)
    recorded_training(directory, resume=True, on_step=death(moment))


def announced_training(directory, started, proceed):
    """`recorded_training`, begun or resumed, that says when it has begun and then waits."""
    torch.set_num_threads(1)

    def announce(step):
        started.set()
        proceed.wait()

    recorded_training(directory, resume=True, on_step=announce)


def interruptible_training(directory, started, proceed, delay):
    """`recorded_training` in a process that gets a real SIGINT some time after its second step."""
    torch.set_num_threads(1)

    def announce(step):
        if step == 2:
            started.set()
            proceed.wait()
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(0.002)  # forty steps take longer than the longest delay

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        recorded_training(directory, resume=True, on_step=announce)
    except KeyboardInterrupt:
        os._exit(130)


def bare_run(directory, n_parameters):
    """An empty store in a directory that `open_run` accepts."""
    content = {
        "format": "phasescope-run",
        "schema_version": 1,
        "status": "recording",
        "config": {},
        "parameters": [{"name": "w", "shape": [n_parameters], "offset": 0}],
    }
    directory.mkdir(exist_ok=True)
    (directory / "run.json").write_text(json.dumps(content))
    return TrajectoryStore(directory / "trajectory.zarr")
