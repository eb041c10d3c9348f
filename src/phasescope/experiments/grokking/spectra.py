"""Spectra of the weights and gradients of a run, beside their nulls, and what they are made of.

Letters: T kept steps, P parameters, k components, n places of the task's group.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

import phasescope as ps
from phasescope.analysis.columns import StepMatrix
from phasescope.analysis.grokking import FourierBasis, fourier_basis, frequency_power, gini
from phasescope.analysis.spectrum import Center
from phasescope.datasets import Coordinates
from phasescope.experiments.grokking.config import Config
from phasescope.experiments.grokking.logits import WINDOW, logit_path
from phasescope.experiments.grokking.rankings import rankings
from phasescope.experiments.grokking.subtraction import subtractions
from phasescope.experiments.grokking.training import network_at, task_of
from phasescope.models import PairTransformer

N_COMPONENTS = 5  # the source's count, and how many components are looked at one by one
N_PROFILES = 6  # of gradients
FEWEST_STEPS = 2 * WINDOW + 3  # what turns of a path need
_N_DRAWS = 99  # of walks and of random directions
_DEFLATIONS = 3  # rounds of 20 Gram matrices; what is strong is found in the first ones
_MASK = 6.0  # squared norm of the 3 × 3 causal mask that a state dict has beside the weights
_THRESHOLD = 0.1
_CENTERS: dict[str, Center] = {"raw": "none", "centred": "steps"}


def spectra(
    config: Config,
    run: ps.Run,
    events: Mapping[str, int | None],
    keys: Sequence[int],
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Any]:
    """What the trajectory of weights and gradients says, and what its parts do in the network.

    Nothing of it is held in memory but Gram matrices and a few directions: weights are read from
    the run in blocks.

    Args:
        config: The run's configuration, with `spectra_every`.
        run: Its recording.
        events: Steps of ``"memorised"``, ``"grokked"``, ``"circuit formation"``, ``"clean-up"``;
            None for what did not happen.
        keys: Key frequencies of the final network.
        progress: Called with the share that is done.
    """
    task, _ = task_of(config)
    coordinates = task.natural
    steps = spectrum_steps(config, run)
    weights = run["weights"]
    path = ps.gram(weights, dtype=torch.float64)
    found: dict[str, Any] = {"n_steps": len(steps), "n_parameters": weights.shape[1]}
    found["weights"] = weight_counts(path, steps)
    found["gradients"] = gradient_counts(run["gradients"], seed=config.seed)
    progress(0.3)
    spectrums = {
        name: ps.spectrum(path, center=center, steps=steps) for name, center in _CENTERS.items()
    }
    vectors = {
        name: ps.parameter_vectors(weights, spectrum, min(2 * N_COMPONENTS, _resolved(spectrum)))
        for name, spectrum in spectrums.items()
    }
    found["components"] = {
        name: component_sparsity(run.parameters, V[:N_COMPONENTS], coordinates, keys)
        for name, V in vectors.items()
    }
    found["random_directions"] = random_sparsity(coordinates, config.d_model, keys)
    moved = moving_times(spectrums["centred"], N_COMPONENTS)
    found["components"]["centred"]["moving_at"] = moved
    happened = [float(step) for step in (events.get("memorised"), events.get("grokked")) if step]
    found["weight_events"] = _beside_events(moved, happened, config)
    detected = found["gradients"]["flip_count"]
    found["profiles"] = gradient_profiles(run["gradients"], detected, happened, config)
    progress(0.4)
    found["subtraction"] = subtractions(config, run, vectors, events)
    progress(0.5)
    boundaries = [events.get("circuit formation"), events.get("clean-up")]
    found["logits"] = logit_path(config, run, steps, boundaries, keys)
    found["matrices"] = matrix_ranks(network_at(config, run, 0), network_at(config, run, -1))
    progress(0.7)
    found["rankings"] = rankings(config, run, vectors["centred"], spectrums["centred"].S)
    return found


def check_enough_steps(config: Config) -> None:
    """Refuse a run that would keep too few steps for its spectra, before it is trained.

    Args:
        config: What is to be trained.
    """
    if config.spectra_every and config.n_seeds > 1:
        raise ValueError(
            f"spectra need a recorded run of one seed, but n_seeds={config.n_seeds} trains a batch "
            "that leaves numbers only. Run the seeds one by one (--seeds), or set spectra_every=0."
        )
    n_kept = 1 + config.n_steps // config.spectra_every if config.spectra_every else FEWEST_STEPS
    if n_kept < FEWEST_STEPS:
        raise ValueError(
            f"spectra need at least {FEWEST_STEPS} kept steps, but spectra_every="
            f"{config.spectra_every} keeps {n_kept} of {config.n_steps}. Lower spectra_every, or "
            "set it to 0 for none."
        )


def spectrum_steps(config: Config, run: ps.Run) -> list[int]:
    """The evenly spaced steps whose weights and gradients were kept for the spectra."""
    return [s for s in run["weights"].steps.tolist() if s % config.spectra_every == 0]


def weight_counts(path: ps.Gram, steps: Sequence[int]) -> dict[str, Any]:
    """Singular values of the weights above a tenth of the largest, beside walks of their own steps.

    Raw as in the source, whose rows contained the constant causal mask, and centred.

    Args:
        path: Gram matrix of the weights, in float64.
        steps: The steps that count.
    """
    found = {}
    for name, center in _CENTERS.items():
        constant = _MASK if center == "none" else 0.0
        whole = dataclasses.replace(path, K=path.K + constant)
        spectrum = ps.spectrum(whole, center=center, steps=list(steps), time_vectors=False)
        null = ps.path_walk_null(path, center=center, steps=list(steps), n_draws=_N_DRAWS)
        counts = sorted(ps.count_above(S, _THRESHOLD) for S in null.draws)
        shares = spectrum.S.square() / spectrum.S.square().sum()
        p = ps.path_p_values(ps.spectrum(path, center=center, steps=list(steps)), null)
        closed = ps.random_walk_values(len(steps), centered=center == "steps")
        found[name] = {
            "count": ps.count_above(spectrum.S, _THRESHOLD),
            "walk_count": counts[len(counts) // 2],
            "walk_low": counts[round(0.025 * len(counts))],
            "walk_high": counts[min(round(0.975 * len(counts)), len(counts) - 1)],
            "closed_form": ps.count_above(closed, _THRESHOLD),
            "first_share": float(shares[0]),
            "first_p": float(p[0]),
            "S": _relative(spectrum.S),
            "walk_S": _relative(null.S),
        }
    return found


def gradient_counts(gradients: StepMatrix, *, seed: int) -> dict[str, Any]:
    """The same count for gradients, beside their norms alone and random signs.

    Args:
        gradients: Gradients of the kept steps.
        seed: Of the signs.
    """
    gram = ps.gram(gradients)
    raw = ps.spectrum(gram, time_vectors=False)
    norms = ps.norm_null(raw)
    flips = ps.flip_rank_test(
        gradients, center="steps", normalize=True, max_deflations=_DEFLATIONS, seed=seed
    )
    unit = ps.spectrum(gram, center="steps", normalize=True, time_vectors=False)
    return {
        "count": ps.count_above(raw.S, _THRESHOLD),
        "norm_count": ps.count_above(norms.S, _THRESHOLD),
        "unit_count": ps.count_above(unit.S, _THRESHOLD),
        "flip_count": flips.rank,
        "participation_ratio": ps.participation_ratio(raw.S),
        "S": _relative(raw.S),
        "norm_S": _relative(norms.S),
    }


def component_sparsity(
    parameters: ps.ParameterTable,
    vectors: Float[Tensor, "k P"],
    coordinates: Coordinates,
    keys: Sequence[int],
) -> dict[str, Any]:
    """Fourier spectra of what directions of the weights change in embedding and unembedding.

    Args:
        parameters: Table of the columns.
        vectors: Directions as rows.
        coordinates: Order of the tokens in which the task is an addition.
        keys: Key frequencies.
    """
    named = [parameters.unflatten(vector.double()) for vector in vectors]
    basis = fourier_basis(coordinates.orders)
    embedding = [_power(basis, row["embed.W_E"][coordinates.left]) for row in named]
    readout = [_power(basis, row["unembed.W_U"][:, coordinates.result].T) for row in named]
    both = [a + b for a, b in zip(embedding, readout, strict=True)]
    return {
        "gini_W_E": [gini(power) for power in embedding],
        "gini_W_U": [gini(power) for power in readout],
        "key_share": [_share(power, keys) for power in both],
        "power_W_E": [(power / power.sum()).tolist() for power in embedding],
    }


def random_sparsity(
    coordinates: Coordinates, d_model: int, keys: Sequence[int], n_draws: int = _N_DRAWS
) -> dict[str, float]:
    """The same for directions drawn at random.

    Args:
        coordinates: Order of the tokens.
        d_model: Width of the embedding.
        keys: Key frequencies.
        n_draws: Draws.
    """
    basis, generator = fourier_basis(coordinates.orders), torch.Generator().manual_seed(0)
    drawn = [
        _power(basis, torch.randn(len(basis), d_model, generator=generator)) for _ in range(n_draws)
    ]
    ginis = torch.tensor([gini(power) for power in drawn], dtype=torch.float64)
    shares = torch.tensor([_share(power, keys) for power in drawn], dtype=torch.float64)
    return {
        "gini": float(ginis.mean()),
        "gini_high": float(ginis.quantile(0.95)),
        "key_share": float(shares.mean()),
        "key_share_high": float(shares.quantile(0.95)),
    }


def moving_times(spectrum: ps.Spectrum, k: int) -> list[float]:
    """When the score of each component has made half of its way, up and down counted alike.

    Args:
        spectrum: Of the weights, with time vectors.
        k: How many components.
    """
    way = spectrum.time_vectors[:, :k].diff(dim=0).abs().cumsum(0)
    half = (way >= 0.5 * way[-1]).int().argmax(0) + 1
    return spectrum.steps[half].double().tolist()


def gradient_profiles(
    gradients: StepMatrix, n_detected: int, events: Sequence[float], config: Config
) -> dict[str, Any]:
    """When the leading components of the gradients act, and how near that is to the events.

    Args:
        gradients: Gradients of the kept steps.
        n_detected: Components above random signs: noise has no edges in time.
        events: Steps of memorisation and grokking.
        config: The run's configuration.
    """
    spectrum = ps.spectrum(ps.gram(gradients), normalize=True)
    k = min(max(1, n_detected), N_PROFILES, _resolved(spectrum))
    profiles = ps.time_profiles(spectrum, k, n_permutations=199)
    edges = ps.profile_edges(spectrum, k)
    return {
        "center": profiles.center.observed.tolist(),
        "center_p": profiles.center.p.tolist(),
        "edges": edges.tolist(),
        "energy": _thinned(profiles.energy),
        "steps": spectrum.steps[:: max(1, len(spectrum.steps) // 100)].tolist(),
        "events": _beside_events(edges.flatten().tolist(), events, config),
    }


def matrix_ranks(untrained: PairTransformer, final: PairTransformer) -> dict[str, list[int]]:
    """Singular values that hold 99 % of the energy of every matrix and product, before and after.

    Args:
        untrained: The network at the beginning.
        final: The same at the end.
    """
    before, after = _matrices(untrained), _matrices(final)
    return {name: [_k99(before[name]), _k99(after[name])] for name in before}


def _matrices(model: PairTransformer) -> dict[str, Float64[Tensor, "a b"]]:
    p = model.n_tokens
    W_U = model.W_U.detach().double()[:, :p]
    found = {"W_E": model.W_E.detach().double()[:p], "W_U": W_U}
    for layer in range(model.shape.n_layers):
        w = {
            name: getattr(model, f"W_{name}")[layer].detach().double()
            for name in ("Q", "K", "V", "O", "in", "out")
        }
        found |= {f"{layer} W_{x}": w[x].movedim(0, 1).flatten(1) for x in "QKV"}
        found[f"{layer} W_O"] = w["O"].flatten(0, 1)
        found |= {f"{layer} W_in": w["in"], f"{layer} W_out": w["out"]}
        found[f"{layer} W_L"] = w["out"] @ W_U
        for head in range(model.shape.n_heads):
            found[f"{layer} OV {head}"] = w["V"][head] @ w["O"][head]
            found[f"{layer} QK {head}"] = w["Q"][head] @ w["K"][head].T
    return found


def _k99(matrix: Float64[Tensor, "a b"]) -> int:
    return ps.energy_rank(torch.linalg.svdvals(matrix), 0.99)


def _power(basis: FourierBasis, values: Float[Tensor, "n d"]) -> Float64[Tensor, " f"]:
    """Power of frequencies 1, 2, ... over all columns."""
    return frequency_power(basis, values)[1:].sum(1)


def _share(power: Float64[Tensor, " f"], keys: Sequence[int]) -> float:
    chosen = torch.tensor([k - 1 for k in keys], dtype=torch.int64)
    return float(power[chosen].sum() / power.sum())


def _beside_events(
    times: Sequence[float], events: Sequence[float], config: Config
) -> dict[str, float] | None:
    if len(events) < 2:
        return None
    span = (min(config.spectra_every, *events), config.n_steps)
    found = ps.event_distance(times, events, within=span)
    return {"octaves": found.octaves, "null": found.null, "p": found.p}


def _resolved(spectrum: ps.Spectrum) -> int:
    return int((spectrum.resolution < spectrum.S).sum())


def _relative(S: Float64[Tensor, " k"], most: int = 40) -> list[float]:
    return [x if math.isfinite(x) else 0.0 for x in (S[:most] / S[0]).tolist()]


def _thinned(values: Float64[Tensor, "k T"]) -> list[list[float]]:
    """At most a hundred-odd of the columns."""
    return values[:, :: max(1, values.shape[1] // 100)].tolist()
