"""Data that the experiments train on."""

from phasescope.datasets.batches import ShuffledBatches
from phasescope.datasets.images import (
    ImageSet,
    as_inputs,
    load_digits_images,
    load_images,
    load_mnist,
)

__all__ = [
    "ImageSet",
    "ShuffledBatches",
    "as_inputs",
    "load_digits_images",
    "load_images",
    "load_mnist",
]
