import gzip
import hashlib
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from phasescope.datasets import (
    ImageSet,
    as_inputs,
    images,
    load_digits_images,
    load_images,
    load_mnist,
)
from phasescope.datasets.download import DataFile
from phasescope.datasets.images import parse_idx
from phasescope.errors import DataError


def idx(array: np.ndarray) -> bytes:
    """The array as an idx file of unsigned bytes."""
    header = bytes([0, 0, 8, array.ndim])
    return header + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


SMALL = {
    "train-images-idx3-ubyte": idx(np.arange(5 * 28 * 28).reshape(5, 28, 28) % 251),
    "train-labels-idx1-ubyte": idx(np.array([5, 0, 4, 1, 9])),
    "t10k-images-idx3-ubyte": idx(np.arange(2 * 28 * 28).reshape(2, 28, 28) % 241),
    "t10k-labels-idx1-ubyte": idx(np.array([7, 2])),
}


@pytest.fixture(autouse=True)
def small_mnist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Expect a MNIST of seven images; no mirrors, an empty cache and no PHASESCOPE_DATA."""

    def known(name: str) -> DataFile:
        content = SMALL[name]
        return DataFile(name, len(content), hashlib.sha256(content).hexdigest())

    files = {
        split: tuple(known(file.name) for file in pair)
        for split, pair in images.MNIST_FILES.items()
    }
    monkeypatch.setattr(images, "MNIST_FILES", files)
    monkeypatch.setattr(images, "MNIST_MIRRORS", ())
    monkeypatch.delenv("PHASESCOPE_DATA", raising=False)
    monkeypatch.setenv("PHASESCOPE_CACHE", str(tmp_path / "cache"))


def put(directory: Path, *, compressed: bool = True) -> Path:
    """Write the small MNIST into the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in SMALL.items():
        if compressed:
            (directory / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (directory / name).write_bytes(content)
    return directory


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 3, 4)])
def test_an_idx_file_gives_back_the_array_that_was_written(shape: tuple[int, ...]):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert torch.equal(parse_idx(idx(array), source="file"), torch.from_numpy(np.array(array)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "file is not an idx file: .* starts with nothing"),
        (b"\x00\x00\x08", "starts with 00 00 08"),
        (b"<html>", "not an idx file"),
        (gzip.compress(idx(np.zeros(3)), mtime=0), "still compressed with gzip"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x00", "unsigned bytes .* its code is 0x0d"),
        (idx(np.zeros((2, 3)))[:11], "cut off within its header: 2 axes need 12 bytes, .* has 11"),
        (idx(np.zeros((2, 3)))[:-1], r"18 bytes for its shape \(2, 3\), but it has 17: .*cut off"),
        (idx(np.zeros((2, 3))) + b"x", "has 19: it is too long"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "79,228,162,458,924,105,385,300,197,391 bytes"),
    ],
)
def test_what_is_not_an_idx_file_is_refused_with_the_reason(content: bytes, message: str):
    with pytest.raises(DataError, match=message):
        parse_idx(content, source="file")


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("folder", ["", "mnist", "MNIST/raw"])
def test_mnist_is_read_from_the_given_directory(tmp_path: Path, folder: str, compressed: bool):
    put(tmp_path / "given" / folder, compressed=compressed)
    train = load_mnist("train", directory=tmp_path / "given")
    test = load_mnist("test", directory=str(tmp_path / "given"))
    assert train.images.shape == (5, 28, 28)
    assert train.images.dtype == torch.uint8
    assert train.images[1, 2, 3] == (784 + 2 * 28 + 3) % 251
    assert train.labels.tolist() == [5, 0, 4, 1, 9]
    assert train.labels.dtype == torch.int64
    assert test.labels.tolist() == [7, 2]
    assert (train.name, train.n_classes) == ("mnist", 10)
    assert train.provenance == "MNIST from the given directory"


