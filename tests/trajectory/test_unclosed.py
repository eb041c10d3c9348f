"""Recordings that nobody closes."""

import gc
import json
import subprocess
import sys
import weakref

import pytest
import torch

import phasescope as ps
from phasescope.errors import RecordingWarning
from phasescope.trajectory import unclosed

LOOP = """
import os, sys, torch, phasescope as ps
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
save = {"gradients": ps.every(1), "weights": ps.every(100)}
recorder = ps.Recorder(sys.argv[1], model, optimizer, save=save).attach()
for step in range(5):
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    recorder.log(loss=step)
child = os.fork()
if child == 0:
    sys.exit(0)  # nothing of this is its business
os.waitpid(child, 0)
if len(sys.argv) > 2:
    raise RuntimeError("on purpose")
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="processes are forked")
def test_a_process_that_ends_writes_what_nobody_has_closed(tmp_path):
    command = [sys.executable, "-c", LOOP, str(tmp_path / "run"), "raise"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert "RuntimeError: on purpose" in ended.stderr
    assert ended.stderr.count("was not closed: its last rows have been written now") == 1
    run = ps.open_run(tmp_path / "run")
    assert (run.status, run.info["step"], len(run.gradients)) == ("interrupted", 5, 5)
    assert run.weights.steps.tolist() == [0, 5]
    assert run["metrics/loss"][:, 0].tolist() == [0, 1, 2, 3, 4]


def train_without_closing(directory):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probes = {"logits": lambda model: model(torch.ones(1, 2))}
    save = {"gradients": ps.every(1), "probes": ps.every(1)}
    recorder = ps.Recorder(directory, model, optimizer, save=save, probes=probes).attach()
    for step in range(5):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        recorder.log(loss=step)
    return weakref.ref(model)


def test_a_dropped_recording_frees_its_model_and_is_finished_by_the_next(tmp_path):
    model = train_without_closing(tmp_path / "run")
    gc.collect()
    assert model() is None
    with pytest.warns(RecordingWarning, match=r"run was not closed.*marked as interrupted"):
        train_without_closing(tmp_path / "other")
    run = ps.open_run(tmp_path / "run")
    assert (run.status, run.info["step"], len(run.gradients)) == ("interrupted", 5, 5)
    assert len(run["probes/logits"]) == len(run["metrics/loss"]) == 5
    with pytest.warns(RecordingWarning, match="other was not closed"):
        unclosed.finish_all()
    assert json.loads((tmp_path / "other" / "run.json").read_text())["status"] == "interrupted"


def test_a_closed_recording_is_forgotten(tmp_path):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with ps.Recorder(tmp_path / "run", model, optimizer, save={"norms": ps.every(1)}):
        pass
    unclosed.finish_all()
    assert ps.open_run(tmp_path / "run").status == "complete"
