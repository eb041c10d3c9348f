"""The data of one network: its own examples, spoilt as the level says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from phasescope.datasets import (
    ImageSet,
    downscale,
    draw_examples,
    gaussian_noise,
    mix_noise,
    noisy_labels,
    permuted_pixels,
    phase_scrambled,
    shuffle,
)
from phasescope.experiments.spectrum_controls.config import CLASS_ORDER, Config

N_TEST = 1000
_NOISES = {"gaussian": gaussian_noise, "phase": phase_scrambled, "permuted": permuted_pixels}


@dataclass(frozen=True, eq=False)
class Data:
    """What one network sees."""

    x: Float[Tensor, "n features"]
    """Training inputs."""
    y: Int64[Tensor, " n"]
    """Their labels."""
    test_x: Float[Tensor, "n_test features"]
    """Test inputs, spoilt in the same way."""
    test_y: Int64[Tensor, " n_test"]
    """Their true labels."""


def generator(seed: int, purpose: int) -> torch.Generator:
    """Random numbers of one network for one purpose, the same at every level."""
    word = np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word))


def spoilt_data(config: Config, train: ImageSet, test: ImageSet, seed: int) -> Data:
    """The examples of one network.

    Training and test images are spoilt together, so that a permutation that all images share is
    the same for both; labels are drawn anew in training only.
    """
    classes = CLASS_ORDER[: config.n_classes]
    draw = generator(seed, 0)
    rows = draw_examples(train.labels, config.n_examples, classes=classes, generator=draw)
    n_eligible = int(torch.isin(test.labels, torch.tensor(classes)).sum())
    test_rows = draw_examples(
        test.labels, min(N_TEST, n_eligible), classes=classes, generator=generator(seed, 1)
    )
    pixels = torch.cat([train.images[rows], test.images[test_rows]]).float() / 255
    x = ((_spoilt(config, pixels, seed) - train.mean) / train.std).flatten(1)
    y = train.labels[rows]
    if config.label_noise:
        # Of the classes that are there: a new class would be new data.
        ranks = torch.tensor([classes.index(label) for label in y.tolist()])
        noisy = noisy_labels(ranks, config.label_noise, len(classes), generator=generator(seed, 2))
        y = torch.tensor(classes)[noisy]
    return Data(x[: len(rows)], y, x[len(rows) :], test.labels[test_rows])


def _spoilt(
    config: Config, images: Float[Tensor, "n height width"], seed: int
) -> Float[Tensor, "n side side"]:
    """Smaller, then shuffled, then mixed with noise."""
    images = downscale(images, config.side)
    if config.shuffled:
        images = shuffle(
            images, config.shuffle, config.shuffle_scope, config.shuffled,
            generator=generator(seed, 3),
        )  # fmt: skip
    if config.noise:
        noise = _NOISES[config.noise_model](images, generator=generator(seed, 4))
        images = mix_noise(images, noise, config.noise)
    return images
