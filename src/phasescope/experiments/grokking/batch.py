"""Many seeds of one setting trained as one batch: numbers of every seed, and no recording.

Per seed it costs half of what a recorded run does, and every seed takes the steps that it would
take alone, up to rounding. An interrupted batch begins anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from phasescope.experiments.grokking.config import Config, Results, members
from phasescope.experiments.grokking.measures import measured
from phasescope.experiments.grokking.scales import PREFIX, SCALES, follow_scales, scales_numbers
from phasescope.experiments.grokking.training import (
    LOSSES,
    measured_schedule,
    network_of,
    task_of,
)
from phasescope.models import PairEnsemble, PairTransformer
from phasescope.training import (
    EnsembleAdam,
    EnsembleSGD,
    EnsembleSteps,
    LearningRate,
    Rejecting,
    TrainingCurves,
    train_full_batch,
)

Examples = tuple[Tensor, Tensor]
TRAINING = 0.85  # share of a batch's time


def run_batch(config: Config, tell: Callable[[float, str], None]) -> Results:
    """Train all seeds of a batch and measure each.

    Args:
        config: The setting, with `n_seeds` above 1.
        tell: Called with the share of the work done and what is being done.
    """
    singles = members(config)
    ensemble = PairEnsemble([network_of(single) for single in singles])
    kept: dict[int, Tensor] = {}
    scales: dict[str, list[Any]] = {"steps": []} | {name: [] for name in SCALES}
    curves = _train(
        config, singles, ensemble, kept, scales, lambda x: tell(TRAINING * x, "training")
    )
    steps = sorted(kept)
    numbers = []
    for i, single in enumerate(singles):

        def network(step: int, i: int = i) -> PairTransformer:
            with torch.no_grad():
                ensemble.vector.copy_(kept[step])
            return ensemble.member(i).eval()

        alone = _of_seed(curves, i)
        found = measured(single, steps, network, alone, lambda share: None)
        found["scales"] = scales_numbers(_scales_of(scales, i), found)
        numbers.append(found)
        tell(TRAINING + (1 - TRAINING) * (i + 1) / len(singles), "measuring")
    n_parameters = sum(p.numel() for p in network_of(singles[0]).parameters())
    return Results(config, {"n_parameters": n_parameters, "seeds": numbers})


def _train(
    config: Config,
    singles: list[Config],
    ensemble: PairEnsemble,
    kept: dict[int, Tensor],
    scales: dict[str, list[Any]],
    tell: Callable[[float], None],
) -> TrainingCurves:
    train, test = _examples(singles)
    loss_fn = LOSSES[config.loss_dtype]
    rule = _rule(config)
    steps = EnsembleSteps(ensemble, rule)
    optimizer: torch.optim.Optimizer = steps
    if config.reject_rises:

        def train_loss() -> Tensor:
            with torch.no_grad():
                return loss_fn(ensemble(train[0]), train[1]).mean(-1)

        optimizer = Rejecting(steps, train_loss)
    rate = LearningRate(
        optimizer, warmup_steps=config.warmup_steps, decay_on_rise=config.decay_on_rise
    )

    def moments() -> tuple[Tensor, Tensor, Tensor]:
        state = rule.state_dict()
        assert ensemble.vector.grad is not None
        return ensemble.vector.grad, state["vector.m"], state["vector.v"]

    def file(step: int, row: dict[str, Any]) -> None:
        scales["steps"].append(step)
        for name in SCALES:
            scales[name].append(row[PREFIX + name])

    follow_scales(config, optimizer, moments, file)
    due = {*measured_schedule(config).steps(config.n_steps), config.n_steps}

    def on_step(step: int, metrics: dict[str, Tensor]) -> None:
        if step in due:
            kept[step] = ensemble.vector.detach().clone()
        if step % 20 == 0:
            tell(step / config.n_steps)

    return train_full_batch(
        ensemble,
        optimizer,
        train,
        test,
        config.n_steps,
        loss_fn=loss_fn,
        rate=rate,
        on_step=on_step,
        compiled=config.compiled,
    )


def _rule(config: Config) -> EnsembleAdam | EnsembleSGD:
    if config.optimizer == "sgd":
        return EnsembleSGD(config.learning_rate, weight_decay=config.weight_decay)
    return EnsembleAdam(
        config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        decoupled=True,
    )


def _examples(singles: list[Config]) -> tuple[Examples, Examples]:
    """Pairs and labels of every seed's own split, with the seeds in front."""
    sets = []
    for single in singles:
        task, split = task_of(single)
        sets.append((task.examples(split.train), task.examples(split.test)))
    train, test = (
        (torch.stack([s[part][0] for s in sets]), torch.stack([s[part][1] for s in sets]))
        for part in (0, 1)
    )
    return train, test


def _of_seed(curves: TrainingCurves, i: int) -> TrainingCurves:
    names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    return TrainingCurves(curves.steps, **{n: getattr(curves, n)[:, i].double() for n in names})


def _scales_of(scales: dict[str, list[Any]], i: int) -> dict[str, Tensor]:
    if not scales["steps"]:
        return {}
    found = {"steps": torch.tensor(scales["steps"])}
    return found | {
        name: torch.tensor([row[i] for row in scales[name]], dtype=torch.float64) for name in SCALES
    }
