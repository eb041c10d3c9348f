"""Train a setting at all densities from all its seeds, and measure the geometry of every model.

Axes: seed, density, feature, d of the shared space.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

import phasescope as ps
from phasescope.datasets import SparseFeatures
from phasescope.experiments.chunks import in_chunks, save_whole
from phasescope.experiments.superposition.config import LEVELS, Config, Detail, Results
from phasescope.models import TiedLoss, initial_tied_autoencoder
from phasescope.training import EnsembleAdam, cosine_cycles, train_ensemble

DIRECTIONS = Path("results") / "directions.safetensors"
LAST = 100  # steps over whose losses the end is averaged
HALF_WIDTH = 0.005  # of a line
FLANK = 0.0125  # where its flanks are
FEWEST = 10  # features on a line
AT_HALF = 0.03  # distance from 1/2 within which dimensions per feature count as there
BINS = (np.arange(202) - 0.5) * 0.005  # of the histograms: levels lie inside of bins, not on edges

Progress = Callable[[float, str], None]


def run(config: Config, directory: Path, *, progress: Progress | None = None) -> Results:
    """Train all models of a batch and measure each; an interrupted run goes on by the chunk.

    Args:
        config: The setting.
        directory: Where the finished chunks, and the directions of the first seed, are kept.
        progress: Called with the share of the work done and what is being done.
    """
    tell = progress or (lambda share, what: None)
    n_models = config.n_seeds * config.n_densities
    found = in_chunks(
        n_models,
        config.at_once,
        directory / "chunks",
        lambda models, folder: _train(config, models),
        progress=lambda share: tell(share, f"training {n_models:,} models"),
    )
    shape = (config.n_seeds, config.n_densities)
    W = found["W"].view(*shape, config.n_features, config.d)
    numbers = measure(config, W, found["loss"].view(shape))
    (directory / DIRECTIONS).parent.mkdir(parents=True, exist_ok=True)
    save_whole({"W": W[0].float()}, directory / DIRECTIONS)
    tell(1.0, "done")
    return Results(config, numbers, _detail(directory))


def load(config: Config, directory: Path, numbers: dict[str, Any]) -> Results:
    """The results of a finished run, from what it left in its directory."""
    return Results(config, numbers, _detail(directory))


def _detail(directory: Path) -> Detail | None:
    """What the figures need; None where the directions were not kept."""
    file = directory / DIRECTIONS
    return Detail(load_file(file)["W"].numpy()) if file.exists() else None


def _train(config: Config, models: list[int]) -> dict[str, Tensor]:
    """Directions and last loss of some models, numbered seed by seed."""
    first = config.seed * config.n_seeds
    seeds = [first + model // config.n_densities for model in models]
    densities = config.densities[[model % config.n_densities for model in models]]
    features = SparseFeatures(
        torch.tensor(densities)[:, None].expand(-1, config.n_features),
        n_models=len(models),
        batch_size=config.batch_size,
        seed=first * config.n_densities + models[0],
        device=config.device,
    )
    importance = torch.tensor(config.importance, dtype=torch.float32, device=config.device)
    start = initial_tied_autoencoder(seeds, n_features=config.n_features, d=config.d)
    params = {name: value.to(config.device) for name, value in start.items()}
    optimizer = EnsembleAdam(
        config.learning_rate,
        weight_decay=config.weight_decay,
        decoupled=True,
        schedule=cosine_cycles(config.n_steps) if config.anneal else None,
    )
    loss = TiedLoss(features.draw, importance=importance)
    losses = train_ensemble(params, loss, optimizer, config.n_steps)
    zero = torch.tensor(densities * config.importance.mean() / 3)  # E v^2 = p / 3
    return {"W": params["W"], "loss": losses[:, -LAST:].double().mean(1).cpu() / zero}


def measure(config: Config, W: Tensor, loss: Tensor) -> dict[str, Any]:
    """Lines at the levels, dimensions per feature, and histograms of the dimensionalities.

    Args:
        config: The setting.
        W: Directions: seed × density × feature × d.
        loss: Last loss over that of the zero predictor: seed × density.
    """
    W = W.double()
    D = ps.feature_dimensionality(W)
    control = ps.feature_dimensionality(_random_directions(W, config.seed))
    d_star = ps.dimensions_per_feature(W)
    halves = ((d_star - 0.5).abs() <= AT_HALF).sum(1)
    lines = {}
    for kind, values in (("line", D), ("control", control)):
        groups = _groups(values, config.group_size)
        for level, place in LEVELS.items():
            lines[f"{kind} {level}"] = has_line(groups, place).double().tolist()
    norms = W.norm(dim=-1)
    return {
        "per_seed": {"densities_at_half": halves.double().tolist()},
        "per_group": lines,
        "by_density": {
            "density": config.densities.tolist(),
            "d_star": d_star.tolist(),
            "represented": (norms > 0.5).double().sum(-1).tolist(),
            "loss": loss.tolist(),
        },
        "norm_by_importance": norms.mean(0).tolist(),
        "histogram": _histograms(D),
        "control_histogram": _histograms(control),
    }


def _groups(D: Tensor, size: int) -> Tensor:
    """Dimensionalities of so many seeds together, one row per group; what is left over is not used.

    Where there are fewer seeds than a group has, they are one.
    """
    size = min(size, len(D))
    n = len(D) // size
    return D[: n * size].reshape(n, -1)


def has_line(D: Tensor, level: float) -> Tensor:
    """Whether so many values of a row stand at a level, and twice as many as beside it.

    Args:
        D: Dimensionalities, one row per group.
        level: Where the line should be.
    """

    def near(place: float) -> Tensor:
        return ((D - place).abs() <= HALF_WIDTH).sum(1)

    beside = torch.maximum(near(level - FLANK), near(level + FLANK))
    return (near(level) >= FEWEST) & (near(level) >= 2 * beside)


def _random_directions(W: Tensor, seed: int) -> Tensor:
    """Directions at random with the norms of the trained ones: the control."""
    generator = torch.Generator().manual_seed(seed)
    R = torch.randn(W.shape, generator=generator, dtype=W.dtype)
    return R / R.norm(dim=-1, keepdim=True) * W.norm(dim=-1, keepdim=True)


def _histograms(D: Tensor) -> list[list[int]]:
    """Counts by density and bin, over all seeds; features without a share (0) are left out."""
    rows = D.transpose(0, 1).flatten(1).numpy()
    return [np.histogram(row[row > 1e-6], bins=BINS)[0].tolist() for row in rows]
