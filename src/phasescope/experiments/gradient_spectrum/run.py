"""Train with every gradient recorded, take the Gram matrix, and measure."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

import phasescope as ps
from phasescope.datasets import ShuffledBatches, as_inputs, load_images
from phasescope.experiments.gradient_spectrum.config import (
    DROPPED,
    RESIDUAL_SIZES,
    SAMPLE_SIZES,
    THRESHOLDS,
    Config,
    Detail,
    Results,
)
from phasescope.experiments.settings import compact
from phasescope.models import MLP, ConvNet, seeded
from phasescope.training import accuracy, train

SPECTRUM = Path("results") / "spectrum.safetensors"
N_TIME_VECTORS = 8
_KEPT = ("S", "steps", "norms", "centered_norms")

Progress = Callable[[float, str], None]


def run(config: Config, directory: Path, *, progress: Progress | None = None) -> Results:
    """Train with every gradient recorded, decompose all steps, and count.

    A training that was interrupted in `directory` goes on from its last checkpoint.

    Args:
        config: What to train and analyse.
        directory: The run's directory.
        progress: Called with the share of the work done and what is being done.
    """
    tell = progress or (lambda share, what: None)
    data = _train(config, directory, lambda share: tell(0.6 * share, "training"))
    recorded = ps.open_run(directory)
    gram = ps.gram(recorded.gradients, progress=lambda s: tell(0.6 + 0.2 * s, "Gram matrix"))
    tell(0.8, "spectra")
    numbers, spectrum = _measure(config, gram)
    numbers["dataset"] = data
    accuracies = recorded["metrics/test_accuracy"][:, 0]
    numbers["test_accuracy"] = float(accuracies[np.isfinite(accuracies)][-1])
    _save_spectrum(directory / SPECTRUM, spectrum)
    if not config.keep_trajectory:
        # In this order: a checkpoint without the gradients before it must not be resumed from.
        shutil.rmtree(directory / "checkpoints")
        ps.delete_group(directory, "gradients")
    tell(1.0, "done")
    return Results(config, numbers, _detail(directory))


def load(config: Config, directory: Path, numbers: dict[str, Any]) -> Results:
    """The results of a finished run, from what it left in its directory."""
    return Results(config, numbers, _detail(directory))


def _detail(directory: Path) -> Detail | None:
    """What the figures need, read from the run; None if the spectrum was not kept."""
    if not (directory / SPECTRUM).exists():
        return None
    spectrum = _load_spectrum(directory / SPECTRUM)
    recorded = ps.open_run(directory)
    norms = recorded["norms/gradients"]
    loss_steps, loss = _metric(recorded, "train_loss")
    accuracy_steps, accuracies = _metric(recorded, "test_accuracy")
    return Detail(
        spectrum,
        ps.norm_null(spectrum),
        norms.steps,
        norms[:],
        recorded.parameters.names,
        loss_steps,
        loss,
        accuracy_steps,
        accuracies,
    )


def _metric(recorded: ps.Run, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a metric, where it was logged."""
    series = recorded[f"metrics/{name}"]
    values = series[:, 0]
    logged = np.isfinite(values)
    return series.steps[logged], values[logged]


def _save_spectrum(path: Path, spectrum: ps.Spectrum) -> None:
    """Keep a raw spectrum with its first time vectors: a few hundred kB."""
    from safetensors.torch import save_file

    path.parent.mkdir(exist_ok=True)
    kept = {name: getattr(spectrum, name) for name in _KEPT}
    kept["time_vectors"] = spectrum.time_vectors[:, :N_TIME_VECTORS].contiguous()
    scalars = {"n_columns": str(spectrum.n_columns), "resolution": repr(spectrum.resolution)}
    save_file(kept, path, metadata=scalars)


