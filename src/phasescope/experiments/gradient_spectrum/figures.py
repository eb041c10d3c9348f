"""The figures of one or many runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

import phasescope as ps
from phasescope.experiments.gradient_spectrum.config import (
    THRESHOLDS,
    Results,
    count_in_samples,
    group_by_setting,
    setting_of,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


_FIRST_CURVE = "random steps held out"


def figures(results: Sequence[Results]) -> dict[str, Figure]:
    """The figures over all runs, and those of the first run that has its details.

    Args:
        results: Runs of one or more settings.
    """
    settings = group_by_setting(results)
    shown = next((r for r in results if r.detail is not None), results[0])
    runs = settings[setting_of(shown)]
    drawn = {
        "counts": _counts(settings, results),
        "residuals": ps.figures.residual_curve(_residual_curves(runs), [_random_subspace(runs[0])]),
        "dropped": _dropped(runs),
    }
    if shown.detail is None:
        return drawn
    detail = shown.detail
    return {
        "scree": ps.figures.scree(detail.spectrum, detail.null, THRESHOLDS),
        **drawn,
        "time_vectors": ps.figures.time_vectors(detail.spectrum, 6),
        "norms": ps.figures.norms_over_time(detail.norm_steps, detail.norms, detail.names),
        "training": ps.figures.training_curves(
            detail.loss_steps, detail.loss, detail.accuracy_steps, detail.accuracy
        ),
    }


def _counts(settings: dict[str, list[Results]], results: Sequence[Results]) -> Figure:
    rows = [
        ps.figures.SettingCounts(
            name,
            np.array([count_in_samples(r) for r in runs]),
            np.array([count_in_samples(r, null=True) for r in runs]),
        )
        for name, runs in settings.items()
    ]
    if all(r.numbers["dataset"] == "mnist" for r in results):
        return ps.figures.counts_by_setting(rows)
    return ps.figures.counts_by_setting(rows, published=None, published_center=None)


def _residual_curves(runs: Sequence[Results]) -> list[ps.figures.ResidualCurve]:
    """Every curve of the runs' residuals, averaged over the runs."""
    curves = []
    for label in dict.fromkeys(row["curve"] for row in runs[0].numbers["residuals"]):
        rows = [[row for row in r.numbers["residuals"] if row["curve"] == label] for r in runs]
        n_sampled = np.array([int(row["n_sampled"]) for row in rows[0]])
        low, median, high = (
            np.mean([[row[key] for row in run] for run in rows], axis=0)
            for key in ("low", "median", "high")
        )
        curves.append(ps.figures.ResidualCurve(label, n_sampled, median, low, high))
    return curves


def _random_subspace(run: Results) -> ps.figures.ResidualCurve:
    """What a random subspace of as many dimensions leaves: the root of 1 - m / P."""
    sizes = [r["n_sampled"] for r in run.numbers["residuals"] if r["curve"] == _FIRST_CURVE]
    n_sampled = np.array([int(m) for m in sizes])
    left = np.sqrt(1 - n_sampled / run.numbers["n_parameters"])
    return ps.figures.ResidualCurve("random subspace", n_sampled, left, left, left)


def _dropped(runs: Sequence[Results]) -> Figure:
    raw = [r.numbers["dropped"] for r in runs]
    column = THRESHOLDS.index(0.1)
    counts, nulls = (
        np.array([[row[key][column] for row in run] for run in raw])
        for key in ("counts", "null_counts")
    )
    first = np.array([row["first_step"] for row in raw[0]])
    return ps.figures.counts_against_dropped_steps(first, counts, nulls)
