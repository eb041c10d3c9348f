"""What the source and its discussion asked about one training, each by a function.

Letters: T sampled steps, P parameters.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import phasescope as ps
from phasescope.experiments.gradient_nulls.config import SCHEMES, Config
from phasescope.experiments.gradient_nulls.training import ExamplePaths, Training
from phasescope.experiments.settings import compact

N_COMPONENTS = (1, 2, 5, 10, 20, 50, 100, 200, 400)
N_PROFILES = 8
_DROPPED = (100, 500, 1000)
_N_SAMPLINGS = 10
_N_WALKS = 99
_TURN_WINDOW = 0.05  # of the checkpoints, before and after


def answers(
    config: Config,
    gram: ps.Gram,
    X: Float[Tensor, "T P"],
    training: Training,
    frozen: ps.Gram,
    other: Float[Tensor, "T P"],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Numbers of every question, and what the figures of one run need beyond them.

    Args:
        config: Of the run.
        gram: Of the gradients of all steps.
        X: Gradients of the sampled steps.
        training: The training.
        frozen: Of gradients at the weights of the middle.
        other: Gradients at the sampled steps of a training in another data order.
    """
    spectrum = ps.spectrum(ps.gram(X), center="steps", normalize=True)
    k = min(N_PROFILES, int((spectrum.resolution < spectrum.S).sum()))
    profiles = ps.time_profiles(_with_steps(spectrum, training.sample), k, n_permutations=199)
    turns, paths = _paths(training.paths, config.seed)
    numbers = {
        "heldout": _heldout(config, gram, X, training, frozen, other),
        "dropped": _windows(gram, [(t, None) for t in _DROPPED if t <= config.n_steps // 2]),
        "windows": _windows(gram, _sliding(config)),
        "sampling": _sampling(config, gram),
        "mean": _mean(gram),
        "profiles": {
            name: {"observed": _list(s.observed), "z": _list(s.z), "p": _list(s.p)}
            for name in ("center", "spread", "early", "late", "autocorrelation")
            for s in (getattr(profiles, name),)
        },
        "mass": _mass(X, spectrum, k, training),
        "turns": turns,
    }
    if training.paths.labels is not None:
        right = training.paths.logits[-1].argmax(1) == training.paths.labels
        numbers["accuracy"] = float(right.double().mean())
    energies = compact(profiles.energy.tolist(), 4)
    return numbers, {"profiles": energies, "sample": training.sample, "paths": paths}


def _list(values: Tensor) -> list[float]:
    return [float(v) for v in values]


def _with_steps(spectrum: ps.Spectrum, steps: list[int]) -> ps.Spectrum:
    """The spectrum of rows in memory under the steps that they belong to."""
    return replace(spectrum, steps=torch.tensor(steps))


def _heldout(
    config: Config,
    gram: ps.Gram,
    X: Float[Tensor, "T P"],
    training: Training,
    frozen: ps.Gram,
    other: Float[Tensor, "T P"],
) -> list[dict[str, Any]]:
    """Residual norms of steps that were not in the sample, over their norms, against k.

    The sample is always that many steps; held out are other steps of the same stretches, a block
    of a fifth of the training that no sampled step is in, and the same steps of a training in
    another data order. Nulls: gradients at frozen weights explained by others there, and random
    subspaces of all parameters and of the effective number that their variances leave.
    """
    n, steps = len(X), gram.steps.numpy()
    generator = np.random.default_rng(config.seed)
    sample = np.array(training.sample)
    first, last = int(0.6 * config.n_steps), int(0.8 * config.n_steps)
    inside = (steps >= first) & (steps < last)
    outside = np.sort(generator.choice(steps[~inside], min(n, int((~inside).sum())), replace=False))
    rest = np.setdiff1d(steps, sample)
    both = ps.gram(torch.cat([X, other]))
    rows = {"in the sample": (gram, sample, sample)}
    if len(rest):
        rows["random steps"] = (gram, sample, np.sort(generator.permutation(rest)[:n]))
    rows["a block of a fifth"] = (gram, outside, steps[inside])
    rows["another data order"] = (both, np.arange(n), np.arange(n, 2 * n))
    rows["null: frozen weights"] = (frozen, np.arange(n), np.arange(n, 2 * n))
    ks = [k for k in N_COMPONENTS if k <= min(n, len(outside))]
    found = []
    for name, (source, seen, held) in rows.items():
        r = ps.heldout_residuals(source, seen, held, ks).sqrt().numpy()
        low, median, high = np.quantile(r, [0.1, 0.5, 0.9], axis=0).tolist()
        found.append({"curve": name, "k": ks, "low": low, "median": median, "high": high})
    variances = ps.parameter_variances(X, ps.spectrum(ps.gram(X), time_vectors=False)).double()
    effective = float(variances.sum() ** 2 / (variances**2).sum())
    for name, size in (("isotropic", X.shape[1]), ("diagonal", effective)):
        left = [max(0.0, 1 - k / size) ** 0.5 for k in ks]
        row = {"curve": f"null: {name}", "dimensions": size, "k": ks}
        found.append(row | {"low": left, "median": left, "high": left})
    return found


def _sliding(config: Config) -> list[tuple[int, int | None]]:
    """Windows as long as the sample, each half over the one before."""
    n = config.n_sampled
    return [(start, start + n) for start in range(0, config.n_steps - n + 1, max(1, n // 2))]


def _windows(gram: ps.Gram, bounds: list[tuple[int, int | None]]) -> list[dict[str, Any]]:
    """Count, its norm null and ranks of stretches of the training, raw and step-normalised."""
    rows = []
    for first, stop in bounds:
        row: dict[str, Any] = {"first": first, "stop": stop}
        for name, unit in (("raw", False), ("normalised, centred", True)):
            center = "steps" if unit else "none"
            part = ps.spectrum(
                gram, steps=slice(first, stop), center=center, normalize=unit, time_vectors=False
            )
            found = ps.rank_summary(part, (0.1,))
            row[name] = {
                "count": found.counts[0],
                "norm_null": found.null_counts[0],
                "participation_ratio": found.participation_ratio,
            }
        rows.append(row)
    return rows


def _sampling(config: Config, gram: ps.Gram) -> dict[str, Any]:
    """Count, norm null and participation ratio of samples by every scheme, a row for each draw."""
    rows: dict[str, Any] = {}
    for scheme in SCHEMES:
        draws = []
        for draw in range(1 if scheme == "even" else _N_SAMPLINGS):
            chosen = ps.sample_steps(
                gram, config.n_sampled, scheme, seed=_N_SAMPLINGS * config.seed + draw
            )
            part = ps.spectrum(ps.sampled_gram(gram, chosen), time_vectors=False)
            found = ps.rank_summary(part, (0.1,))
            draws.append([found.counts[0], found.null_counts[0], found.participation_ratio])
        rows[scheme] = draws
    return rows


def _mean(gram: ps.Gram) -> dict[str, float]:
    """Share of the energy along the mean over steps, and whether the first component is it."""
    K, norms = gram.K, gram.K.diagonal().sqrt()
    units = K / norms / norms[:, None]
    return {
        "energy_share": float(K.mean() / K.diagonal().mean()),
        "energy_share_normalised": float(units.mean()),
        "alignment": ps.mean_alignment(gram),
    }


def _mass(
    X: Float[Tensor, "T P"], spectrum: ps.Spectrum, k: int, training: Training
) -> dict[str, Any]:
    """Where the leading components live: share of every tensor, beside that of all steps."""
    table = training.recorded.parameters
    parts = {name: table.component(name) for name in table.names}
    vectors = ps.parameter_vectors(X, spectrum, k)
    return {
        "tensors": list(table.names),
        "components": ps.direction_mass(vectors, parts).tolist(),
        "all_steps": ps.direction_mass(X, parts).mean(0).tolist(),
        "parameters": [size / table.size for size in table.sizes],
    }


def _paths(paths: ExamplePaths, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Turns of the paths of logits and losses of the examples, and the paths themselves."""
    turns: dict[str, Any] = {}
    drawn: dict[str, Any] = {}
    if not paths.steps:
        return turns, drawn
    steps = torch.tensor(paths.steps)
    window = max(1, round(_TURN_WINDOW * len(steps)))
    for name, rows in (("logits", paths.logits), ("losses", paths.losses)):
        matrix = torch.stack([row.flatten() for row in rows]).double()
        K = ps.gram(matrix)
        gram = ps.Gram(K.K, steps, K.row_sums, K.n_columns, {}, K.eps)
        found = ps.turning_test(gram, window=window, n_draws=_N_WALKS, seed=seed)
        turns[name] = {
            "shares": found.shares.tolist(),
            "null_shares": found.null_shares.median(0).values.tolist(),
            "p": found.p,
            "turns": list(found.turns),
            "highest_z": float(found.z.nan_to_num(-1e9).max()),
            "threshold": found.threshold,
            "at": paths.steps[int(found.z.nan_to_num(-1e9).argmax())],
            "n_dimensions": min(found.n_dimensions, 1e9),
        }
        low, high = found.null_bends.quantile(torch.tensor([0.025, 0.975]).double(), dim=0)
        drawn[name] = {
            "steps": paths.steps,
            "points": _rounded(found.points),
            "walk": _rounded(found.null_points),
            "bends": _rounded(found.bends),
            "bends_low": _rounded(low),
            "bends_high": _rounded(high),
        }
    return turns, drawn


def _rounded(values: Tensor) -> Any:
    """Five digits; None where there is no number."""
    if values.ndim > 1:
        return [_rounded(row) for row in values]
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in values.tolist()]
