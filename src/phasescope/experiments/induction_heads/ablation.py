"""What the copying of a trained network loses without each of its heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional

import phasescope as ps
from phasescope.experiments.induction_heads.config import Config
from phasescope.experiments.induction_heads.measure import Probes, load, probes
from phasescope.experiments.induction_heads.training import network
from phasescope.models import AttentionOnly

_LARGEST_SHARE = 5  # singular directions whose mass is summed


def ablated(run: ps.Run, config: Config) -> dict[str, Any]:
    """Rise of the copy loss without each head (zero, mean, resampled), beside its SVD mass (A17).

    The mass of a head is its share in the leading directions of the weights' path, whose increments
    are decomposed; ranks of the heads are compared by Spearman's correlation.
    """
    model, data = network(config), probes(config)
    load(model, torch.from_numpy(run.weights[-1]))
    with torch.no_grad():
        base, effects = _effects(model, data)
    mass = _mass(run, model)
    return {
        "copy_loss": base,
        "effects": effects,
        "mass": mass,
        "rank_correlation": {
            name: float(np.asarray(spearmanr(mass, values))[0]) for name, values in effects.items()
        },
    }


def _effects(model: AttentionOnly, data: Probes) -> tuple[float, dict[str, list[float]]]:
    tokens = data.copies.tokens
    _, _, outputs = model.run(tokens[:, :-1], patterns=True)
    base = _copy_loss(model, data, {})
    kinds: dict[str, list[float]] = {"zero": [], "mean": [], "resample": []}
    for layer, out in enumerate(outputs):
        for head in range(out.shape[1]):
            own = out[:, head]
            substitutes = {
                "zero": torch.zeros_like(own),
                "mean": own.mean((0, 1), keepdim=True).expand_as(own),
                "resample": own.roll(1, 0),
            }
            for kind, value in substitutes.items():
                kinds[kind].append(_copy_loss(model, data, {(layer, head): value}) - base)
    return base, kinds


def _copy_loss(model: AttentionOnly, data: Probes, replace: dict[tuple[int, int], Tensor]) -> float:
    tokens = data.copies.tokens
    logits = model.run(tokens[:, :-1], replace=replace)[0]
    loss = functional.cross_entropy(
        logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    ).view(tokens.shape[0], -1)
    return float(loss[data.copies.repeats[:, 1:]].mean())


def _mass(run: ps.Run, model: AttentionOnly) -> list[float]:
    """Every head's share of the leading directions of the increments of the weights."""
    weights = torch.from_numpy(run.weights[:]).double()
    updates = weights.diff(dim=0)
    spectrum = ps.spectrum(ps.gram(updates), center="none")
    k = min(_LARGEST_SHARE, len(spectrum.S))
    vectors = ps.parameter_vectors(updates, spectrum, k)
    weighted = (spectrum.S[:k, None] * vectors).square().sum(0)
    parts = ps.components(model, "heads")
    return [float(weighted[part.columns].sum() / part.size) for part in parts.values()]
