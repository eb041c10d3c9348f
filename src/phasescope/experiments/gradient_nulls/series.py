"""Gradients, updates, weights and increments of the same steps: what each spectrum says.

Letters: T sampled steps, P parameters, k directions.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from jaxtyping import Float, Float32
from torch import Tensor

import phasescope as ps
from phasescope.analysis.spectrum import Center
from phasescope.experiments.gradient_nulls.config import DECIDING
from phasescope.experiments.gradient_nulls.counting import counts
from phasescope.experiments.gradient_nulls.training import Training, rows_of

N_DIRECTIONS = 10  # of the overlaps
_N_WALKS = 20
_N_COPIES = 9  # level .1
_CENTERS: dict[str, Center] = {"raw": "none", "centred": "steps"}


def compare_series(
    training: Training,
    X: Float[Tensor, "T P"],
    other: Float[Tensor, "T P"],
    *,
    flip_count: int,
    seed: int,
) -> dict[str, Any]:
    """Counts, ranks and leading directions of every series, each beside its own null.

    * gradients, updates: each sampled step by itself; null: norms, random signs.
    * increments: what the weights do from one sampled step to the next; the same nulls.
    * weights: minus the initial ones; null: random walks of updates with the recorded norms, in as
      many dimensions as the updates effectively have. Centred they are what the weights themselves
      are centred; raw weights are a row of their own.

    Overlaps are those of the 10 leading parameter directions, centred over steps: pairs of series,
    and what they can reach (two halves of the same gradients, every other step; another data order
    from the same initial weights) and would be by chance (10 / P).

    Args:
        training: The recorded training.
        X: Its gradients at the sampled steps.
        other: Gradients of a training in another data order.
        flip_count: Components of the gradients above random signs.
        seed: Of signs and walks.
    """
    recorded, sample = training.recorded, training.sample
    updates = rows_of(recorded.updates, sample)
    weights = rows_of(recorded.weights, sample)
    initial = rows_of(recorded.weights, [0])
    path = weights - initial
    matrices = {
        "gradients": X,
        "updates": updates,
        "increments": weights.diff(dim=0),
        "weights": path,
        "weights, initial not subtracted": weights,
    }
    rows: dict[str, Any] = {}
    spectra = {}
    for name, A in matrices.items():
        gram = ps.gram(A)
        spectra[name] = ps.spectrum(gram, center="steps")
        raw = ps.spectrum(gram, time_vectors=False)
        rows[name] = {"raw": _ranks(raw), "centred": _ranks(spectra[name])}
        if name == "gradients" or (name == "updates" and _parallel(A, X)):
            rows[name]["flip_count"] = flip_count  # rows of norm one are the same up to signs
        elif name in ("updates", "increments"):
            found = counts(A, seed=seed, n_copies=_N_COPIES)[DECIDING]
            rows[name]["flip_count"] = found["flip_count"]
    rows["weights"]["walk"] = _walks(training, updates, seed)
    return {"rows": rows, "overlaps": _overlaps(matrices, spectra, other)}


def _parallel(A: Float[Tensor, "T P"], B: Float[Tensor, "T P"]) -> bool:
    """Whether every row of one matrix is a multiple of that of the other, up to rounding."""
    cosines = torch.nn.functional.cosine_similarity(A.double(), B.double(), dim=1)
    return bool((cosines.abs() > 1 - 1e-6).all())


def _ranks(spectrum: ps.Spectrum) -> dict[str, Any]:
    found = ps.rank_summary(spectrum, (0.1,))
    return {
        "count": found.counts[0],
        "norm_null": found.null_counts[0],
        "participation_ratio": found.participation_ratio,
        "k90": found.k90,
    }


def _walks(training: Training, updates: Float[Tensor, "T P"], seed: int) -> dict[str, Any]:
    """Counts and participation ratios of walks with the norms of all updates."""
    norms = torch.from_numpy(training.recorded["norms/updates"][:]).double().square().sum(1).sqrt()
    units = ps.spectrum(ps.gram(updates), center="steps", normalize=True, time_vectors=False)
    dimension = ps.effective_dimension(units)
    found: dict[str, Any] = {"effective_dimension": min(dimension, 1e9)}
    for kind, center in _CENTERS.items():
        null = ps.walk_null(
            norms,
            torch.tensor(training.sample),
            center=center,
            n_dimensions=round(min(dimension, 1e9)),
            n_draws=_N_WALKS,
            seed=seed,
        )
        found[kind] = {
            "count": _median([ps.count_above(S) for S in null.draws]),
            "participation_ratio": _median([ps.participation_ratio(S) for S in null.draws]),
        }
    return found


def _median(values: list[Any]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).median())


def _overlaps(
    matrices: dict[str, Tensor], spectra: dict[str, ps.Spectrum], other: Float[Tensor, "T P"]
) -> dict[str, float]:
    names = ("gradients", "updates", "increments", "weights")
    X = matrices["gradients"]
    parts = {"half": X[::2], "other half": X[1::2], "another order": other}
    found = {name: (matrices[name], spectra[name]) for name in names} | {
        name: (A, ps.spectrum(ps.gram(A), center="steps")) for name, A in parts.items()
    }
    resolved = [int((spectrum.resolution < spectrum.S).sum()) for _, spectrum in found.values()]
    k = min(N_DIRECTIONS, *resolved)
    bases = {name: ps.parameter_vectors(A, spectrum, k) for name, (A, spectrum) in found.items()}
    pairs = {
        f"{a} and {b}": overlap(bases[a], bases[b]) for a, b in itertools.combinations(names, 2)
    }
    pairs["two halves of the gradients"] = overlap(bases["half"], bases["other half"])
    pairs["gradients in another data order"] = overlap(bases["gradients"], bases["another order"])
    pairs["random directions"] = k / X.shape[1]
    return pairs


def leading_directions(A: Float[Tensor, "T P"]) -> Float32[Tensor, "k P"]:
    """The 10 leading parameter directions of the rows, centred over steps; fewer if unresolved."""
    spectrum = ps.spectrum(ps.gram(A), center="steps")
    k = min(N_DIRECTIONS, int((spectrum.resolution < spectrum.S).sum()))
    return ps.parameter_vectors(A, spectrum, k)


def overlap(a: Float32[Tensor, "k P"], b: Float32[Tensor, "l P"]) -> float:
    """Mean squared cosine of the directions of the smaller set with the span of the other."""
    return float((a.double() @ b.double().T).square().sum() / min(len(a), len(b)))
