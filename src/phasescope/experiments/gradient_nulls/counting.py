"""Counts of one matrix of steps in every variant, beside what norms and random signs give.

Letters: T steps (rows), P parameters (columns).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jaxtyping import Float, Float64
from torch import Tensor

import phasescope as ps
from phasescope.experiments.gradient_nulls.config import VARIANTS

N_COPIES = 19  # level .05
_ON_THE_EDGE = 1e-6


def counts(X: Float[Tensor, "T P"], *, seed: int, n_copies: int = N_COPIES) -> dict[str, Any]:
    """For every variant: count above 10%, norm null, components above random signs, ranks.

    The count above random signs is the FlipPA count by the edge rule, without deflation: how many
    singular values exceed the largest of any copy in which every entry has a random sign. The
    copies are of the step-normalised rows minus their mean over steps, so that a mean does not
    enter them as noise. All variants share them: rows are scaled to the norms that the variant's
    rows have (where the variant centres, to norms that are the rows' after centring, on average)
    and centred where the variant is. Of normalised steps it counts the components that hold more
    energy than a step by itself would.

    Deflation is left out: minibatch noise has no floor to arrive at, round after round finds more,
    up to the number of steps, and a count that is all steps compares nothing.

    Args:
        X: Gradients (or updates, increments) as rows.
        seed: Of the signs.
        n_copies: The level is 1 / (1 + n_copies).
    """
    X = X[:, (X != 0).any(0)]  # columns of zeros change no product
    gram, norms = ps.gram(X), X.double().norm(dim=1)
    found = {
        name: ps.spectrum(gram, center=center, normalize=unit, time_vectors=False)
        for name, (center, unit) in VARIANTS.items()
    }
    energies = {name: _row_energies(gram, *variant) for name, variant in VARIANTS.items()}
    largest = dict.fromkeys(VARIANTS, 0.0)
    unit = X / norms[:, None].to(X)
    copies = ps.flipped_grams(unit - unit.mean(0), n_copies, seed=seed)
    next(copies)  # the data, whose spectra are known
    for copy in copies:
        for name, (center, _) in VARIANTS.items():
            factors = (energies[name] / copy.K.diagonal()).sqrt()
            scaled = replace(copy, K=copy.K * factors * factors[:, None])
            S = ps.spectrum(scaled, center=center, time_vectors=False).S
            largest[name] = max(largest[name], float(S[0]))
    return {
        name: _ranks(spectrum)
        | {"edge": largest[name], "flip_count": _above(spectrum, largest[name])}
        for name, spectrum in found.items()
    }


def _above(spectrum: ps.Spectrum, edge: float) -> int:
    """Values above an edge; those on it up to the rounding of float32 products are not."""
    return int((max((1 + _ON_THE_EDGE) * edge, spectrum.resolution) < spectrum.S).sum())


def _row_energies(gram: ps.Gram, center: str, unit: bool) -> Float64[Tensor, " T"]:
    """Squared norms of independent rows that are those of the data after the same centring.

    Centring over T steps takes x to (1 - 2/T) x + mean(x) / T on average: this is solved for x.
    """
    K = gram.K
    if unit:
        K = K / K.diagonal().sqrt() / K.diagonal().sqrt()[:, None]
    if center == "none":
        return K.diagonal()
    T = len(K)
    wanted = (K - K.mean(0) - K.mean(1, keepdim=True) + K.mean()).diagonal()
    mean = wanted.mean() / (1 - 1 / T)
    return ((wanted - mean / T) / (1 - 2 / T)).clamp(min=0)


def _ranks(spectrum: ps.Spectrum) -> dict[str, Any]:
    summary = ps.rank_summary(spectrum, (0.1,))
    return {
        "count": summary.counts[0],
        "norm_null": summary.null_counts[0],
        "participation_ratio": summary.participation_ratio,
        "stable_rank": summary.stable_rank,
        "k90": summary.k90,
    }
