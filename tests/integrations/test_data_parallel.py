"""Every process has the callback, the first writes; also after a resume."""

import socket

import numpy as np
import pytest
import torch

import phasescope as ps
from integrations import parallel


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "first", "n_steps", "resumed_at"),
    [("transformers", 8, 8, 3), ("lightning", 4, 8, 4)],
)
def test_two_processes_record_one_run_and_resume_it(tmp_path, library, first, n_steps, resumed_at):
    pytest.importorskip(library)
    train = {"transformers": parallel.huggingface, "lightning": parallel.lightning}[library]
    for resume in (False, True):
        torch.multiprocessing.spawn(train, (free_port(), tmp_path, resume), nprocs=2)
        run = ps.open_run(tmp_path / "run")
        assert run.status == "complete"
        assert run.gradients.steps.tolist() == list(range(n_steps if resume else first))
        # What rank 0 consumed is the mean over both, so one process's gradient is the run's.
        seen = np.load(tmp_path / "seen.npy")
        assert len(seen) == (n_steps - resumed_at if resume else first)
        np.testing.assert_array_equal(run.gradients[:][-len(seen) :], seen)
