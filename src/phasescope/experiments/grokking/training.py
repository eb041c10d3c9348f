"""The task, the network and the training of a run; and the network as it was at a step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import phasescope as ps
from phasescope.datasets import Split, Task, modular_task, split_pairs
from phasescope.experiments.grokking.config import Config
from phasescope.experiments.grokking.scales import follow_scales, torch_moments
from phasescope.models import PairTransformer
from phasescope.training import (
    LearningRate,
    Rejecting,
    TrainingCurves,
    cross_entropy_float32,
    cross_entropy_float64,
    train_full_batch,
)

LOSSES = {"float64": cross_entropy_float64, "float32": cross_entropy_float32}
_METRICS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


def task_of(config: Config) -> tuple[Task, Split]:
    """The task of a configuration, and which of its pairs are trained on."""
    task = modular_task(config.operation, config.p, units_only=config.units_only)
    seed = config.seed if config.data_seed is None else config.data_seed
    return task, split_pairs(len(task.labels), config.train_fraction, seed=seed)


def network_of(config: Config) -> PairTransformer:
    """The network of a configuration with its initial weights."""
    return PairTransformer(
        config.p,
        d_model=config.d_model,
        n_heads=config.n_heads,
        d_mlp=config.d_mlp,
        n_layers=config.n_layers,
        activation=config.activation,
        init=config.init,
        attention_rate=config.attention_rate,
        generator=torch.Generator().manual_seed(config.seed),
    )


def measured_schedule(config: Config) -> ps.Schedule:
    """The steps at which the network is measured; `spectra_every` keeps weights at more."""
    return ps.log_spaced(config.n_log_spaced) | ps.every(config.weights_every)


def measured_rows(config: Config, run: ps.Run) -> list[int]:
    """Rows of a run's weights at which the network is measured, the last one included."""
    steps = run["weights"].steps.tolist()
    wanted = set(measured_schedule(config).steps(config.n_steps)) | {steps[-1]}
    return [row for row, step in enumerate(steps) if step in wanted]


def network_at(config: Config, run: ps.Run, row: int) -> PairTransformer:
    """The network with the weights of one row of a run's weights.

    Args:
        config: The run's configuration.
        run: The run.
        row: Row of ``run.weights``; -1 for the end.
    """
    weights = run["weights"]
    row = row % len(weights)
    vector = torch.from_numpy(weights[row : row + 1][0])
    model = network_of(config)
    model.load_state_dict(run.parameters.unflatten(vector))
    return model.eval()


def curves_of(run: ps.Run) -> TrainingCurves:
    """The curves of a finished run."""
    values = {name: torch.from_numpy(run[f"metrics/{name}"][:, 0]).double() for name in _METRICS}
    return TrainingCurves(torch.from_numpy(run["metrics/test_loss"].steps).long(), **values)


def train(
    config: Config, directory: Path, *, progress: Callable[[float], None] = lambda share: None
) -> ps.Run:
    """Train and record; an interrupted training goes on from its last checkpoint.

    Args:
        config: What to train.
        directory: The run's directory.
        progress: Called with the share that is done.
    """
    task, split = task_of(config)
    pairs, test = task.examples(split.train), task.examples(split.test)
    loss_fn = LOSSES[config.loss_dtype]
    model = network_of(config)
    optimizer = _optimizer(config, model)
    if config.reject_rises:

        def train_loss() -> Tensor:
            with torch.no_grad():
                return loss_fn(model(pairs[0]), pairs[1]).mean()

        optimizer = Rejecting(optimizer, train_loss)
    rate = LearningRate(
        optimizer, warmup_steps=config.warmup_steps, decay_on_rise=config.decay_on_rise
    )
    save = {"weights": measured_schedule(config), "norms": ps.every(1)}
    if config.spectra_every:
        save["weights"] |= ps.every(config.spectra_every)
        save["gradients"] = ps.every(config.spectra_every)
    with ps.Recorder(
        directory,
        model,
        optimizer,
        save=save,
        n_steps=config.n_steps,
        checkpoint=ps.every(max(1, config.n_steps // 10)),
        state={"rate": rate},
        config=config,
        loss_reduction="mean",
        resume=True,
    ) as recorder:
        follow_scales(
            config,
            optimizer,
            lambda: torch_moments(optimizer),
            lambda step, row: recorder.log(**row),
        )
        train_full_batch(
            model,
            optimizer,
            pairs,
            test,
            config.n_steps,
            loss_fn=loss_fn,
            rate=rate,
            recorder=recorder,
            on_step=lambda step, metrics: progress(step / config.n_steps),
            compiled=config.compiled,
        )
    return ps.open_run(directory)


def _optimizer(config: Config, model: PairTransformer) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    if config.optimizer == "sgd":
        return torch.optim.SGD(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.AdamW(
        trained,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )
