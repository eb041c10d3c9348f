"""CIFAR-10 in its official layout.

Axes: n images, 3 channels (red, green, blue), height and width in pixels.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from phasescope.datasets.download import data_roots
from phasescope.datasets.images import Split
from phasescope.errors import DataError

FOLDER = "cifar-10-batches-py"
BATCHES: dict[Split, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}
# Over all pixels of the 50,000 training images, per channel.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
_SIDE = 32
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


@dataclass(frozen=True)
class ColourImages:
    """Labelled colour images of one split of a data set."""

    images: UInt8[Tensor, "n 3 height width"]
    """Pixel values, 0 to 255."""
    labels: Int64[Tensor, " n"]
    """Class of each image, from 0."""
    n_classes: int
    """Number of classes."""
    provenance: str
    """Where the images come from and how many there are, as one sentence."""


def load_cifar10(split: Split, *, directory: Path | str | None = None) -> ColourImages:
    """One split of CIFAR-10: up to 50,000 training or 10,000 test images of 32 x 32 pixels.

    The files of the official Python archive (`data_batch_1` ... `data_batch_5`, `test_batch`) are
    looked for in `directory`, else in the directory that `PHASESCOPE_DATA` names, else in
    phasescope's cache; directly there or in `cifar-10-batches-py/`. The batches that are there are
    taken, and `provenance` says how many images they hold: parts of the data set are good enough
    for many questions. Nothing is downloaded (the archive has 170 MB).

    The files are pickles; nothing but dicts, lists, numbers, strings, bytes and NumPy arrays is
    admitted from them.

    Args:
        split: Which images.
        directory: Directory with the files. If it is given, it must hold them.

    Returns:
        The images, in the order of the files.

    Raises:
        DataError: No file of the split was found, or one is not such a file.
        ValueError: If `split` is neither of the two.

    Example:
        >>> load_cifar10("train", directory="elsewhere")
        Traceback (most recent call last):
        ...
        phasescope.errors.DataError: CIFAR-10 is not there: elsewhere must hold ...

    References:
        Krizhevsky (2009), "Learning multiple layers of features from tiny images", chapter 3.
    """
    if split not in BATCHES:
        raise ValueError(f'split must be "train" or "test", but it is {split!r}.')
    files = _found(split, directory)
    parts = [_read(file) for file in files]
    images = torch.cat([images for images, _ in parts])
    labels = torch.cat([labels for _, labels in parts])
    return ColourImages(
        images,
        labels,
        10,
        f"CIFAR-10, {len(labels):,} images from {', '.join(f.name for f in files)}",
    )


def colour_inputs(images: ColourImages, *, size: int = _SIDE) -> Float[Tensor, "n 3 {size} {size}"]:
    """Images as float32 network inputs, each channel with mean 0 and variance 1 in training data.

    Smaller inputs are means over squares of pixels.

    Args:
        images: The images.
        size: Height and width, a divisor of those of the images.

    Returns:
        (pixel / 255 − mean) / std with the customary numbers of CIFAR-10, before any averaging.

    Raises:
        ValueError: If `size` does not divide the height and width.

    Example:
        >>> grey = torch.full((1, 3, 32, 32), 128, dtype=torch.uint8)
        >>> images = ColourImages(grey, torch.zeros(1, dtype=torch.int64), 10, "one grey image")
        >>> colour_inputs(images, size=16).shape
        torch.Size([1, 3, 16, 16])
    """
    height, width = images.images.shape[2:]
    if size < 1 or height % size or width % size:
        raise ValueError(
            f"size must divide the height and width of the images, {height} x {width} pixels, but "
            f"it is {size}."
        )
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD))
    x = (images.images.float().div_(255) - mean) / std
    return functional.avg_pool2d(x, (height // size, width // size)) if size < height else x


def _found(split: Split, directory: Path | str | None) -> list[Path]:
    roots = data_roots() if directory is None else [Path(directory)]
    for root in roots:
        for folder in (root / FOLDER, root):
            files = [folder / name for name in BATCHES[split] if (folder / name).is_file()]
            if files:
                return files
    raise DataError(
        f"CIFAR-10 is not there: {' or '.join(map(str, roots))} must hold {BATCHES[split][0]} of "
        f"the official Python archive, directly or in {FOLDER}/. Unpack cifar-10-python.tar.gz "
        "there, or set PHASESCOPE_DATA to where it is."
    )


class _Unpickler(pickle.Unpickler):
    """Reads arrays and plain values, and refuses everything that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise DataError(
                f"only plain values and NumPy arrays may be in it, but it names {module}.{name}"
            )
        return super().find_class(module, name)


def _read(file: Path) -> tuple[Tensor, Tensor]:
    try:
        with file.open("rb") as stream:
            content = _Unpickler(stream, encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises anything
        raise DataError(
            f"{file} is not a batch of CIFAR-10: {error}. Unpack the official archive again."
        ) from error
    if not isinstance(content, dict) or not {b"data", b"labels"} <= content.keys():
        raise DataError(
            f"{file} is not a batch of CIFAR-10: it must be a dict with b'data' and b'labels'. "
            "Unpack the official archive again."
        )
    data, labels = np.asarray(content[b"data"]), np.asarray(content[b"labels"])
    n_values = 3 * _SIDE**2
    fits = data.shape == (len(labels), n_values) and data.dtype == np.uint8
    if not fits or not len(labels) or labels.min() < 0 or labels.max() > 9:
        raise DataError(
            f"{file} is not a batch of CIFAR-10: it must hold bytes of shape (n, {n_values}) and n "
            f"labels from 0 to 9, but has {data.dtype} of shape {data.shape} and {len(labels)} "
            "labels. Unpack the official archive again."
        )
    images = torch.from_numpy(np.array(data)).view(-1, 3, _SIDE, _SIDE)
    return images, torch.from_numpy(labels.astype(np.int64))
