"""Record a training and those beside it, take their directions, and train in them again."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import phasescope as ps
from phasescope.datasets import ShuffledBatches, as_inputs, load_images
from phasescope.experiments.low_rank_replay.config import (
    COMPLEMENT,
    DIMENSIONS,
    FROZEN,
    FULL,
    OTHER_ORDER,
    OTHER_START,
    RANDOM,
    RANDOM_RATES,
    SOURCES,
    TOP,
    Config,
    Results,
    ks_of,
)
from phasescope.experiments.low_rank_replay.ensemble import (
    Ensemble,
    Member,
    adam_updates,
    evaluate,
    split,
)
from phasescope.experiments.settings import compact
from phasescope.interventions import flat_weights, leading_subspace, random_subspace, replay
from phasescope.models import MLP, seeded
from phasescope.training import frozen_gradients, train

# Seeds of what must be independent of the seed's own initialisation and order.
_FRESH, _OTHER_ORDER, _OTHER_START, _FROZEN, _RANDOM = (10_000 * i for i in range(1, 6))
_SAMPLE, _N_SAMPLINGS = 400, 10  # of the count of singular values, as in the post
_N_CURVE = 2000  # test images for the curves over steps; the final numbers take all
_N_TRAIN = 10_000  # training images for the training loss

Progress = Callable[[float, str], None]


def run(config: Config, directory: Path, *, progress: Progress | None = None) -> Results:
    """Record, decompose, and train about a hundred alternative models.

    Args:
        config: What to train.
        directory: The run's directory; what is written there is deleted at the end.
        progress: Called with the share of the work done and what is being done.
    """
    tell = progress or (lambda share, what: None)
    data = _Data.load(config)
    scratch = directory / "trajectories"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    tell(0.0, "recording trainings")
    start = _model(config, data)
    own = _record(config, data, scratch / "own", config.seed, config.seed, gradients=True)
    numbers: dict[str, Any] = {
        "dataset": data.name,
        "n_parameters": own.parameters.size,
        "n_steps": config.n_steps,
        **_counts(own, config),
    }
    tell(0.1, "directions")
    bases, values = _bases(config, data, scratch, own)
    numbers["singular_values"] = values
    numbers["overlap"] = _overlaps(bases, config)
    steps = _evaluation_steps(config)
    numbers["steps"] = steps
    numbers["initial"] = _measured(split(flat_weights(start)[None], data.sizes), data)[0]
    tell(0.2, "offline replays")
    numbers["offline"] = _offline(config, data, flat_weights(start), own, bases, steps)
    tell(0.25, "online replays")
    numbers["online"] = _online(
        config, data, flat_weights(start), bases, steps, lambda s: tell(0.25 + 0.75 * s, "online")
    )
    shutil.rmtree(scratch)
    tell(1.0, "done")
    return Results(config, numbers)


def load(config: Config, directory: Path, numbers: dict[str, Any]) -> Results:
    """The results of a finished run."""
    return Results(config, numbers)


@dataclass(frozen=True)
class _Data:
    """Flattened images."""

    name: str
    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    sizes: tuple[int, int, int]

    @classmethod
    def load(cls, config: Config) -> _Data:
        images = load_images(config.dataset, "train")
        same = "mnist" if images.name == "mnist" else "digits"
        test = load_images(same, "test")
        x = as_inputs(images).flatten(1)
        sizes = (x.shape[1], config.hidden, images.n_classes)
        return cls(same, x, images.labels, as_inputs(test).flatten(1), test.labels, sizes)

    def batches(self, config: Config, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless minibatches in the order of a seed."""
        n_epochs = 1 + config.n_steps * config.batch_size // len(self.x)
        batches = ShuffledBatches(
            self.x, self.y, config.batch_size, seed=seed, n_epochs=2 * n_epochs
        )
        return iter(batches)


def _model(config: Config, data: _Data, seed: int | None = None) -> nn.Module:
    return seeded(lambda: MLP(data.sizes), config.seed if seed is None else seed)


