"""Every number of a point of the grid, from what was measured of its models.

Axes: seed, record, feature.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import phasescope as ps
from phasescope.datasets import feature_frequencies
from phasescope.experiments.monosemanticity.config import Config
from phasescope.experiments.monosemanticity.observe import THRESHOLDS, late_record
from phasescope.experiments.monosemanticity.training import loss_steps

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
CURVES = ("loss", "mono_90", "mono_999", "covered", "ignored", "dead", "bias", "firing")


def point_numbers(config: Config, found: dict[str, Tensor]) -> dict[str, Any]:
    """Numbers of one point as plain JSON.

    Args:
        config: The point: a configuration with one of each.
        found: Measures, one row per seed.
    """
    records = {
        name.removeprefix("record."): values.double()
        for name, values in found.items()
        if name.startswith("record.")
    }
    annealed = config.annealed
    steps = config.record_steps
    per_seed = _at_the_end(config, records)
    per_seed |= _late(config, records, found)
    per_seed |= _speed(config, found)
    per_seed["rank_auc"] = rank_auc(found["states"] == 0)
    for name in ("capacity", "capacity_out", "interference"):
        per_seed[name] = found[name].double().mean(1)
    return {
        "learning_rate": config.learning_rates[0],
        "bias_offset": config.bias_offsets[0],
        "density": config.densities[0],
        "zero_loss": zero_loss(config),
        "per_seed": {name: _plain(values) for name, values in per_seed.items()},
        "annealed": {
            "steps": [steps[i] for i in annealed],
            "loss": [_plain(row[annealed]) for row in records["loss"]],
            "mono_90": [_plain(row[annealed]) for row in records["mono_90"]],
        },
        "by_feature": {
            "mono": _plain((found["states"] == 0).double().mean(0)),
            "ignored": _plain((found["states"] == 2).double().mean(0)),
            "explained": _plain(found["explained"].double().nanmean(0)),
        },
        "curves": {
            "steps": steps,
            **{name: _quantiles(records[name]) for name in CURVES},
        },
    }


def zero_loss(config: Config) -> float:
    """Expected loss of the zero predictor.

    E v² = p/3 of a feature; of the difference of two draws at half the probability, with p' = p/2,
    2 (p'/3) - 2 (p'/2)². The re-projector's target P' v has unit columns and nearly independent
    features; its loss is that of the decoder but for products of features, which are left out.
    """
    signs = 2 if config.task == "absolute" else 1
    p = feature_frequencies(config.n_features, config.densities[0] / signs, config.frequencies)
    each = p / 3 if signs == 1 else 2 * (p / 3) - 2 * (p / 2) ** 2
    return float(each.sum())


def _at_the_end(config: Config, records: dict[str, Tensor]) -> dict[str, Tensor]:
    """Measures at the last record, where the learning rate is zero, and at the last peak."""
    ends = ("loss", *THRESHOLDS, "covered", "ignored", "dead", "firing")
    per_seed = {name: records[name][:, -1] for name in (*ends, "bias", "bias_mono", "bias_poly")}
    steps = config.record_steps
    peak = max(i for i, step in enumerate(steps) if step % (2 * config.half_period) == 0)
    for name in THRESHOLDS:
        per_seed[f"peak_{name}"] = records[name][:, peak]
    return per_seed


def _late(
    config: Config, records: dict[str, Tensor], found: dict[str, Tensor]
) -> dict[str, Tensor]:
    """What the last quarter of the training changed, between annealed records."""
    late = late_record(config)
    before, after = found["states_before"] == 0, found["states"] == 0
    ranks = torch.arange(1, before.shape[1] + 1, dtype=torch.float64)
    new = after & ~before

    def mean_rank(chosen: Tensor) -> Tensor:
        return (chosen * ranks).sum(1) / chosen.sum(1)

    last_quarter = [i for i in config.annealed if i > late]
    turned = records["turned"][:, last_quarter]
    return {
        "late_gain": records["mono_90"][:, -1] - records["mono_90"][:, late],
        "late_loss": (records["loss"][:, -1] / records["loss"][:, late]).log(),
        "moved": records["moved"][:, last_quarter].nanmean(1),
        "turned": turned.nanmean(1),
        "newly_mono": new.double().mean(1),
        "new_rank": mean_rank(new) - mean_rank(before & after),
    }


def _speed(config: Config, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Steps to a half and a tenth of the zero predictor's loss; silence."""
    loss = found["training_loss"].double()
    steps = torch.tensor(loss_steps(config), dtype=torch.float64)
    relative = (loss / zero_loss(config)).nan_to_num(math.inf)
    silent = found["silent_steps"].double()
    return {
        "t_half": ps.first_crossing(relative, steps, 0.5, falling=True),
        "t_tenth": ps.first_crossing(relative, steps, 0.1, falling=True),
        "silent_share": silent / config.n_steps,
        "with_gradient": found["with_gradient"].double(),
    }


def rank_auc(mono: Tensor) -> Tensor:
    """Chance that a monosemantic feature comes before another one in the order of features.

    1: the first ones are monosemantic and no others, a threshold; 1/2: their place says nothing.
    NaN where all or no features are.

    Args:
        mono: Whether each feature is, one row per seed.
    """
    n = mono.shape[1]
    place = torch.arange(n, dtype=torch.float64)
    n_mono = mono.double().sum(1)
    total = (mono.double() * (n - 1 - place)).sum(1)  # features after each monosemantic one
    among = n_mono * (n_mono - 1) / 2
    return (total - among) / (n_mono * (n - n_mono))


def _plain(values: Tensor) -> list[float | None]:
    """Six digits, as the committed results keep them; None for NaN, which JSON does not have."""
    return [float(f"{v:.6g}") if math.isfinite(v) else None for v in values.double().tolist()]


def _quantiles(values: Tensor) -> dict[str, list[float | None]]:
    """Quantiles over seeds at every record."""
    levels = values.nanquantile(torch.tensor(QUANTILES, dtype=torch.float64), dim=0)
    return {str(q): _plain(row) for q, row in zip(QUANTILES, levels, strict=True)}
