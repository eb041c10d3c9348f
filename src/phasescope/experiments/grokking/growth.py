"""Does every key frequency grow like a rank-one factorization, or like any logistic?

Axes: key frequency, kept step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import phasescope as ps
from phasescope.experiments.settings import compact

FEWEST = 16  # points of a series that can be judged
Growth = dict[str, Any]


def evenly_spaced(steps: Sequence[int]) -> list[int]:
    """Places of the evenly spaced steps; log-spaced ones lie between them.

    Args:
        steps: At least one.
    """
    gap = int(np.diff(steps).max()) if len(steps) > 1 else 1
    return [i for i, step in enumerate(steps) if step % gap == 0]


def key_growth(
    steps: Sequence[int],
    coefficients: Sequence[Sequence[float]],
    keys: Sequence[int],
    *,
    fitted: bool = True,
) -> Growth:
    """Coefficients of the key frequencies over training, and both laws fitted to each.

    The coefficient of a frequency is that of cos w(a + b − c) in the logits, at evenly spaced
    steps and until its largest value: what weight decay takes away later is no growth. Beside every
    comparison stands one under the null: the fitted logistic with the residuals that the law
    leaves, in their order.

    Args:
        steps: Steps at which the network was measured.
        coefficients: Of frequency 1, 2, …, at each step.
        keys: Key frequencies of the final network.
        fitted: Whether the laws are fitted, which takes about two seconds for each key.
    """
    even = evenly_spaced(steps)
    at = [steps[i] for i in even]
    curves = {key: [float(coefficients[i][key - 1]) for i in even] for key in keys}
    fits = [_fit(key, at, curve) for key, curve in curves.items()] if fitted else []
    return {
        "steps": at,
        "curves": {str(key): compact(curve, 5) for key, curve in curves.items()},
        "fits": [fit for fit in fits if fit is not None],
    }


def _fit(key: int, steps: Sequence[int], curve: Sequence[float]) -> dict[str, Any] | None:
    """Both laws on one frequency; None where there are too few points or nothing grows."""
    n = int(np.argmax(curve)) + 1
    if n < FEWEST or not curve[n - 1] > curve[0] or not np.isfinite(curve).all():
        return None
    times = torch.tensor(steps[:n], dtype=torch.float64)
    values = torch.tensor(curve[:n], dtype=torch.float64)
    found = ps.compare_growth(times, values)
    law, logistic = found.rank_one, found.logistic
    null = torch.from_numpy(logistic.values + (values.numpy() - law.values))
    return {
        "key": key,
        "aicc_difference": found.aicc_difference,
        "null_difference": ps.compare_growth(times, null).aicc_difference,
        "rmse_share": law.rmse / float(values.max() - values.min()),
        "logistic_rmse_share": logistic.rmse / float(values.max() - values.min()),
        "n_independent": found.n_independent,
        "decay_share": law.parameters["decay_share"],
        "p0_share": law.parameters["p0_share"],
        "n_points": n,
    }
