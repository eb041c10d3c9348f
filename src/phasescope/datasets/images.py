"""Labelled grey images: MNIST, and the real handwritten digits that scikit-learn ships.

Axes: n images, height and width in pixels.
"""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from phasescope.datasets.download import (
    DataFile,
    cache_directory,
    data_roots,
    fetch,
    find_file,
    read_checked,
)
from phasescope.errors import DataError

Split = Literal["train", "test"]

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

MNIST_FILES: dict[Split, tuple[DataFile, DataFile]] = {
    "train": (
        DataFile(
            "train-images-idx3-ubyte",
            size=47_040_016,
            sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        DataFile(
            "train-labels-idx1-ubyte",
            size=60_008,
            sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
    ),
    "test": (
        DataFile(
            "t10k-images-idx3-ubyte",
            size=7_840_016,
            sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        DataFile(
            "t10k-labels-idx1-ubyte",
            size=10_008,
            sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
}

DIGITS_TEST_SIZE = 360  # of 1,797: one fifth, rounded up


@dataclass(frozen=True)
class ImageSet:
    """Labelled grey images of one split of a data set."""

    images: UInt8[Tensor, "n height width"]
    """Pixel values, 0 (background) to 255."""
    labels: Int64[Tensor, " n"]
    """Class of each image, from 0."""
    name: str
    """Short name of the data set, as `load_images` takes it."""
    n_classes: int
    """Number of classes."""
    provenance: str
    """Where the images come from, as one sentence."""
    mean: float
    """Mean of `images / 255` over the training split."""
    std: float
    """Standard deviation of `images / 255` over all pixels of the training split."""


def load_mnist(
    split: Split, *, directory: Path | str | None = None, download: bool = True
) -> ImageSet:
    """One split of MNIST: 60,000 training or 10,000 test images of 28 x 28 pixels, official order.

    The four official idx files are looked for in this order, plain or compressed (`.gz`):

    1. `directory`, if it is given; nothing else is tried then.
    2. The directory that the environment variable `PHASESCOPE_DATA` names.
    3. phasescope's cache (`PHASESCOPE_CACHE`, or the platform's cache directory).
    4. The official mirrors, which fills the cache (about 11 MB).

    In 1 to 3 the files may lie directly in the directory, in `mnist/` or in `MNIST/raw/`. Whatever
    the source, the uncompressed content must have the official SHA-256.

    Args:
        split: Which images.
        directory: Directory with the four files. If it is given, it must hold them.
        download: Whether the mirrors may be asked.

    Returns:
        The images with `mean` and `std` set to the customary .1307 and .3081.

    Raises:
        DataError: If the files cannot be had, or a file is not the official one.
        ValueError: If `split` is neither of the two.

    Example:
        >>> load_mnist("train", directory="elsewhere")
        Traceback (most recent call last):
        ...
        phasescope.errors.DataError: elsewhere must hold the four MNIST files (...

    References:
        LeCun, Bottou, Bengio & Haffner (1998), "Gradient-based learning applied to document
        recognition", Proceedings of the IEEE 86(11), section III.
    """
    _check_split(split)
    return _read_mnist(split, *_mnist_folder(directory, download))


def load_digits_images(split: Split, *, seed: int = 0) -> ImageSet:
    """One split of the 1,797 real handwritten digits of 8 x 8 pixels that scikit-learn ships.

    A random permutation drawn from `seed` puts 360 images into the test split and 1,437 into the
    training split. The original values 0..16 are counts of dark pixels in 4 x 4 cells; they are
    scaled to 0..255 (times 255/16, rounded), which keeps all 17 values apart.

    Much smaller and easier than MNIST: what holds here need not hold there.

    Args:
        split: Which images.
        seed: Seed of the split, the same for both splits.

    Returns:
        The images with the mean and standard deviation of their own training split.

    Raises:
        ValueError: If `split` is neither of the two.

    Example:
        >>> load_digits_images("test").images.shape
        torch.Size([360, 8, 8])

    References:
        Alpaydin & Kaynak (1998), "Optical Recognition of Handwritten Digits", UCI Machine Learning
        Repository, doi:10.24432/C50P49 (the test part of it).
    """
    _check_split(split)
    from sklearn.datasets import load_digits  # imports for a second

    digits: Any = load_digits()
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))
    labels = torch.from_numpy(digits.target.astype(np.int64))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    test, train = order[:DIGITS_TEST_SIZE], order[DIGITS_TEST_SIZE:]
    rows = train if split == "train" else test
    training_pixels = images[train].double() / 255
    return ImageSet(
        images=images[rows],
        labels=labels[rows],
        name="digits",
        n_classes=10,
        provenance="the 1,797 digits of 8 x 8 pixels that scikit-learn ships",
        mean=training_pixels.mean().item(),
        std=training_pixels.std(correction=0).item(),
    )


def load_images(
    name: Literal["auto", "mnist", "digits"],
    split: Split,
    *,
    directory: Path | str | None = None,
    download: bool = True,
    seed: int = 0,
) -> ImageSet:
    """One split of the named data set; "auto" is MNIST when it can be had, else the digits.

    With "auto", `provenance` says which set it became and why. Load the second split by the `name`
    of the first, so that both come from the same set whatever happens to the network in between.

    Files of MNIST that are there but damaged are an error, never a reason to take the digits.

    Args:
        name: Which data set.
        split: Which images.
        directory: Directory with the MNIST files, see `load_mnist`; if it is given, "auto" does
            not fall back on the digits either.
        download: Whether MNIST may be downloaded.
        seed: Seed of the digits' split, see `load_digits_images`.

    Returns:
        The images.

    Raises:
        DataError: If MNIST was asked for by name or by directory and cannot be had, or is damaged.
        ValueError: If the name or the split is not one of those listed.

    Example:
        >>> train = load_images("digits", "train")
        >>> test = load_images(train.name, "test")
        >>> len(train.images) + len(test.images)
        1797
    """
    if name == "digits":
        return load_digits_images(split, seed=seed)
    if name not in ("auto", "mnist"):
        raise ValueError(f'name must be "auto", "mnist" or "digits", but it is {name!r}.')
    _check_split(split)
    try:
        folder, found = _mnist_folder(directory, download)
    except DataError as error:
        if name == "mnist" or directory is not None:
            raise
        digits = load_digits_images(split, seed=seed)
        reason = str(error).splitlines()[0].rstrip(".")
        return replace(digits, provenance=f"{digits.provenance} ({reason})")
    return _read_mnist(split, folder, found)


def as_inputs(
    images: ImageSet, *, mean: float | None = None, std: float | None = None
) -> Float[Tensor, "n 1 height width"]:
    """Images as float32 network inputs with one channel: (pixel / 255 - mean) / std.

    By default mean and standard deviation are those of the training split (`ImageSet.mean` and
    `ImageSet.std`; MNIST: .1307 and .3081), for the test split too. `mean=0.0, std=1.0` gives
    pixels between 0 and 1.

    Args:
        images: The images.
        mean: Subtracted, in units of the full pixel range.
        std: Divided by, in the same units.

    Returns:
        The inputs, dimensionless.

    Raises:
        ValueError: If `std` is not positive.

    Example:
        >>> inputs = as_inputs(load_digits_images("train"))
        >>> inputs.shape, round(inputs.std().item(), 3)
        (torch.Size([1437, 1, 8, 8]), 1.0)
    """
    mean = images.mean if mean is None else mean
    std = images.std if std is None else std
    if not std > 0:
        raise ValueError(f"std must be positive, but it is {std}. Images of one grey have std 0.")
    return images.images.unsqueeze(1).float().div_(255).sub_(mean).div_(std)


def parse_idx(content: bytes, *, source: str) -> UInt8[Tensor, "..."]:
    """The array in an idx file of unsigned bytes, the format of the MNIST files.

    Layout: two zero bytes, a type code (8: unsigned byte), the number of axes, the length of each
    axis as a big-endian 32-bit integer, then the values, the last axis fastest.

    Args:
        content: The whole uncompressed file.
        source: Name of the file, for the messages.

    Returns:
        The values, copied.

    Raises:
        DataError: If the content is not exactly one such array.

    Example:
        >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), source="two values")
        tensor([7, 9], dtype=torch.uint8)
    """
    if content[:2] == b"\x1f\x8b":
        raise DataError(
            f"{source} is still compressed with gzip; an uncompressed idx file was due."
        )
    if len(content) < 4 or content[:2] != b"\x00\x00":
        raise DataError(
            f"{source} is not an idx file: it must start with two zero bytes, a type code and the "
            f"number of axes, but it starts with {content[:4].hex(' ') or 'nothing'}."
        )
    type_code, n_axes = content[2], content[3]
    if type_code != 8:
        raise DataError(
            f"{source} must hold unsigned bytes (idx type code 0x08), but its code is "
            f"0x{type_code:02x}."
        )
    start = 4 + 4 * n_axes
    if len(content) < start:
        raise DataError(
            f"{source} is cut off within its header: {n_axes} axes need {start} bytes, but it has "
            f"{len(content)}."
        )
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    due = start + math.prod(shape)
    if len(content) != due:
        raise DataError(
            f"{source} must have {due:,} bytes for its shape {tuple(shape)}, but it has "
            f"{len(content):,}: it is {'cut off' if len(content) < due else 'too long'}."
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).copy()).reshape(shape)


def _read_mnist(split: Split, folder: Path, found: str) -> ImageSet:
    arrays: list[Tensor] = []
    for file in MNIST_FILES[split]:
        path = find_file(file, folder)
        if path is None:
            raise DataError(f"{file.name} has disappeared from {folder}. Load again.")
        arrays.append(parse_idx(read_checked(path, file), source=str(path)))
    return ImageSet(
        images=arrays[0],
        labels=arrays[1].long(),
        name="mnist",
        n_classes=10,
        provenance=f"MNIST {found}",
        mean=0.1307,
        std=0.3081,
    )


def _mnist_folder(directory: Path | str | None, download: bool) -> tuple[Path, str]:
    """Folder that holds all four files, and how it was found.

    Paths stay out of that phrase and of the first line of the last two messages: both end up in
    the provenance, which is stored with results that other people read.
    """
    files = [file for pair in MNIST_FILES.values() for file in pair]
    names = ", ".join(file.name for file in files)
    if directory is not None:
        folder = _folder_with(files, Path(directory))
        if folder is None:
            raise DataError(
                f"{directory} must hold the four MNIST files ({names}, plain or .gz), directly, in "
                "mnist/ or in MNIST/raw/, but at least one is missing. Put them there, or leave "
                "out the directory to use the cache or a download."
            )
        return folder, "from the given directory"
    data, cache = os.environ.get("PHASESCOPE_DATA"), cache_directory()
    if data and (folder := _folder_with(files, Path(data))):
        return folder, "from PHASESCOPE_DATA"
    if folder := _folder_with(files, cache):
        return folder, "from the cache"
    absent = f"{'not in PHASESCOPE_DATA' if data else 'PHASESCOPE_DATA is not set'}, not cached"
    by_hand = (
        f"Looked in {' and '.join(map(str, data_roots()))}. To supply the files by hand, put "
        f"{names} (plain or .gz) into a directory and set PHASESCOPE_DATA to it."
    )
    if not download:
        raise DataError(f"MNIST cannot be had: {absent}, no download allowed.\n{by_hand}")
    try:
        return fetch(files, MNIST_MIRRORS, cache / "mnist"), "downloaded from its official mirrors"
    except DataError as error:
        raise DataError(
            f"MNIST cannot be had: {absent}, the download failed.\n{error}\n{by_hand}"
        ) from error


def _folder_with(files: list[DataFile], root: Path) -> Path | None:
    for folder in (root / "mnist", root / "MNIST" / "raw", root):
        if all(find_file(file, folder) is not None for file in files):
            return folder
    return None


def _check_split(split: str) -> None:
    if split not in ("train", "test"):
        raise ValueError(f'split must be "train" or "test", but it is {split!r}.')
