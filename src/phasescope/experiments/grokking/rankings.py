"""Heads, neurons and frequencies ranked by their part in the spectrum, and by what they do.

Letters: k components, P parameters, c parts of the network, n places of the task's group.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

import phasescope as ps
from phasescope.analysis.grokking import fourier_basis, frequency_power, pair_waves
from phasescope.datasets import Coordinates
from phasescope.experiments.grokking.config import Config
from phasescope.experiments.grokking.training import network_at, task_of
from phasescope.experiments.settings import compact
from phasescope.interventions import (
    Part,
    ablation_effects,
    entries,
    flat_weights,
    patch_effects,
    path_effects,
    waves,
)
from phasescope.models import PairTransformer
from phasescope.training import cross_entropy_float64

Z, PRE, POST = "blocks.0.attn.hook_z", "blocks.0.mlp.hook_pre", "blocks.0.mlp.hook_post"
MLP_OUT = "blocks.0.hook_mlp_out"
KINDS = ("heads", "neurons", "frequencies")
N_PAIRS = 1024  # on which heads and neurons are ablated
_N_RESAMPLES = 3
_FEWEST = 3  # parts that can be ranked


def rankings(
    config: Config, run: ps.Run, vectors: Float[Tensor, "k P"], S: Float64[Tensor, " n"]
) -> dict[str, Any] | None:
    """Rank correlations of spectral mass with causal effects; None for more than one layer.

    Mass: share of a part in the energy of the leading components of the weights (and, beside, of
    the gradients). Effects, at the final network: rise of the mean loss without the part (zero,
    mean, resampled), and the share of the difference in the right answer's logit that the part
    carries when the left operand is replaced (activation patching; for heads also through the MLP
    and around it).

    Args:
        config: The run's configuration.
        run: Its recording.
        vectors: Leading directions of the weights, centred over steps.
        S: Singular values that they belong to.
    """
    if config.n_layers != 1:
        return None
    final = network_at(config, run, -1)
    effects = causal_effects(config, final)
    gradients = run["gradients"]
    spectrum = ps.spectrum(ps.gram(gradients))
    k = min(len(vectors), int((spectrum.resolution < spectrum.S).sum()))
    own = ps.parameter_vectors(gradients, spectrum, k)
    coordinates = task_of(config)[0].natural
    weights = flat_weights(final)[None]
    one = torch.ones(1, dtype=torch.float64)
    predictors = {
        "weights": spectral_mass(final, coordinates, vectors, S[: len(vectors)]),
        "gradients": spectral_mass(final, coordinates, own, spectrum.S[:k]),
        "final norm": spectral_mass(final, coordinates, weights, one),
    }
    return {
        kind: {
            "correlations": {
                f"{predictor}, {effect}": _correlation(mass[kind], values)
                for predictor, mass in predictors.items()
                for effect, values in effects[kind].items()
            },
            "mass": {name: _short(mass[kind]) for name, mass in predictors.items()},
            "effects": {name: _short(values) for name, values in effects[kind].items()},
        }
        for kind in KINDS
    }


def spectral_mass(
    model: PairTransformer,
    coordinates: Coordinates,
    vectors: Float[Tensor, "k P"],
    S: Float64[Tensor, " k"],
) -> dict[str, Float64[Tensor, " c"]]:
    """Share of every head, neuron and frequency in the energy of some directions.

    A frequency's share is that of its rows of the embedding.

    Args:
        model: Whose parts.
        coordinates: Order of the tokens.
        vectors: Directions of the parameters.
        S: Singular value of each: its energy is the square.
    """
    energy = (S.double().square() / S.double().square().sum())[:, None]
    found = {}
    for kind in ("heads", "neurons"):
        mass = ps.direction_mass(vectors, ps.components(model, kind))
        found[kind] = (energy * mass).sum(0)
    basis = fourier_basis(coordinates.orders)
    table = ps.ParameterTable.from_module(model)
    power = torch.stack(
        [
            frequency_power(basis, table.unflatten(v.double())["embed.W_E"][coordinates.left])[1:]
            .sum(1)
            .div(v.double().square().sum())
            for v in vectors
        ]
    )
    found["frequencies"] = (energy * power).sum(0)
    return found


def causal_effects(
    config: Config, model: PairTransformer
) -> dict[str, dict[str, Float64[Tensor, " c"]]]:
    """Effects of every head, neuron and frequency, by kind of intervention.

    Args:
        config: The run's configuration.
        model: The network, with one layer; computed in float64.
    """
    task, _ = task_of(config)
    coordinates = task.natural
    model = _in_float64(model)
    generator = torch.Generator().manual_seed(config.seed)
    rows = torch.randperm(len(task.pairs), generator=generator)[:N_PAIRS]
    pairs, labels = task.examples(rows)
    parts = {
        "heads": [entries(Z, h, axis=-2, name=f"head {h}") for h in range(config.n_heads)],
        "neurons": [entries(POST, j, name=f"neuron {j}") for j in range(config.d_mlp)],
    }
    found = {
        kind: _effects(model, pairs, labels, chosen, generator) for kind, chosen in parts.items()
    }
    for name, limits in {
        "through the MLP": {"receivers": [PRE]},
        "around the MLP": {"frozen": [MLP_OUT]},
    }.items():
        corrupted = _other_left(pairs, generator)
        paths = path_effects(model, pairs, corrupted, parts["heads"], _margin(labels), **limits)
        found["heads"][name] = paths.shares
    basis = fourier_basis(coordinates.orders)
    every = torch.cartesian_prod(coordinates.left, coordinates.right)
    right = task.label_table[every[:, 0], every[:, 1]]
    frequencies = [
        waves(POST, pair_waves(basis, k), name=f"frequency {k}")
        for k in range(1, basis.n_frequencies + 1)
    ]
    found["frequencies"] = _effects(model, every, right, frequencies, generator)
    return found


def _effects(
    model: PairTransformer,
    pairs: Int64[Tensor, "n 2"],
    labels: Int64[Tensor, " n"],
    parts: Sequence[Part],
    generator: torch.Generator,
) -> dict[str, Float64[Tensor, " c"]]:
    def loss(logits: Tensor) -> Tensor:
        return cross_entropy_float64(logits, labels).mean()

    ablated = ablation_effects(model, pairs, parts, loss, n_resamples=_N_RESAMPLES)
    corrupted = _other_left(pairs, generator)
    patched = patch_effects(model, pairs, corrupted, parts, _margin(labels), direction="corrupt")
    return dict(ablated.effects) | {"patching": patched.shares}


def _margin(labels: Int64[Tensor, " n"]) -> Callable[[Tensor], Tensor]:
    """Mean logit of the right answer above the mean of all: linear, so that shares can add up."""

    def margin(logits: Tensor) -> Tensor:
        return (logits.gather(1, labels[:, None])[:, 0] - logits.mean(1)).mean()

    return margin


def _other_left(pairs: Int64[Tensor, "n 2"], generator: torch.Generator) -> Int64[Tensor, "n 2"]:
    """The same pairs with the left operand of another one."""
    order = torch.randperm(len(pairs), generator=generator)
    return torch.stack([pairs[order, 0], pairs[:, 1]], 1)


def _in_float64(model: PairTransformer) -> PairTransformer:
    return copy.deepcopy(model).double().eval()


def _correlation(x: Float64[Tensor, " c"], y: Float64[Tensor, " c"]) -> dict[str, Any] | None:
    """None where there are too few parts, or all have the same effect."""
    usable = len(x) >= _FEWEST and bool((x != x[0]).any()) and bool((y != y[0]).any())
    if not usable or not bool(y.isfinite().all()):
        return None
    found = ps.rank_correlation(x, y)
    return {"rho": found.rho, "low": found.low, "high": found.high, "p": found.p}


def _short(values: Float64[Tensor, " c"]) -> list[float]:
    """Four digits."""
    return compact(values.tolist(), 4)


def rho_of(numbers: Mapping[str, Any], kind: str, pair: str) -> float | None:
    """A correlation of one run's numbers; None if it could not be computed.

    Args:
        numbers: From `rankings`.
        kind: ``"heads"``, ``"neurons"`` or ``"frequencies"``.
        pair: Such as ``"weights, mean"``.
    """
    found = numbers[kind]["correlations"].get(pair)
    return None if found is None else found["rho"]
