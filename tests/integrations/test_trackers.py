import json
import struct
import time

import numpy as np
import pytest
import torch

import phasescope as ps


def train(directory, sinks, n=12):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    save = {"norms/gradients": ps.every(1)}
    with ps.Recorder(directory, model, optimizer, save=save, sinks=sinks) as recorder:
        for step in range(n):
            optimizer.zero_grad()
            loss = model(torch.randn(8, 4)).square().mean()
            loss.backward()
            optimizer.step()
            recorder.log(train_loss=loss)
            if step % 4 == 0:
                recorder.log(now=1.5, step=recorder.step)
    return ps.open_run(directory)


def expected(run):
    """Per name, the steps and values that a tracker must show."""
    metrics = run.dataset("metrics").load().to_dataframe()
    series = {f"metrics/{name}": metrics[name].dropna() for name in metrics}
    norms = run.dataset("norms").load().gradients.to_pandas()
    series |= {f"norms/gradients/{name}": norms[name] for name in norms}
    series["norms/gradients"] = np.sqrt((norms.astype("float64") ** 2).sum(axis=1))
    return series


def test_tensorboard_shows_every_metric_and_norm_at_its_step(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from phasescope.integrations.tensorboard import TensorBoardSink

    run = train(tmp_path / "run", [TensorBoardSink(tmp_path / "tensorboard")])
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    series = expected(run)
    assert set(events.Tags()["scalars"]) == set(series)
    for name, values in series.items():
        shown = events.Scalars(name)
        assert [event.step for event in shown] == values.index.tolist()
        # TensorBoard keeps float32.
        np.testing.assert_array_equal([event.value for event in shown], np.float32(values))


def records(path):
    """The records of W&B's offline file: a log of LevelDB with a head of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = path.read_bytes()
    position, parts = 7, []
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:  # a block ends in padding where no head fits
            position += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)
        position += 7
        parts.append(data[position : position + size])
        position += size
        if kind in (1, 4):  # whole, or last part
            record = Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def history(path, step):
    """The axis of every metric of an offline run, and its points."""
    axes, logged = {}, {}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "metric":
            axes[record.metric.name] = record.metric.step_metric
        elif kind == "history":
            row = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            for name in row:
                logged.setdefault(name, []).append((row[step], row[name]))
    return axes, logged


@pytest.mark.usefixtures("wandb_offline")
def test_wandb_offline_has_every_metric_and_norm_over_a_step_of_its_own(tmp_path):
    from phasescope.integrations.wandb import STEP, WandbSink

    run = train(tmp_path / "run", [WandbSink(project="test", mode="offline")])
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    series = expected(run)
    # W&B's own process writes the file, and may still be at it on a busy machine.
    until = time.monotonic() + 60
    axes, logged = history(path, STEP)
    while not set(series) <= set(logged) and time.monotonic() < until:
        time.sleep(0.5)
        axes, logged = history(path, STEP)
    assert set(series) <= set(logged)
    for name, values in series.items():
        assert axes[name] == STEP
        assert logged[name] == list(zip(values.index, values, strict=True))


class FakeRun:
    """What `WandbSink` needs of a run."""

    def __init__(self):
        self.finished = False

    def define_metric(self, name, step_metric):
        assert step_metric == "phasescope/step"

    def log(self, values):
        self.values = values

    def finish(self):
        self.finished = True


def test_a_run_of_wandb_that_was_passed_is_left_open_to_its_owner():
    pytest.importorskip("wandb")
    from phasescope.integrations.wandb import WandbSink

    run = FakeRun()
    sink = WandbSink(run)
    sink.write(3, {"metrics/loss": 0.5})
    sink.close()
    assert run.values == {"metrics/loss": 0.5, "phasescope/step": 3}
    assert not run.finished
    with pytest.raises(ValueError, match=r"\['project'\] would have no effect"):
        WandbSink(run, project="mine")
