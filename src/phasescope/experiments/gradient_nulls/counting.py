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


def counts(X: Float[Tensor, "T P"], *, seed: int, n_copies: int = N_COPIES) -> dict[str, Any]:
    """For every variant: count above 10%, norm null, components above random signs, ranks.

    The count above random signs is the FlipPA count by the edge rule, without deflation: how many
    singular values exceed the largest of any copy in which every entry has a random sign. The mean
    over steps is subtracted before the signs are drawn, so that it does not enter the copies as
    noise. All variants share the copies of the step-normalised, centred rows: their rows are scaled
    back to the recorded norms where steps are not normalised, and centred where steps are. Of
    normalised steps it counts the components that hold more energy than a step by itself would.

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
    largest = dict.fromkeys(VARIANTS, 0.0)
    unit_rows = X / norms[:, None].to(X)
    copies = ps.flipped_grams(unit_rows - unit_rows.mean(0), n_copies, seed=seed)
    next(copies)  # the data, whose spectra are known
    for copy in copies:
        for name, (center, unit) in VARIANTS.items():
            scaled = copy if unit else _scaled(copy, norms)
            S = ps.spectrum(scaled, center=center, time_vectors=False).S
            largest[name] = max(largest[name], float(S[0]))
    return {
        name: _ranks(spectrum)
        | {
            "edge": largest[name],
            "flip_count": int((max(largest[name], spectrum.resolution) < spectrum.S).sum()),
        }
        for name, spectrum in found.items()
    }


def _scaled(gram: ps.Gram, norms: Float64[Tensor, " T"]) -> ps.Gram:
    return replace(gram, K=gram.K * norms * norms[:, None], row_sums=gram.row_sums * norms)


def _ranks(spectrum: ps.Spectrum) -> dict[str, Any]:
    summary = ps.rank_summary(spectrum, (0.1,))
    return {
        "count": summary.counts[0],
        "norm_null": summary.null_counts[0],
        "participation_ratio": summary.participation_ratio,
        "stable_rank": summary.stable_rank,
        "k90": summary.k90,
    }