def _record(
    config: Config, data: _Data, path: Path, start: int, order: int, *, gradients: bool = False
) -> ps.Run:
    """A recorded training from the initialisation and in the order of two seeds."""
    model = _model(config, data, start)
    rule = torch.optim.Adam if config.optimizer == "adam" else torch.optim.SGD
    optimizer = rule(model.parameters(), lr=config.learning_rate)
    save = {"updates": ps.every(1)} | ({"gradients": ps.every(1)} if gradients else {})
    with ps.Recorder(path, model, optimizer, save=save, loss_reduction="mean") as recorder:
        batches = itertools.islice(data.batches(config, order), config.n_steps)
        train(model, optimizer, batches, recorder=recorder)
    return ps.open_run(path)


def _counts(own: ps.Run, config: Config) -> dict[str, float]:
    """The post's count: singular values above 10% in random samples of the gradients."""
    gram = ps.gram(own.gradients)
    steps = gram.steps.numpy()
    m = min(_SAMPLE, len(steps) // 2)
    generator = np.random.default_rng(config.seed)
    counts, nulls = [], []
    for _ in range(_N_SAMPLINGS):
        drawn = np.sort(generator.choice(steps, m, replace=False))
        found = ps.spectrum(gram, steps=drawn, time_vectors=False)
        counts.append(ps.count_above(found.S, 0.1))
        nulls.append(ps.count_above(ps.norm_null(found).S, 0.1))
    return {"count": float(np.mean(counts)), "null_count": float(np.mean(nulls))}


def _bases(
    config: Config, data: _Data, scratch: Path, own: ps.Run
) -> tuple[dict[str, ps.Subspace], list[float]]:
    """The directions of every source, and the singular values of the run's own updates."""
    k = max(ks_of(config))
    n = own.parameters.size
    other = _record(config, data, scratch / "order", config.seed, config.seed + _OTHER_ORDER)
    start = config.seed + _OTHER_START
    elsewhere = _record(config, data, scratch / "start", start, start)
    spectrum = ps.spectrum(ps.gram(own.updates), time_vectors=False)
    dimensions = [d for d in DIMENSIONS if d <= n // 4]
    bases = {
        TOP: leading_subspace(own.updates, k),
        OTHER_ORDER: leading_subspace(other.updates, k),
        OTHER_START: leading_subspace(elsewhere.updates, k),
        FROZEN: leading_subspace(_frozen_updates(config, data, scratch), k),
        RANDOM: random_subspace(n, max(k, *dimensions), seed=config.seed + _RANDOM),
    }
    values = (spectrum.S / spectrum.S[0])[: max(k, 300)]
    return bases, compact(values.tolist(), 4)


def _frozen_updates(config: Config, data: _Data, scratch: Path) -> np.ndarray | Tensor:
    """What the optimizer would do at the initial weights if they never moved."""
    batches = data.batches(config, config.seed + _FROZEN)
    path = scratch / "frozen.npy"
    gradients = frozen_gradients(_model(config, data), batches, config.n_steps, path)
    if config.optimizer == "sgd":
        return gradients  # updates but for a factor
    rows = torch.from_numpy(np.array(gradients))
    moments = [[torch.zeros(rows.shape[1])] for _ in range(2)]
    for step, row in enumerate(rows, start=1):
        rows[step - 1] = adam_updates([row], moments, step, config.learning_rate)[0]
    return rows


def _overlaps(bases: dict[str, ps.Subspace], config: Config) -> dict[str, list[float]]:
    """Overlap (1/k) ‖U Vᵀ‖² of each source's first k directions with the run's own."""
    own = bases[TOP].basis
    found = {}
    for name in SOURCES[1:]:
        squares = (own @ bases[name].basis.T).square().double()
        found[name] = [float(squares[:k, :k].sum() / k) for k in ks_of(config)]
    return found


def _evaluation_steps(config: Config) -> list[int]:
    """Step 0 and log-spaced steps, the last one included."""
    spaced = np.geomspace(1, config.n_steps, config.n_evaluations - 1).round().astype(int)
    return [0, *sorted(set(spaced.tolist()))]


def _measured(layers: list[Tensor], data: _Data) -> list[dict[str, float | None]]:
    """Final numbers of every model, on all test images and on some of the training."""
    loss, right = evaluate(layers, data.test_x, data.test_y)
    train_loss, _ = evaluate(layers, data.x[:_N_TRAIN], data.y[:_N_TRAIN])
    return [
        {"test_loss": _number(a), "test_accuracy": b, "train_loss": _number(c)}
        for a, b, c in zip(loss.tolist(), right.tolist(), train_loss.tolist(), strict=True)
    ]


def _number(value: float) -> float | None:
    """A number for JSON, which has no infinity: None for a loss that diverged."""
    return value if math.isfinite(value) else None


def _curve_point(layers: list[Tensor], data: _Data) -> list[float | None]:
    loss, _ = evaluate(layers, data.test_x[:_N_CURVE], data.test_y[:_N_CURVE])
    return [_number(float(f"{value:.4g}")) for value in loss.tolist()]


def _offline(
    config: Config,
    data: _Data,
    start: Tensor,
    own: ps.Run,
    bases: dict[str, ps.Subspace],
    steps: list[int],
) -> list[dict[str, Any]]:
    """The recorded updates projected, for every source and k."""
    rows, weights = [], []
    ks = ks_of(config)
    for source in SOURCES:
        basis = ps.Subspace(source, bases[source].basis[: max(ks)])
        moved = replay(own.updates, basis, steps=steps)
        if source == TOP:
            rows.append({"variant": FULL, "k": 0, "captured": 1.0})
            weights.append(start + moved.displacement)
        for k in ks:
            captured = float(moved.captured(k)[-1])
            rows.append({"variant": source, "k": k, "captured": captured})
            weights.append(start + moved.inside(k))
            if source == TOP:
                rows.append({"variant": COMPLEMENT, "k": k, "captured": 1 - captured})
                weights.append(start + moved.outside(k))
    by_step = torch.stack(weights, dim=1)
    curves = [_curve_point(split(w, data.sizes), data) for w in by_step]
    final = _measured(split(by_step[-1], data.sizes), data)
    return [
        row | measured | {"curve": [point[i] for point in curves]}
        for i, (row, measured) in enumerate(zip(rows, final, strict=True))
    ]


def members(config: Config, n_parameters: int) -> list[Member]:
    """Every alternative model; those of the original order first."""
    ks = ks_of(config)
    found = []
    for order in ("original", "fresh"):
        found.append(Member(FULL, 0, order))
        found += [Member(TOP, k, order, TOP) for k in ks]
        found += [Member(COMPLEMENT, k, order, TOP, keep=False) for k in ks]
    for source in (OTHER_ORDER, OTHER_START, FROZEN):
        found += [Member(source, k, "fresh", source) for k in ks]
    dimensions = [d for d in DIMENSIONS if d <= n_parameters // 4]
    for variant, rate in RANDOM_RATES.items():
        for k in ks if rate == "1" else dimensions:
            power = {"1": 0.0, "root": 0.5, "full": 1.0}[rate]
            factor = (n_parameters / k) ** power
            found.append(Member(variant, k, "fresh", RANDOM, rate=factor))
    return found


def _online(
    config: Config,
    data: _Data,
    start: Tensor,
    bases: dict[str, ps.Subspace],
    steps: list[int],
    progress: Callable[[float], None],
) -> list[dict[str, Any]]:
    """Trainings with projected updates, all at once."""
    models = members(config, len(start))
    ensemble = Ensemble(
        start,
        data.sizes,
        models,
        {name: subspace.basis for name, subspace in bases.items()},
        optimizer=config.optimizer,
        learning_rate=config.learning_rate,
    )
    orders = {
        "original": data.batches(config, config.seed),
        "fresh": data.batches(config, config.seed + _FRESH),
    }
    curves = [_curve_point(ensemble.layers, data)]
    for step in range(1, config.n_steps + 1):
        ensemble.update({order: next(batches) for order, batches in orders.items()})
        if step in steps:
            curves.append(_curve_point(ensemble.layers, data))
        if step % 10 == 0:
            progress(step / config.n_steps)
    return [
        {"variant": m.variant, "k": m.k, "order": m.order, "rate": m.rate}
        | measured
        | {"curve": [point[i] for point in curves]}
        for i, (m, measured) in enumerate(
            zip(models, _measured(ensemble.layers, data), strict=True)
        )
    ]
