"""Every process has the callback, the first writes: also after a resume and of sharded models."""

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


LENGTHS = [("transformers", 8, 8, 3), ("lightning", 4, 8, 4)]
TRAININGS = {
    ("transformers", False): parallel.huggingface,
    ("transformers", True): parallel.huggingface_sharded,
    ("lightning", False): parallel.lightning,
    ("lightning", True): parallel.lightning_sharded,
}


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True], ids=["replicated", "sharded"])
@pytest.mark.parametrize(("library", "first", "n_steps", "resumed_at"), LENGTHS)
def test_two_processes_record_one_run_and_resume_it(
    tmp_path, library, first, n_steps, resumed_at, sharded
):
    pytest.importorskip(library)
    train = TRAININGS[library, sharded]
    for resume in (False, True):
        torch.multiprocessing.spawn(train, (free_port(), tmp_path, resume), nprocs=2)
        run = ps.open_run(tmp_path / "run")
        assert run.status == "complete"
        recorded = run["norms/gradients"] if sharded else run.gradients
        assert recorded.steps.tolist() == list(range(n_steps if resume else first))
        # What rank 0 consumed is the mean over both, so one process's gradient is the run's; of
        # sharded parameters the norms are those of the whole tensors.
        seen = np.load(tmp_path / "seen.npy")
        assert len(seen) == (n_steps - resumed_at if resume else first)
        np.testing.assert_allclose(recorded[:][-len(seen) :], seen, rtol=1e-6 if sharded else 0)
