"""One level: train, resample at frozen weights, and count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxtyping import Float, Float64
from torch import Tensor

import phasescope as ps
from phasescope.datasets import load_images
from phasescope.experiments.runner import seeds_of
from phasescope.experiments.spectrum_controls.config import Config, Results
from phasescope.experiments.spectrum_controls.data import spoilt_data
from phasescope.experiments.spectrum_controls.training import build, frozen, test_accuracy, train

_FEWEST_STEPS = 4

Progress = Callable[[float, str], None]
Rows = Float[Tensor, "_ parameters"]


def run(config: Config, directory: Path, *, progress: Progress | None = None) -> Results:
    """Train the networks of a level as one batch, and count what their gradients span.

    Args:
        config: The level.
        directory: Not used: gradients are kept in memory, and a level that was broken off is
            made again.
        progress: Called with the share of the work done and what is being done.
    """
    tell = progress or (lambda share, what: None)
    tell(0.0, "data")
    images = load_images(config.dataset, "train")
    same_set = "mnist" if images.name == "mnist" else "digits"
    test = load_images(same_set, "test")
    data = [spoilt_data(config, images, test, seed) for seed in seeds_of(config)]
    networks = build(config, data[0].x.shape[1])
    start = frozen(config, networks, data)
    trained = train(config, networks, data, lambda s: tell(0.05 + 0.1 * s, "training"))
    accuracy = test_accuracy(networks, data)
    end = frozen(config, networks, data)
    members = []
    for i, seed in enumerate(seeds_of(config)):
        tell(0.15 + 0.85 * i / config.n_seeds, "counting")
        row: dict[str, Any] = {"seed": seed, "diverged": trained.diverged[i]}
        row["test_accuracy"] = accuracy[i]
        row["first_loss"] = _finite(trained.first_loss[i])
        row["last_loss"] = _finite(trained.last_loss[i])
        if not trained.diverged[i]:
            grads = trained.gradients[i]
            row |= _measured(config, seed, grads, start[i], end[i])
        members.append(row)
    numbers = {
        "dataset": images.name,
        "n_parameters": start.shape[2],
        "steps": trained.steps.tolist(),
        "members": members,
    }
    return Results(config, numbers)


def load(config: Config, directory: Path, numbers: dict[str, Any]) -> Results:
    """The results of a finished level."""
    return Results(config, numbers)


def _finite(loss: Tensor) -> float | None:
    return float(loss) if bool(loss.isfinite()) else None


def _measured(
    config: Config,
    seed: int,
    grads: Rows,
    start: Rows,
    end: Rows,
) -> dict[str, Any]:
    """The statistics of one training and of its frozen weights at both ends."""
    kept = grads.double().norm(dim=1) > 0
    norms = grads[kept].double().norm(dim=1)
    trained = grads[kept]
    return {
        "zero_gradients": int((~kept).sum()),
        "trained": statistics(trained) | {"flips": flip_count(trained, config.n_surrogates, seed)},
        "frozen_start": statistics(start, norms)
        | {"flips": flip_count(start, config.n_surrogates, seed)},
        "frozen_end": statistics(end, norms),
    }


def statistics(rows: Rows, norms: Float64[Tensor, " _"] | None = None) -> dict[str, float]:
    """Threshold count and participation ratio, raw and of normalised, centred steps.

    Rows of zero have no direction and are left out. Where fewer than four rows are left, or nothing
    but rounding is left of them after centring, count and ratio are 0.

    Args:
        rows: Gradients.
        norms: Of the training, for gradients at frozen weights: the raw statistics depend on how
            norms decay, and what this explains is of no interest. As many rows are used.
    """
    rows = _directed(rows)
    if norms is not None:
        rows = rows[: len(norms)]
    found: dict[str, float] = dict.fromkeys(
        ("count", "ratio", "normalised_count", "normalised_ratio"), 0.0
    )
    if len(rows) < _FEWEST_STEPS:
        return found
    gram = ps.gram(rows)
    scaled = gram
    if norms is not None:
        factors = norms[: len(rows)] / gram.K.diagonal().sqrt()
        K = gram.K * factors * factors[:, None]
        scaled = replace(gram, K=K, row_sums=gram.row_sums * factors)
    raw = ps.spectrum(scaled, time_vectors=False)
    found["count"] = float(ps.count_above(raw.S))
    found["ratio"] = ps.participation_ratio(raw.S)
    unit = ps.spectrum(gram, center="steps", normalize=True, time_vectors=False)
    if float(unit.S[0]) > unit.resolution:
        found["normalised_count"] = float(ps.count_above(unit.S))
        found["normalised_ratio"] = ps.participation_ratio(unit.S)
    return found


def flip_count(rows: Rows, n_surrogates: int, seed: int) -> int:
    """Components above sign-flipped copies: steps normalised, then centred, then flipped.

    The edge rule without deflation. The mean is subtracted before flipping: at frozen weights half
    of the energy lies along it, and would enter the copies as noise. With deflation to its fixed
    point the count runs into the number of steps (160 of 200 at the undisturbed training, 171 at
    its frozen weights, in the pilot) and no longer tells the two apart.
    """
    rows = _directed(rows)
    if len(rows) < _FEWEST_STEPS:
        return 0
    unit = rows / rows.norm(dim=1, keepdim=True)
    centred = ps.spectrum(ps.gram(unit), center="steps", time_vectors=False)
    if float(centred.S[0]) <= centred.resolution:
        return 0  # the steps do not differ
    test = ps.flip_rank_test(
        unit - unit.mean(0), n_surrogates=n_surrogates, max_deflations=0, seed=seed
    )
    return test.rank


def _directed(rows: Rows) -> Rows:
    """The rows that are not zero."""
    return rows[rows.double().norm(dim=1) > 0]
