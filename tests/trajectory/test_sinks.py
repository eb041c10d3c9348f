import contextlib
import math
import shutil
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import phasescope as ps
from phasescope.errors import RecordingWarning, RunError
from phasescope.trajectory.sinks import FORWARDED, Sink
from trajectory import loops


class Collector:
    """Keeps what arrives, in order."""

    def __init__(self):
        self.received = []
        self.closed = 0

    def write(self, step, values):
        self.received.append((step, dict(values)))

    def close(self):
        self.closed += 1

    def series(self, name):
        pairs = [(step, values[name]) for step, values in self.received if name in values]
        steps, values = zip(*pairs, strict=True) if pairs else ((), ())
        return list(steps), np.array(values)


class Stop(Exception):
    """Ends a training early."""


def training(directory, sinks, *, stop=None, on_step=None, save=None, **options):
    """Thirty steps with two metrics, one of them at every fifth step, begun or resumed."""
    model, optimizer, _, batches = loops.setup()
    save = save or {"norms": ps.every(1), "gradients": ps.every(1)}
    arguments = {"checkpoint": ps.every(10), "state": {"loader": batches}, "resume": True}
    recorder = ps.Recorder(
        directory, model, optimizer, save=save, sinks=sinks, **(arguments | options)
    )
    with recorder, contextlib.suppress(StopIteration):
        for x, y in batches:
            recorder.log(train_loss=loops.step(model, optimizer, x, y))
            if recorder.step % 5 == 0:
                recorder.log(learning_rate=recorder.step / 100)
            recorder.end_step()
            if on_step is not None:
                on_step(recorder)
            if recorder.step == stop:
                raise Stop
            if recorder.step == 30:
                break
    return model


def assert_every_row_once(run, *collectors):
    """Together the collectors have every committed row, each in order and none twice."""
    expected = {}
    metrics = run.dataset("metrics").load()
    for name in ("train_loss", "learning_rate"):
        logged = ~np.isnan(metrics[name].values)
        expected[f"metrics/{name}"] = (metrics.step.values[logged], metrics[name].values[logged])
    for quantity in ("gradients", "updates", "decay", "weights"):
        norms = run[f"norms/{quantity}"]
        for i, tensor in enumerate(run.parameters.names):
            expected[f"norms/{quantity}/{tensor}"] = (norms.steps, norms[:][:, i])
    for name, (steps, values) in expected.items():
        parts = [collector.series(name) for collector in collectors]
        assert [step for part in parts for step in part[0]] == steps.tolist()
        np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), values)


def test_every_metric_and_norm_is_forwarded_once_in_order(tmp_path):
    sink = Collector()
    assert isinstance(sink, Sink)
    training(tmp_path / "run", [sink])
    run = ps.open_run(tmp_path / "run")
    assert len(run["norms/gradients"]) == 30
    assert_every_row_once(run, sink)
    assert sink.closed == 1
    assert not any(
        "gradients" in name for _, v in sink.received for name in v if "norms" not in name
    )


def test_the_norm_of_all_tensors_is_that_of_the_whole_vector(tmp_path):
    sink = Collector()
    training(tmp_path / "run", [sink])
    rows = ps.open_run(tmp_path / "run").gradients[:].astype(np.float64)
    steps, norms = sink.series("norms/gradients")
    assert steps == list(range(30))
    # The norms of the tensors are float32: relative rounding 2^-24 each, and of their squares'
    # sum, 2^-23 with what float32 loses in a tensor's own sum of up to 48 squares.
    np.testing.assert_allclose(norms, np.linalg.norm(rows, axis=1), rtol=50 * 2.0**-24)


def test_a_metric_that_was_not_logged_at_a_step_is_not_forwarded(tmp_path):
    sink = Collector()
    training(tmp_path / "run", [sink])
    assert sink.series("metrics/learning_rate")[0] == [4, 9, 14, 19, 24, 29]
    assert not any(math.isnan(value) for _, values in sink.received for value in values.values())


def test_sinks_are_called_from_the_writers_thread_after_the_commit(tmp_path):
    seen = []

    class Reader(Collector):
        def write(self, step, values):
            committed = ps.open_run(tmp_path / "run")[next(iter(values))]
            seen.append((threading.current_thread().name, step in committed.steps))

        def close(self):
            seen.append((threading.current_thread().name, True))

    training(tmp_path / "run", [Reader()], save={"norms/gradients": ps.every(1)})
    assert len(seen) == 61
    assert set(seen) == {("phasescope-writer", True)}


