"""What is trained and how its data are spoilt, and what comes out of one level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

SOURCE = "G. Baker, SVD of a time series of gradient updates on MNIST (LessWrong), and its thread"
RUNTIME = "one core: about 20 s a level of ten seeds; all levels 40 minutes"
CLAIM_IDS = ("A22", "A23")
# The source names {1, 7} and {1, 7, 9}; the order of the others is ours.
CLASS_ORDER = (1, 7, 9, 4, 3, 8, 5, 0, 2, 6)


@dataclass(frozen=True)
class Config:
    """One level of one control, with several networks trained as one batch."""

    dataset: Literal["auto", "mnist", "digits"] = "auto"  # auto: MNIST when it can be had
    hidden: int = 32  # units of the hidden layer
    n_steps: int = 1000  # of every training, whatever the number of examples
    n_recorded: int = 200  # of them: one random step of each of as many equal strata
    batch_size: int = 60
    n_examples: int = 6000  # that a seed draws for itself
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.1  # of SGD divided by (1 - momentum): the long-run step per gradient
    momentum: float = 0.0  # of SGD
    beta2: float = 0.999  # of Adam
    init_gain: float = 1.0  # factor of all initial parameters
    subspace: int = 0  # dimensions of a random subspace that is trained; 0: all parameters
    noise_model: Literal["gaussian", "phase", "permuted"] = "gaussian"
    noise: float = 0.0  # share of noise in every image
    shuffle: Literal["pixels", "rows", "columns"] = "pixels"
    shuffle_scope: Literal["fixed", "fresh", "across"] = "fixed"
    shuffled: float = 0.0  # share of the pixels, rows or columns that is moved
    label_noise: float = 0.0  # share of the labels that is drawn anew
    n_classes: int = 10  # of the data, first ones of CLASS_ORDER; the network keeps its outputs
    side: int = 28  # pixels, a divisor of the side of the data set
    n_surrogates: int = 19  # sign-flipped copies: level .05
    n_seeds: int = 10  # networks trained together
    seed: int = 0  # of the batch: its networks have the seeds n_seeds * seed and following


@dataclass(frozen=True)
class Results:
    """One level: its configuration and the numbers of every seed, as plain JSON."""

    config: Config
    numbers: dict[str, Any]


def summary(result: Results) -> dict[str, float]:
    """The numbers of a level that a sweep shows: means over its seeds."""
    rows = [row for row in result.numbers["members"] if not row["diverged"]]
    if not rows:
        return {"diverged": float(len(result.numbers["members"]))}
    return {
        "FlipPA count": float(np.mean([row["trained"]["flips"] for row in rows])),
        "the same, frozen": float(np.mean([row["frozen_start"]["flips"] for row in rows])),
        "test accuracy": float(np.mean([row["test_accuracy"] for row in rows])),
    }