def test_mnist_is_searched_in_the_directory_the_variable_the_cache_and_the_mirrors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mirror = put(tmp_path / "mirror")
    monkeypatch.setattr(images, "MNIST_MIRRORS", (mirror.as_uri() + "/",))
    assert load_mnist("train").provenance == "MNIST downloaded from its official mirrors"
    assert sorted(path.name for path in (tmp_path / "cache" / "mnist").iterdir()) == sorted(
        f"{name}.gz" for name in SMALL
    )
    monkeypatch.setattr(images, "MNIST_MIRRORS", ())
    assert load_mnist("test").provenance == "MNIST from the cache"
    put(tmp_path / "data" / "mnist")
    monkeypatch.setenv("PHASESCOPE_DATA", str(tmp_path / "data"))
    assert load_mnist("train").provenance == "MNIST from PHASESCOPE_DATA"
    put(tmp_path / "given")
    given = load_mnist("train", directory=tmp_path / "given")
    assert given.provenance == "MNIST from the given directory"


def test_a_given_directory_must_hold_all_four_files(tmp_path: Path):
    put(tmp_path / "cache" / "mnist")  # not a reason to look elsewhere than was asked
    (put(tmp_path / "given") / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"given must hold the four MNIST files .* one is missing"):
        load_mnist("train", directory=tmp_path / "given")


def test_mnist_with_another_content_is_refused(tmp_path: Path):
    path = put(tmp_path, compressed=False) / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="must have the uncompressed SHA-256"):
        load_mnist("train", directory=tmp_path)


def test_without_permission_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(images, "MNIST_MIRRORS", (put(tmp_path / "mirror").as_uri() + "/",))
    with pytest.raises(DataError, match=r"(?s)no download allowed.*by hand.*set PHASESCOPE_DATA"):
        load_mnist("train", download=False)
    assert not (tmp_path / "cache").exists()


def test_a_failed_download_says_what_was_tried_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    nowhere = (tmp_path / "nowhere").as_uri() + "/"
    monkeypatch.setattr(images, "MNIST_MIRRORS", (nowhere,))
    monkeypatch.setenv("PHASESCOPE_DATA", str(tmp_path / "data"))
    with pytest.raises(DataError) as caught:
        load_mnist("train")
    message = str(caught.value)
    assert "not in PHASESCOPE_DATA, not cached, the download failed" in message
    assert f"{nowhere}train-images-idx3-ubyte.gz" in message
    assert f"Looked in {tmp_path / 'data'} and {tmp_path / 'cache'}." in message
    assert "t10k-labels-idx1-ubyte (plain or .gz) into a directory" in message


def test_the_digits_are_the_real_ones_in_a_repeatable_split():
    train, test = load_digits_images("train"), load_digits_images("test")
    assert train.images.shape == (1437, 8, 8)
    assert test.images.shape == (360, 8, 8)
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    expected = sorted(
        (int(label), *(round(value * 255 / 16) for value in image.ravel()))
        for image, label in zip(digits.images, digits.target, strict=True)
    )
    found = sorted(
        (int(label), *image.ravel().tolist())
        for part in (train, test)
        for image, label in zip(part.images.numpy(), part.labels.numpy(), strict=True)
    )
    assert found == expected
    assert torch.equal(load_digits_images("test").images, test.images)
    assert not torch.equal(load_digits_images("test", seed=1).images, test.images)


def test_the_digits_keep_their_seventeen_grey_values_from_0_to_255():
    values = load_digits_images("train").images.unique()
    assert len(values) == 17
    assert (values.min(), values.max()) == (0, 255)


def test_the_digits_are_standardised_by_their_training_split():
    train, test = load_digits_images("train"), load_digits_images("test")
    assert (train.mean, train.std) == (test.mean, test.std)
    pixels = train.images.numpy() / 255
    assert train.mean == pytest.approx(pixels.mean(), rel=1e-12)
    assert train.std == pytest.approx(pixels.std(), rel=1e-12)
    inputs = as_inputs(train).double()
    assert inputs.mean().item() == pytest.approx(0, abs=1e-6)
    assert inputs.std(correction=0).item() == pytest.approx(1, abs=1e-6)
    assert abs(as_inputs(test).mean().item()) > 1e-6


