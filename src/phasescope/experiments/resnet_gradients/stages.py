"""What freezing stages saves, and where a training could have been stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from phasescope.experiments.resnet_gradients.config import Config
from phasescope.experiments.resnet_gradients.training import frozen_stages, network, window
from phasescope.interventions import settled


def multiply_adds(model: nn.Module, x: Tensor, stages: Sequence[str]) -> list[int]:
    """Multiplications of the convolutions and linear layers of each stage in a forward pass.

    Args:
        model: The network.
        x: One input.
        stages: Names of its modules, several of one stage joined by a space.
    """
    counts = [0] * len(stages)
    hooks = []
    for i, stage in enumerate(stages):
        for name in stage.split():
            for module in model.get_submodule(name).modules():
                if isinstance(module, nn.Conv2d | nn.Linear):

                    def count(module: nn.Module, args: Any, out: Tensor, i: int = i) -> None:
                        weight = module.weight
                        assert isinstance(weight, Tensor)
                        places = out[0, 0].numel() if out.ndim == 4 else 1
                        counts[i] += weight.numel() * places

                    hooks.append(module.register_forward_hook(count))
    with torch.no_grad():
        model(x[:1])
    for hook in hooks:
        hook.remove()
    return counts


def share_saved(costs: Sequence[int], frozen_at: Sequence[int | None], n_steps: int) -> float:
    """Share of the computation of a training that freezing saves.

    A stage costs its multiplications once in the forward pass and twice in the backward pass (for
    its weights and for its inputs), which is what it saves from the step on at which it is frozen.

    Args:
        costs: Multiplications of each stage.
        frozen_at: Step at which each was frozen; None if never.
        n_steps: Steps of the training.
    """
    saved = sum(
        2 * cost * (n_steps - at)
        for cost, at in zip(costs, frozen_at, strict=True)
        if at is not None
    )
    return saved / (3 * sum(costs) * n_steps)


def stage_numbers(config: Config, watched: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of a run's stages.

    Args:
        config: The run.
        watched: ``movement``, ``frozen_at`` and ``cpu_seconds`` of the training.
    """
    stages = frozen_stages(config)
    x = torch.zeros(1, 3, config.image_size, config.image_size)
    costs = multiply_adds(network(config).eval(), x, stages)
    windows = [settled(row) for row in watched["movement"]]
    known = [w for w in windows if w is not None]
    stop = (max(known) + 1) * window(config) if len(known) == len(windows) else None
    return {
        "names": list(stages),
        "multiply_adds": costs,
        **watched,
        "settled": windows,
        "saved": share_saved(costs, watched["frozen_at"], config.n_steps),
        "stop": stop,
    }
