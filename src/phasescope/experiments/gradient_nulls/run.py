"""Train with every gradient recorded, resample at frozen weights, and measure."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import phasescope as ps
from phasescope.experiments.gradient_nulls.config import (
    DECIDING,
    PLACES,
    VARIANTS,
    Config,
    Results,
)
from phasescope.experiments.gradient_nulls.counting import counts
from phasescope.experiments.gradient_nulls.processes import make_process
from phasescope.experiments.gradient_nulls.questions import answers
from phasescope.experiments.gradient_nulls.series import (
    compare_series,
    leading_directions,
    overlap,
)
from phasescope.experiments.gradient_nulls.training import (
    gradients_at,
    other_order,
    record,
    rows_of,
)
from phasescope.experiments.settings import compact

Progress = Callable[[float, str], None]
_N_DRAWS = 10  # of frozen gradients


def run(config: Config, directory: Path, *, progress: Progress | None = None) -> Results:
    """Train with every gradient recorded, resample at frozen weights, compare, delete.

    A run that was interrupted starts anew: the training is the smaller part of it.

    Args:
        config: What to optimise and compare.
        directory: The run's directory.
        progress: Called with the share of the work done and what is being done.
    """
    tell = progress or (lambda share, what: None)
    scratch = directory / "trajectory"
    shutil.rmtree(scratch, ignore_errors=True)
    process = make_process(config)
    training = record(config, process, scratch, lambda share: tell(0.1 * share, "training"))
    tell(0.1, "Gram matrix of all steps")
    gram = ps.gram(training.recorded.gradients)
    X = rows_of(training.recorded.gradients, training.sample)
    numbers: dict[str, Any] = {
        "dataset": process.dataset,
        "n_parameters": gram.n_columns,
        "final_loss": training.final_loss,
        "all_steps": _all_steps(gram),
    }
    tell(0.2, "random signs")
    sampled, directions = ps.gram(X), leading_directions(X)
    nulls: dict[str, Any] = {"training": counts(X, seed=config.seed)}
    frozen, spectra = {}, {"training": _deciding_values(sampled)}
    for i, place in enumerate(PLACES):
        tell(0.3 + 0.15 * i, f"frozen weights, {place}")
        gradients = gradients_at(config, process, training, place, scratch)
        frozen[place] = ps.gram(gradients)
        first = torch.from_numpy(gradients[: len(X)].copy())
        spectra[place] = _deciding_values(ps.gram(first))
        nulls[place] = counts(first, seed=config.seed)
        nulls[place]["overlap"] = overlap(directions, leading_directions(first))
        for name, (center, unit) in VARIANTS.items():
            matched = ps.compare_with_frozen(
                sampled, frozen[place], center=center, normalize=unit, n_draws=_N_DRAWS
            )
            nulls[place][name]["matched_count"] = float(matched.null["count above 10%"].median())
        whole = ps.spectrum(frozen[place], center="steps", normalize=True, time_vectors=False)
        dimension = ps.effective_dimension(whole)
        nulls[place]["effective_dimension"] = dimension if math.isfinite(dimension) else None
    tell(0.75, "updates, weights, increments")
    other = other_order(config)
    flips = nulls["training"][DECIDING]["flip_count"]
    numbers["nulls"] = nulls
    numbers["series"] = compare_series(training, X, other, flip_count=flips, seed=config.seed)
    tell(0.85, "questions")
    found, drawn = answers(config, gram, X, training, frozen["middle"], other)
    if not config.keep_trajectory:
        shutil.rmtree(scratch)
    tell(1.0, "done")
    return Results(config, numbers | found | {"drawn": drawn | {"spectra": spectra}})


def load(config: Config, directory: Path, numbers: dict[str, Any]) -> Results:
    """The results of a finished run."""
    return Results(config, numbers)


def _all_steps(gram: ps.Gram) -> dict[str, Any]:
    """Counts of all steps beside those of their norms."""
    rows = {}
    for name in ("raw", DECIDING):
        center, unit = VARIANTS[name]
        spectrum = ps.spectrum(gram, center=center, normalize=unit, time_vectors=False)
        summary = ps.rank_summary(spectrum, (0.1,))
        rows[name] = {"count": summary.counts[0], "norm_null": summary.null_counts[0]}
    return rows


def _deciding_values(gram: ps.Gram) -> list[float]:
    """Singular values of the variant that decides, to four digits."""
    center, unit = VARIANTS[DECIDING]
    values = ps.spectrum(gram, center=center, normalize=unit, time_vectors=False).S
    return compact(values.tolist(), 4)