def test_a_sink_that_raises_is_left_out_and_the_recording_goes_on(tmp_path):
    class Broken(Collector):
        def write(self, step, values):
            super().write(step, values)
            if step == 12:
                raise OSError("no route to the tracker")

    broken, whole = Broken(), Collector()
    with pytest.warns(RecordingWarning) as caught:
        training(tmp_path / "run", [broken, whole])
    assert [str(w.message) for w in caught] == [
        "a sink gets no more values: Broken failed at step 12 (OSError: no route to the tracker). "
        "The recording itself goes on and is complete."
    ]
    run = ps.open_run(tmp_path / "run")
    assert run.status == "complete"
    assert_every_row_once(run, whole)
    assert broken.received[-1][0] == 12
    assert broken.closed == 1


def test_a_sink_that_cannot_be_closed_is_told_of_after_the_run_is_complete(tmp_path):
    class Open(Collector):
        def close(self):
            raise ValueError("still open")

    with pytest.warns(RecordingWarning, match=r"Open could not be closed \(ValueError: still open"):
        training(tmp_path / "run", [Open()])
    assert ps.open_run(tmp_path / "run").status == "complete"


def test_a_resumed_run_forwards_no_step_twice(tmp_path):
    first, second = Collector(), Collector()
    with pytest.raises(Stop):
        training(tmp_path / "run", [first], stop=17)
    assert first.series("metrics/train_loss")[0] == list(range(17))
    training(tmp_path / "run", [second])  # from the checkpoint of step 10
    assert second.series("metrics/train_loss")[0] == list(range(17, 30))
    assert_every_row_once(ps.open_run(tmp_path / "run"), first, second)


def test_what_a_killed_process_had_forwarded_is_not_forwarded_again(tmp_path):
    first, second = Collector(), Collector()

    def freeze(recorder):
        """Keep the directory as a kill would leave it, some rows after the checkpoint."""
        if recorder.step == 17:
            recorder.flush()
            shutil.copytree(tmp_path / "run", tmp_path / "killed")
            raise Stop

    with pytest.raises(Stop):
        training(tmp_path / "run", [first], on_step=freeze)
    # The last metric was still open, and was written only when the context manager closed.
    assert first.received.pop()[0] == 16
    training(tmp_path / "killed", [second])
    assert_every_row_once(ps.open_run(tmp_path / "killed"), first, second)


def test_sinks_leave_training_and_recording_as_they_are(tmp_path):
    plain = training(tmp_path / "plain", [])
    watched = training(tmp_path / "watched", [Collector()])
    assert all(map(torch.equal, plain.parameters(), watched.parameters()))
    assert loops.fingerprint(tmp_path / "plain") == loops.fingerprint(tmp_path / "watched")
    assert not (tmp_path / "plain" / FORWARDED).exists()


def test_norms_of_components_are_forwarded_without_a_total(tmp_path):
    sink = Collector()
    table = ps.ParameterTable.from_module(loops.Net())
    components = {"first": table.component("fc1.weight"), "last": table.component("fc2.weight")}
    save = {"component_norms/weights": ps.every(10)}
    training(tmp_path / "run", [sink], save=save, components=components)
    steps, values = sink.series("component_norms/weights/last")
    run = ps.open_run(tmp_path / "run")
    assert steps == [0, 10, 20]
    np.testing.assert_array_equal(values, run["component_norms/weights"][:][:, 1])
    assert sink.series("component_norms/weights")[0] == []


def test_a_norm_that_is_not_finite_is_forwarded(tmp_path):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sink = Collector()
    save = {"norms/gradients": ps.every(1)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)
        with ps.Recorder(tmp_path / "run", model, optimizer, save=save, sinks=[sink]):
            model.weight.grad, model.bias.grad = torch.full((1, 2), torch.inf), torch.ones(1)
            optimizer.step()
    ((step, values),) = sink.received
    assert step == 0
    assert values["norms/gradients"] == values["norms/gradients/weight"] == math.inf
    assert values["norms/gradients/bias"] == 1.0


def test_a_damaged_progress_file_says_what_to_do(tmp_path):
    with pytest.raises(Stop):
        training(tmp_path / "run", [Collector()], stop=12)
    (tmp_path / "run" / FORWARDED).write_text("{")
    with pytest.raises(RunError, match=r"forwarded\.json must say up to which step .* Delete it"):
        training(tmp_path / "run", [Collector()])
