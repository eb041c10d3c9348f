"""What is read off a recorded run: shapes of its norms, noise, smoothing, movement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import phasescope as ps
from phasescope.experiments.resnet_gradients.config import Config, Detail
from phasescope.experiments.resnet_gradients.layers import Layer, resnet_layers
from phasescope.experiments.resnet_gradients.training import images, network

N_BLOCKS = 20
SMOOTHINGS = (0.0, 0.08, 0.92)  # none, as the source writes, as it probably meant
N_NOISE = 10  # snapshots at which gradients of half batches are taken


def norms(recorded: ps.Run, config: Config) -> Detail:
    """Norms of every layer at equally spaced steps."""
    steps = np.asarray(recorded["norms/gradients"].steps)
    due = (steps % config.norms_every == 0) & (steps < config.n_steps)
    names = recorded.parameters.names
    layers = resnet_layers(names)

    def of_layers(which: str) -> Tensor:
        group = recorded[f"norms/{which}"]
        rows = torch.from_numpy(np.isin(np.asarray(group.steps), steps[due]))
        squares = torch.from_numpy(np.asarray(group[:]))[rows].double().square()
        return torch.stack(
            [squares[:, [names.index(p) for p in x.parameters]].sum(1).sqrt() for x in layers]
        )

    return Detail(steps[due], of_layers("gradients"), of_layers("weights"))


def measured(recorded: ps.Run, config: Config) -> dict[str, Any]:
    """Every number of a run."""
    layers = resnet_layers(recorded.parameters.names)
    loss, test, final = (
        np.asarray(recorded[f"metrics/{name}"][:, 0])
        for name in ("train_loss", "test_accuracy", "final_accuracy")
    )
    epoch = config.n_steps // config.n_epochs
    numbers = {
        "layers": [x.name for x in layers],
        "kinds": [x.kind for x in layers],
        "depths": [x.depth for x in layers],
        "invariant": [x.invariant for x in layers],
        "half batches": _half_batches(recorded, config, layers),
        "curves": {
            "train_loss": loss[: config.n_steps].reshape(-1, epoch).mean(1).tolist(),
            "test_accuracy": test[np.isfinite(test)].tolist(),
        },
        "final_accuracy": float(final[np.isfinite(final)][-1]),
    }
    if config.freezing == "none":  # else norms are zero from some step on
        numbers |= _shapes(norms(recorded, config), config)
    return numbers


def _shapes(found: Detail, config: Config) -> dict[str, Any]:
    """Shapes of the norms of all layers."""
    gradients = ps.norm_shapes(found.gradients, n_blocks=N_BLOCKS)
    angular = ps.norm_shapes(found.gradients * found.weights, n_blocks=N_BLOCKS)
    weights = ps.norm_shapes(found.weights, n_blocks=N_BLOCKS)
    block = len(found.steps) // N_BLOCKS
    return {
        "gradients": _numbers(gradients, block, config),
        "angular": _numbers(angular, block, config),
        "weights": {"blocks": weights.blocks.tolist()},
        "smoothing": _smoothing(found, block, config),
    }


def _numbers(shapes: ps.NormShapes, block: int, config: Config) -> dict[str, Any]:
    """Shapes of the curves of all layers; steps instead of indices."""
    half = shapes.half_drop * config.norms_every
    return {
        "start": shapes.start.tolist(),
        "drop": shapes.drop.tolist(),
        "rise": shapes.rise.tolist(),
        "second_fall": shapes.second_fall.tolist(),
        "double_descent": shapes.double_descent.tolist(),
        "reversal": [x if np.isfinite(x) else None for x in shapes.reversal.tolist()],
        "noise": shapes.noise.tolist(),
        "movement": shapes.movement(block).tolist(),
        "half_drop": [None if np.isnan(x) else x for x in half.tolist()],
        "blocks": shapes.blocks.tolist(),
    }


def _smoothing(found: Detail, block: int, config: Config) -> dict[str, Any]:
    """Scatter around the slow curve and time of the drop, by smoothing."""
    y = found.gradients.log2()
    window = 2 * (block // 2) + 1
    slow = functional.avg_pool1d(y[:, None], window, 1, window // 2, count_include_pad=False)[:, 0]
    rows = {}
    for s in SMOOTHINGS:
        scatter = (ps.ema(y, s) - slow)[:, block:].std(1)
        half = ps.norm_shapes(found.gradients, n_blocks=N_BLOCKS, smoothing=s).half_drop
        half = half * config.norms_every
        rows[f"{s:g}"] = {
            "scatter": scatter.tolist(),
            "half_drop": [None if np.isnan(x) else x for x in half.tolist()],
        }
    return rows


def _half_batches(recorded: ps.Run, config: Config, layers: Sequence[Layer]) -> dict[str, Any]:
    """Noise and squared norm of the gradient of a batch, and cos(g, w), at weights that were kept.

    The noise is that of `half_batch_noise`, ‖a − b‖²/4; single values scatter, sums do not.

    Batches are drawn for this, with a generator of their own; batch norm takes the statistics of
    each half.
    """
    (x, y), _, _ = images(config)
    model = network(config).train()
    table = recorded.parameters
    kept = recorded.weights
    rows = np.unique(np.linspace(0, len(kept.steps) - 1, N_NOISE).round().astype(int))
    generator = torch.Generator().manual_seed(20_000 + config.seed)
    noises, squares, cosines = [], [], []
    parameters = dict(model.named_parameters())
    components = {
        x.name: ps.Component(x.name, sorted(table.interval(name) for name in x.parameters))
        for x in layers
    }
    columns = [component.columns for component in components.values()]
    for row in rows:
        vector = torch.from_numpy(np.asarray(kept[row : row + 1]))[0]
        with torch.no_grad():
            for name, value in table.unflatten(vector).items():
                parameters[name].copy_(value)
        chosen = torch.randperm(len(x), generator=generator)[: 2 * (config.batch_size // 2)]
        halves = []
        for part in chosen.chunk(2):
            loss = functional.cross_entropy(model(x[part]), y[part])
            halves.append(torch.autograd.grad(loss, list(parameters.values())))
        a, b = (table.flatten(dict(zip(parameters, g, strict=True)))[None] for g in halves)
        found = ps.half_batch_noise(a, b, components=components)
        noises.append(found.noise[:, 0].tolist())
        squares.append((found.signal + found.noise)[:, 0].tolist())
        whole, w = ((a.double() + b.double()) / 2)[0], vector.double()
        cosines.append([float(functional.cosine_similarity(whole[c], w[c], 0)) for c in columns])
    return {
        "steps": np.asarray(kept.steps)[rows].tolist(),
        "noise": np.array(noises).T.tolist(),
        "squared_norm": np.array(squares).T.tolist(),
        "cosine": np.array(cosines).T.tolist(),
    }
