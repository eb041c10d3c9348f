"""Counts of one matrix of steps in every variant, beside what norms and random signs give.

Letters: T steps (rows), P parameters (columns).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import phasescope as ps
from phasescope.experiments.gradient_nulls.config import DECIDING, VARIANTS

# The copies of the variant that decides give level .05, those of the others .1.
N_DECIDING = 19
N_SHOWN = 9


def counts(X: Float[Tensor, "T P"], *, seed: int, only_deciding: bool = False) -> dict[str, Any]:
    """For every variant: count above 10%, norm null, components above random signs, ranks.

    The count above random signs is the FlipPA count by the edge rule, without deflation: how many
    singular values exceed the largest of any copy in which every entry has a random sign. Where a
    mean over steps is subtracted, it is subtracted before the signs are drawn, so that it does not
    enter the copies as noise; and from the copies again. Of steps scaled to norm one it counts the
    components that hold more energy than a step by itself would make. Deflation is left out since
    minibatch noise has no floor to arrive at: round after round finds more, up to the number of
    steps, and a count that is all steps compares nothing.

    Args:
        X: Gradients (or updates, increments) as rows.
        seed: Of the signs.
        only_deciding: Signs are drawn for the variant that decides alone.
    """
    X = X[:, (X != 0).any(0)]  # columns of zeros change no product
    gram = ps.gram(X)
    spectra = {
        name: ps.spectrum(gram, center=center, normalize=unit, time_vectors=False)
        for name, (center, unit) in VARIANTS.items()
    }
    rows = {name: _ranks(spectrum) for name, spectrum in spectra.items()}
    for name, count in _flip_counts(X, spectra, seed, only_deciding):
        rows[name]["flip_count"] = count
    return rows


def _ranks(spectrum: ps.Spectrum) -> dict[str, Any]:
    summary = ps.rank_summary(spectrum, (0.1,))
    return {
        "count": summary.counts[0],
        "norm_null": summary.null_counts[0],
        "participation_ratio": summary.participation_ratio,
        "stable_rank": summary.stable_rank,
        "k90": summary.k90,
    }


def _flip_counts(
    X: Float[Tensor, "T P"], spectra: dict[str, ps.Spectrum], seed: int, only_deciding: bool
) -> Iterator[tuple[str, int]]:
    unit = X / X.norm(dim=1, keepdim=True)
    families = [(unit - unit.mean(0), N_DECIDING, (DECIDING,))]
    if not only_deciding:
        families.append((X, N_SHOWN, ("raw", "normalised")))
        families.append((X - X.mean(0), N_SHOWN, ("centred",)))
    for matrix, n, names in families:
        grams = iter(ps.flipped_grams(matrix, n, seed=seed))
        next(grams)  # the data, whose spectra are known
        largest = dict.fromkeys(names, 0.0)
        for copy in grams:
            for name in names:
                center, normalize = VARIANTS[name]
                scaled = normalize and center == "none"  # else the rows are scaled already
                found = ps.spectrum(copy, center=center, normalize=scaled, time_vectors=False)
                largest[name] = max(largest[name], float(found.S[0]))
        for name in names:
            edge = max(largest[name], spectra[name].resolution)
            yield name, int((spectra[name].S > edge).sum())