def image_set(*values: int) -> ImageSet:
    """One image of the given pixels."""
    return ImageSet(
        images=torch.tensor([[values]], dtype=torch.uint8),
        labels=torch.tensor([0]),
        name="made",
        n_classes=1,
        provenance="made up",
        mean=0.5,
        std=0.25,
    )


def test_inputs_are_float32_with_one_channel_and_standardised():
    inputs = as_inputs(image_set(0, 51, 255))
    assert inputs.shape == (1, 1, 1, 3)
    assert inputs.dtype == torch.float32
    torch.testing.assert_close(inputs.flatten(), torch.tensor([-2.0, -1.2, 2.0]))


def test_inputs_take_another_mean_and_standard_deviation():
    inputs = as_inputs(image_set(0, 51, 255), mean=0.0, std=1.0)
    torch.testing.assert_close(inputs.flatten(), torch.tensor([0.0, 0.2, 1.0]))


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan")])
def test_inputs_refuse_a_standard_deviation_that_is_not_positive(std: float):
    with pytest.raises(ValueError, match="std must be positive, but it is"):
        as_inputs(image_set(0, 1), std=std)


def test_auto_is_mnist_where_it_can_be_had(tmp_path: Path):
    put(tmp_path / "cache" / "mnist")
    assert load_images("auto", "test").provenance == "MNIST from the cache"


def test_auto_is_the_digits_elsewhere_and_says_why_in_one_line_without_paths(tmp_path: Path):
    found = load_images("auto", "train")
    assert found.name == "digits"
    assert torch.equal(found.images, load_digits_images("train").images)
    assert found.provenance == (
        "the 1,797 digits of 8 x 8 pixels that scikit-learn ships (MNIST cannot be had: "
        "PHASESCOPE_DATA is not set, not cached, the download failed)"
    )
    offline = load_images("auto", "train", download=False, seed=3)
    assert "no download allowed" in offline.provenance
    assert torch.equal(offline.images, load_digits_images("train", seed=3).images)


def test_auto_does_not_hide_a_missing_directory_or_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(DataError, match="must hold the four MNIST files"):
        load_images("auto", "train", directory=tmp_path)
    (put(tmp_path) / "t10k-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    monkeypatch.setenv("PHASESCOPE_DATA", str(tmp_path))
    with pytest.raises(DataError, match="cannot be read as gzip"):
        load_images("auto", "test")


def test_mnist_by_name_does_not_become_the_digits():
    with pytest.raises(DataError, match="MNIST cannot be had"):
        load_images("mnist", "train")


def test_digits_by_name_are_the_digits(tmp_path: Path):
    put(tmp_path / "cache" / "mnist")
    assert load_images("digits", "test").name == "digits"


def test_other_names_and_splits_are_refused():
    # As users call it: the suite's own check of the annotations would refuse the names first.
    def unchecked(function: Any) -> Any:
        return getattr(function, "__wrapped__", function)

    with pytest.raises(ValueError, match=r'"auto", "mnist" or "digits", but it is .cifar'):
        unchecked(load_images)(cast(Any, "cifar"), "train")
    for load in (load_mnist, load_digits_images):
        with pytest.raises(ValueError, match=r'"train" or "test", but it is .validation'):
            unchecked(load)(cast(Any, "validation"))


class TestOfficialFiles:
    @pytest.fixture(autouse=True)
    def small_mnist(self) -> None:
        """Expect the official files."""

    @pytest.mark.parametrize(("split", "n"), [("train", 60_000), ("test", 10_000)])
    def test_the_official_files_are_accepted(
        self, mnist_directory: Path, split: images.Split, n: int
    ):
        found = load_mnist(split, directory=mnist_directory)
        assert found.images.shape == (n, 28, 28)
        assert found.labels.unique().tolist() == list(range(10))

    def test_the_customary_mean_and_deviation_are_those_of_the_training_images(
        self, mnist_directory: Path
    ):
        train = load_mnist("train", directory=mnist_directory)
        pixels = train.images.double() / 255
        assert pixels.mean().item() == pytest.approx(train.mean, abs=5e-5)
        assert pixels.std().item() == pytest.approx(train.std, abs=5e-5)
        assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
