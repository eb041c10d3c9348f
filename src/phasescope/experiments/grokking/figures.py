"""The figures of the experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import phasescope as ps
from phasescope.experiments.grokking.config import Results, setting


def figures(results: Sequence[Results]) -> dict[str, Any]:
    """Losses and accuracies of every run whose recording is there."""
    found = {}
    for result in results:
        if result.detail is None:
            continue
        curves = result.detail.curves
        steps = curves.steps.numpy()
        found[f"{setting(result.config)}, seed {result.config.seed}"] = (
            ps.figures.metrics_over_time(
                {
                    "train loss (nats)": (steps, curves.train_loss.numpy()),
                    "test loss (nats)": (steps, curves.test_loss.numpy()),
                    "train accuracy (share)": (steps, curves.train_accuracy.numpy()),
                    "test accuracy (share)": (steps, curves.test_accuracy.numpy()),
                }
            )
        )
    return found
