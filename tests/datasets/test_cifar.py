import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from phasescope.datasets import ColourImages, colour_inputs, load_cifar10
from phasescope.errors import DataError


def batch(n: int, seed: int) -> dict:
    generator = np.random.default_rng(seed)
    return {
        b"data": generator.integers(0, 256, (n, 3072), dtype=np.uint8),
        b"labels": generator.integers(0, 10, n).tolist(),
    }


def put(folder: Path, name: str, content: object, protocol: int = 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))
    return folder


@pytest.mark.parametrize("protocol", [2, 4])
def test_the_batches_that_are_there_are_read_in_order(tmp_path: Path, protocol: int):
    first, third = batch(3, 0), batch(2, 1)
    folder = put(tmp_path / "cifar-10-batches-py", "data_batch_1", first, protocol)
    put(folder, "data_batch_3", third, protocol)
    for directory in (tmp_path, folder):
        found = load_cifar10("train", directory=directory)
        data = np.concatenate([first[b"data"], third[b"data"]])
        # the official order: all of red, then green, then blue, each row by row
        assert found.images[4, 2, 31, 7] == data[4, 2 * 1024 + 31 * 32 + 7]
        assert found.images.reshape(5, -1).numpy().tolist() == data.tolist()
        assert found.labels.tolist() == first[b"labels"] + third[b"labels"]
        assert found.provenance == "CIFAR-10, 5 images from data_batch_1, data_batch_3"


def test_the_directory_of_the_environment_is_used(tmp_path, monkeypatch: pytest.MonkeyPatch):
    put(tmp_path / "cifar-10-batches-py", "test_batch", batch(4, 0))
    monkeypatch.setenv("PHASESCOPE_DATA", str(tmp_path))
    assert len(load_cifar10("test").labels) == 4


@pytest.mark.usefixtures("unchecked_types")
def test_files_that_are_missing_or_others_are_refused(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PHASESCOPE_DATA", raising=False)
    monkeypatch.setenv("PHASESCOPE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match="must hold data_batch_1 of the official Python archive"):
        load_cifar10("train")
    with pytest.raises(ValueError, match=r'"train" or "test", but it is .all'):
        load_cifar10("all")  # pyright: ignore[reportArgumentType]
    good = batch(2, 0)
    for content, message in (
        ([1, 2], "must be a dict"),
        ({b"data": good[b"data"][:1], b"labels": good[b"labels"]}, r"uint8 of shape \(1, 3072\)"),
        ({b"data": good[b"data"], b"labels": [1, 10]}, "labels from 0 to 9"),
        ({b"data": os.getcwd, b"labels": []}, "it names posix.getcwd"),
    ):
        put(tmp_path, "test_batch", content)
        with pytest.raises(DataError, match=message):
            load_cifar10("test", directory=tmp_path)
    (tmp_path / "test_batch").write_bytes(b"\x80\x02}")
    with pytest.raises(DataError, match="is not a batch of CIFAR-10"):
        load_cifar10("test", directory=tmp_path)


def test_inputs_are_standardised_by_channel_and_averaged():
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    images = ColourImages(pixels, torch.zeros(2, dtype=torch.int64), 10, "noise")
    full, half = colour_inputs(images), colour_inputs(images, size=16)
    expected = (pixels[1, 2, 5, 6].double() / 255 - 0.4465) / 0.2616
    assert full[1, 2, 5, 6].item() == pytest.approx(expected.item(), abs=1e-6)
    assert half[0, 1, 3, 4].item() == pytest.approx(full[0, 1, 6:8, 8:10].mean().item(), abs=1e-6)
    with pytest.raises(ValueError, match="must divide"):
        colour_inputs(images, size=12)
