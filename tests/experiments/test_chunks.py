"""Models in chunks: all of them, in order, each once, whatever interrupts."""

import pytest
import torch

from phasescope.experiments.chunks import in_chunks


def test_finished_chunks_are_read_and_an_interrupted_one_is_taken_up(tmp_path):
    calls, shares = [], []

    def train(models, folder):
        calls.append(models)
        state = folder / "state"
        if models == [2, 3] and not state.exists():
            state.write_text("half way")
            raise KeyboardInterrupt
        return {"a": torch.tensor(models), "b": torch.ones(len(models), 3)}

    with pytest.raises(KeyboardInterrupt):
        in_chunks(5, 2, tmp_path, train)
    found = in_chunks(5, 2, tmp_path, train, progress=shares.append)
    assert calls == [[0, 1], [2, 3], [2, 3], [4]]
    assert found["a"].tolist() == [0, 1, 2, 3, 4]
    assert found["b"].shape == (5, 3)
    assert shares == [0.4, 0.8, 1.0]
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    in_chunks(5, 2, tmp_path, train)
    assert len(calls) == 4


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(ValueError, match="there are 0 models and at_once is 2"):
        in_chunks(0, 2, tmp_path, lambda models, folder: {})
