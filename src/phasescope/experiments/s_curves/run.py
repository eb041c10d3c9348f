"""Train a setting from all its seeds at once, and measure every seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import phasescope as ps
from phasescope.datasets import low_rank_targets
from phasescope.experiments.s_curves.config import Config, Detail, Results
from phasescope.experiments.s_curves.measure import measure
from phasescope.experiments.s_curves.observer import Observer
from phasescope.models import Factorization, initial_factors
from phasescope.training import EnsembleAdam, EnsembleOptimizer, EnsembleSGD, train_ensemble

CURVES = Path("results") / "curves.safetensors"
MEMORY = 100_000_000  # bytes of alignments held at once
N_SHOWN = 25  # alignment matrices of the first seed that are kept
N_CURVE = 60  # points of the loss quantiles that are kept
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

Progress = Callable[[float, str], None]


def run(config: Config, directory: Path, *, progress: Progress | None = None) -> Results:
    """Train all seeds of a batch and measure each.

    Seeds are trained together, as many as the record of their alignments leaves room for: since
    they do not interact, that changes no number beyond rounding.

    Args:
        config: The setting.
        directory: Where the loss curves are kept.
        progress: Called with the share of the work done and what is being done.
    """
    tell = progress or (lambda share, what: None)
    seeds = range(config.seed * config.n_seeds, (config.seed + 1) * config.n_seeds)
    n_records = config.n_steps // config.record_every + 1
    at_once = max(1, MEMORY // (4 * config.rank**2 * n_records))
    parts: list[dict[str, Tensor]] = []
    losses: list[Tensor] = []
    theory: list[Tensor] = []
    shown: dict[str, Tensor] = {}
    for first in range(0, len(seeds), at_once):
        chunk = list(seeds[first : first + at_once])

        def tell_chunk(share: float, done: int = first, n: int = len(chunk)) -> None:
            tell((done + share * n) / len(seeds), "training")

        observer, params, loss = _train(config, chunk, tell_chunk)
        parts.append(measure(config, observer, params, loss))
        losses.append(loss.cpu())
        if not shown:
            shown = _shown(observer)
        if (state := observer.rank_one) is not None and _has_theory(config):
            theory.append(_theory(config, state, observer.steps))
    per_seed = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    loss = torch.cat(losses)
    numbers = {
        "per_seed": {name: _plain(values) for name, values in per_seed.items()},
        "curve": _curve(loss),
    }
    tensors = {"loss": loss.float(), **shown}
    if theory:
        tensors["theory"] = torch.cat(theory).float()
    (directory / CURVES).parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / CURVES)
    tell(1.0, "done")
    return Results(config, numbers, _detail(config, directory))


def load(config: Config, directory: Path, numbers: dict[str, Any]) -> Results:
    """The results of a finished run, from what it left in its directory."""
    return Results(config, numbers, _detail(config, directory))


def _train(
    config: Config, seeds: list[int], tell: Callable[[float], None]
) -> tuple[Observer, dict[str, Tensor], Tensor]:
    dtype = getattr(torch, config.dtype)
    targets = low_rank_targets(seeds, d=config.d, rank=config.rank, scale=config.target_scale).to(
        config.device, dtype
    )
    start = initial_factors(
        seeds,
        d=config.d,
        rank=config.rank,
        scale=config.init_scale,
        balance=config.balance,
        imbalance=config.imbalance,
    )
    params = {name: value.to(config.device, dtype) for name, value in start.items()}
    records = ps.every(config.record_every)
    observer = Observer(targets, records.steps(config.n_steps + 1))
    loss = train_ensemble(
        params,
        Factorization(targets.matrices, config.loss, temperature=config.temperature),
        _optimizer(config),
        config.n_steps,
        observe=observer,
        observe_at=records,
        progress=tell,
    )
    return observer, params, loss


def _optimizer(config: Config) -> EnsembleOptimizer:
    if config.optimizer == "sgd":
        return EnsembleSGD(
            config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
    return EnsembleAdam(
        config.learning_rate,
        weight_decay=config.weight_decay,
        decoupled=config.optimizer == "adamw",
    )


def _has_theory(config: Config) -> bool:
    plain = config.optimizer == "sgd" and config.momentum == 0
    return config.rank == 1 and config.loss == "squared_error" and plain


def _theory(config: Config, measured: ps.RankOneState, steps: list[int]) -> Tensor:
    """Loss by the four equations, from each seed's own start."""
    start = ps.RankOneState(*(getattr(measured, name)[:, 0] for name in "uvpqs"))
    times = torch.tensor(steps, dtype=torch.float64) * config.learning_rate
    return ps.rank_one_flow(start, times, decay=config.weight_decay).loss.cpu()


def _shown(observer: Observer) -> dict[str, Tensor]:
    """Alignments of the first seed at evenly spaced records."""
    rows = np.unique(np.linspace(0, len(observer.steps) - 1, N_SHOWN).astype(int))
    return {
        "alignments": observer.alignments[0, rows].float().cpu().contiguous(),
        "alignment_steps": torch.tensor([observer.steps[i] for i in rows]),
    }


def _plain(values: Tensor) -> list[float | None]:
    """Six digits, as the committed results keep them; None for NaN, which JSON does not have."""
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values.double().tolist()]


def _curve(loss: Tensor) -> dict[str, Any]:
    """Quantiles over seeds of loss / first loss, at evenly spaced steps."""
    n_steps = loss.shape[1] - 1
    steps = np.unique(np.linspace(0, n_steps, N_CURVE).round().astype(int))
    relative = (loss / loss[:, :1]).double().numpy()[:, steps]
    with np.errstate(all="ignore"):
        levels = np.nanquantile(
            np.where(np.isfinite(relative), relative, np.nan), QUANTILES, axis=0
        )
    return {
        "steps": steps.tolist(),
        "quantiles": {
            str(q): _plain(torch.from_numpy(v)) for q, v in zip(QUANTILES, levels, strict=True)
        },
    }


def _detail(config: Config, directory: Path) -> Detail | None:
    """What the figures need; None where the curves were not kept."""
    if not (directory / CURVES).exists():
        return None
    tensors = load_file(directory / CURVES)
    none = torch.empty(len(tensors["loss"]), 0)
    theory = tensors.get("theory", none)
    steps = np.arange(0, config.n_steps + 1, config.record_every)
    return Detail(
        loss=tensors["loss"].numpy(),
        alignment_steps=tensors["alignment_steps"].numpy(),
        alignments=tensors["alignments"].numpy(),
        theory_steps=steps[: theory.shape[1]],
        theory_loss=theory.numpy(),
    )