def _load_spectrum(path: Path) -> ps.Spectrum:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        scalars = file.metadata()
        return ps.Spectrum(
            **{name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118 - no mapping
            center="none",
            normalize=False,
            n_columns=int(scalars["n_columns"]),
            resolution=float(scalars["resolution"]),
        )


def _train(config: Config, directory: Path, progress: Callable[[float], None]) -> str:
    """Train and record; returns the data set's name."""
    train_set = load_images(config.dataset, "train")
    same_set = "mnist" if train_set.name == "mnist" else "digits"
    test_set = load_images(same_set, "test")
    x, y = as_inputs(train_set), train_set.labels
    test_x, test_y = as_inputs(test_set), test_set.labels
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # for dropout
        model = seeded(lambda: _model(config, x.shape[-1], train_set.n_classes), config.seed)
        optimizer = _optimizer(config, model)
        batches = ShuffledBatches(
            x, y, config.batch_size, seed=config.seed, n_epochs=config.n_epochs
        )
        n_steps = len(batches)
        with ps.Recorder(
            directory,
            model,
            optimizer,
            save={"gradients": ps.every(1), "norms/gradients": ps.every(1)},
            n_steps=n_steps,
            checkpoint=ps.every(500),
            state={"loader": batches},
            config=config,
            loss_reduction="mean",
            resume=True,
        ) as recorder:
            train(
                model,
                optimizer,
                batches,
                recorder=recorder,
                evaluate=lambda m: {"test_accuracy": accuracy(m, test_x, test_y)},
                evaluate_every=max(1, n_steps // 4),
                on_step=lambda step, loss: progress(step / n_steps),
            )
    return train_set.name


def _model(config: Config, side: int, n_classes: int) -> nn.Module:
    if config.model == "mlp":
        return MLP((side * side, config.hidden, n_classes))
    return ConvNet(image_size=side, n_classes=n_classes)


def _optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    if config.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    return torch.optim.SGD(model.parameters(), lr=config.learning_rate, momentum=config.momentum)


def _measure(config: Config, gram: ps.Gram) -> tuple[dict[str, Any], ps.Spectrum]:
    """Every number of a run from its Gram matrix; and the spectrum of all steps as recorded."""
    steps = gram.steps.numpy()
    full = ps.spectrum(gram)
    variants = {
        "raw": full,
        "centred": ps.spectrum(gram, center="steps", time_vectors=False),
        "normalised": ps.spectrum(gram, normalize=True, time_vectors=False),
        "normalised, centred": ps.spectrum(
            gram, center="steps", normalize=True, time_vectors=False
        ),
    }
    generator = np.random.default_rng(config.seed)
    sizes = [m for m in SAMPLE_SIZES if m < len(steps)] or [len(steps) // 2]
    numbers = {
        "n_steps": len(steps),
        "n_parameters": gram.n_columns,
        "ranks": {name: ps.rank_summary(s, THRESHOLDS).to_dict() for name, s in variants.items()},
        "mean_alignment": ps.mean_alignment(gram),
        "first_energy": float(full.S[0] ** 2 / (full.S**2).sum()),
        "samples": {str(m): _samples(config, gram, m, generator) for m in sizes},
        "residuals": _residuals(gram, generator),
        "dropped": _dropped(gram),
        "singular_values": compact((full.S / full.S[0]).tolist()),
    }
    return numbers, full


def _samples(
    config: Config, gram: ps.Gram, m: int, generator: np.random.Generator
) -> dict[str, Any]:
    """Counts at every threshold in random and in evenly spaced samples of m steps."""
    steps = gram.steps.numpy()
    draws = [np.sort(generator.choice(steps, m, replace=False)) for _ in range(config.n_samplings)]
    even = steps[np.round(np.linspace(0, len(steps) - 1, m)).astype(int)]
    return {
        "random": [_counts(gram, draw) for draw in draws],
        "random_centred": [_counts(gram, draw, center="steps") for draw in draws],
        "even": _counts(gram, even),
        "even_centred": _counts(gram, even, center="steps"),
    }


def _counts(
    gram: ps.Gram, steps: np.ndarray, center: Literal["none", "steps"] = "none"
) -> dict[str, Any]:
    spectrum = ps.spectrum(gram, steps=steps, center=center, time_vectors=False)
    summary = ps.rank_summary(spectrum, THRESHOLDS)
    return {
        "counts": list(summary.counts),
        "null_counts": list(summary.null_counts),
        "largest_gap": summary.to_dict()["largest_gap"],
    }


def _residuals(gram: ps.Gram, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Residual norms of held-out steps, relative to their norm, against the number sampled."""
    steps = gram.steps.numpy()
    curves: tuple[tuple[str, int, Literal["none", "steps"], bool], ...] = (
        ("random steps held out", 0, "none", False),
        ("the same, centred", 0, "steps", False),
        ("without the first 100 steps", 100, "none", False),
        ("last fifth held out", 0, "none", True),
    )
    rows = []
    for label, first, center, contiguous in curves:
        pool = steps[steps >= first] if len(steps) > 2 * first else steps
        block = pool[len(pool) * 4 // 5 :] if contiguous else pool[:0]
        usable = np.setdiff1d(pool, block)
        for m in [m for m in RESIDUAL_SIZES if m <= 0.8 * len(usable)]:
            sample = np.sort(generator.choice(usable, m, replace=False))
            heldout = block if contiguous else np.setdiff1d(usable, sample)
            r = ps.heldout_residuals(gram, sample, heldout, [m], center=center)
            low, median, high = np.quantile(r[:, 0].sqrt().numpy(), [0.1, 0.5, 0.9])
            row = {"median": float(median), "low": float(low), "high": float(high)}
            rows.append({"curve": label, "n_sampled": m} | row)
    return rows


def _dropped(gram: ps.Gram) -> list[dict[str, Any]]:
    """The ranks of all steps but the first t0."""
    rows = []
    for first in [t for t in DROPPED if t <= len(gram.steps) // 2]:
        spectrum = ps.spectrum(gram, steps=slice(first, None), time_vectors=False)
        summary = ps.rank_summary(spectrum, THRESHOLDS)
        rows.append({"first_step": first} | summary.to_dict())
    return rows
