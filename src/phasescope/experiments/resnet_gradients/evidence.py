"""What one run says about each claim: numbers read off the shapes of its norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from phasescope.experiments.resnet_gradients.config import TIME_SCALES, Config, Results


def layers(result: Results, *kinds: str, invariant: bool = False) -> np.ndarray:
    """Rows of the layers of some kinds, or of all; only scale-invariant ones if asked for."""
    chosen = [
        (not kinds or kind in kinds) and (free or not invariant)
        for kind, free in zip(result.numbers["kinds"], result.numbers["invariant"], strict=True)
    ]
    return np.flatnonzero(chosen)


def shape(result: Results, name: str, which: str = "gradients") -> np.ndarray:
    """A number of every layer's curve, in units of log₂; NaN where it has none."""
    values = result.numbers[which][name]
    return np.array([math.nan if v is None else v for v in values], dtype=float)


def mean(result: Results, name: str, rows: np.ndarray, which: str = "gradients") -> float:
    """Its mean over layers."""
    return float(shape(result, name, which)[rows].mean())


def depth_correlation(result: Results, values: np.ndarray, rows: np.ndarray) -> float:
    """Spearman's correlation of a number with depth; NaN with fewer than five layers."""
    from scipy.stats import spearmanr

    depths = np.array(result.numbers["depths"])[rows]
    known = np.isfinite(values[rows])
    if known.sum() < 5 or len(np.unique(values[rows][known])) < 2:
        return math.nan
    found: Any = spearmanr(depths[known], values[rows][known])
    return float(found.statistic)


def thirds(result: Results, values: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """Mean of a number over the first and over the last third of layers by depth."""
    n = len(rows) // 3
    return float(values[rows[:n]].mean()), float(values[rows[-n:]].mean())


def speed_ratio(result: Results) -> float:
    """How much faster convolutions' norms fall during the first drop than they move after it.

    log₂ of the mean fall per block up to the bottom over the mean movement per block after it.
    """
    rows = layers(result, "conv")
    blocks = np.array(result.numbers["gradients"]["blocks"])[rows]
    bottom = blocks[:, : blocks.shape[1] // 2].argmin(1)
    during = shape(result, "drop")[rows] / (bottom + 1)
    after = shape(result, "movement")[rows]
    return math.log2(max(during.mean(), 1e-6) / max(after.mean(), 1e-6))


def noise_share(result: Results) -> np.ndarray:
    """Share of every layer's squared gradient that is noise of its batch, in the second half."""
    table = result.numbers["half batches"]
    noise, square = (np.array(table[name]) for name in ("noise", "squared_norm"))
    later = noise.shape[1] // 2
    return noise[:, later:].sum(1) / square[:, later:].sum(1)


def agreement(profiles: Sequence[np.ndarray]) -> list[float]:
    """Of each seed, Spearman's correlation of its profile with the mean of all others."""
    from scipy.stats import spearmanr

    table = np.array(profiles)
    total = table.sum(0)
    found: list[Any] = [spearmanr(row, (total - row) / (len(table) - 1)) for row in table]
    return [float(each.statistic) for each in found]


def log_spread(values: np.ndarray) -> float:
    """log₂ of the largest over the smallest."""
    return float(np.log2(values.max() / values.min()))


def long_enough(config: Config) -> bool:
    """Whether a training lasts the time scales of weight decay that its norms need."""
    return config.n_steps >= TIME_SCALES * config.time_scale
