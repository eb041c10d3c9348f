"""Scales of Adam's updates over training, and what they are before spikes.

Letters: t steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

import phasescope as ps
from phasescope.experiments.grokking.config import Config
from phasescope.report.plain import plain_value

SCALES = (
    "gradient_norm",
    "root_second_moment",
    "share_below_epsilon",
    "normalised",
    "step_norm",
)
PREFIX = "adam_"
BEFORE = 10  # steps before the start of a spike over which a scale is looked at
NEAR = 100  # steps on either side of a spike that are not quiet
N_POINTS = 60  # of the series that is kept

Moments = tuple[Tensor, Tensor, Tensor]


def torch_moments(optimizer: torch.optim.Optimizer) -> Moments:
    """Gradient and both moments of all parameters of an optimizer of PyTorch's Adams, one row."""
    states = [
        (p.grad, optimizer.state[p]) for group in optimizer.param_groups for p in group["params"]
    ]
    kept = [(g, s) for g, s in states if g is not None and "exp_avg" in s]
    flat = [
        torch.cat([tensor.flatten() for tensor in tensors])[None]
        for tensors in (
            [g for g, _ in kept],
            [s["exp_avg"] for _, s in kept],
            [s["exp_avg_sq"] for _, s in kept],
        )
    ]
    return flat[0], flat[1], flat[2]


def follow_scales(
    config: Config,
    optimizer: torch.optim.Optimizer,
    moments: Callable[[], Moments],
    file: Callable[[int, dict[str, Any]], Any],
) -> None:
    """File Adam's scales after every update that is due; plain gradient descent has none.

    Args:
        config: What is trained; `scales_every` says how often.
        optimizer: Whose updates are followed.
        moments: Gradient, first and second moment after an update, one row for each seed.
        file: Called with the number of updates before this one, and the scales by name: numbers of
            the only seed, or lists over seeds.
    """
    if not config.scales_every or config.optimizer != "adamw":
        return
    n_updates = 0

    def after(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        nonlocal n_updates
        n_updates = int(n_updates + 1)
        first = optimizer.param_groups[0]["params"][0]
        state = optimizer.state.get(first, {})
        if "step" in state:  # after a resume the count goes on
            n_updates = int(state["step"])
        if (n_updates - 1) % config.scales_every:
            return
        rates = torch.as_tensor(optimizer.param_groups[0]["lr"]).flatten()
        rows = [
            asdict(
                ps.adam_scales(
                    g,
                    m,
                    v,
                    step=n_updates,
                    learning_rate=float(rates[min(i, len(rates) - 1)]),
                    betas=(config.beta1, config.beta2),
                    epsilon=config.eps,
                )
            )
            for i, (g, m, v) in enumerate(zip(*moments(), strict=True))
        ]
        named = {PREFIX + name: [row[name] for row in rows] for name in SCALES}
        alone = {name: values[0] for name, values in named.items()}
        file(n_updates - 1, named if len(rows) > 1 else alone)

    optimizer.register_step_post_hook(after)


def recorded_scales(run: ps.Run) -> dict[str, Tensor]:
    """The scales of a recorded run with their steps; empty where there are none."""
    first = f"metrics/{PREFIX}{SCALES[0]}"
    if first not in run.series_names:
        return {}
    values = {n: torch.from_numpy(run[f"metrics/{PREFIX}{n}"][:, 0]).double() for n in SCALES}
    # Metrics share their steps: where a scale was not due it is NaN.
    due = values[SCALES[0]].isfinite()
    steps = torch.from_numpy(run[first].steps).long()
    return {"steps": steps[due], **{name: value[due] for name, value in values.items()}}


def scales_numbers(scales: Mapping[str, Tensor], found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Every scale just before upward spikes of the training loss, beside quiet steps.

    Args:
        scales: Values by name, and ``"steps"``.
        found: Numbers of the run, with its spikes and times.

    Returns:
        Medians: over spikes of the scale's mean over the steps just before, and over the steps
        after memorisation that no spike is near; None where nothing was recorded.
    """
    if not len(scales):
        return None
    steps = scales["steps"].numpy()
    spikes = found["spikes"]["train_loss_up"]
    begun = found["times"]["memorised"]
    quiet = np.zeros(len(steps), dtype=bool) if begun is None else steps >= begun
    for start, end in zip(spikes["start"], spikes["end"], strict=True):
        quiet &= (steps < start - NEAR) | (steps > end + NEAR)
    thin = np.unique(np.linspace(0, len(steps) - 1, N_POINTS).astype(int))
    numbers: dict[str, Any] = {"series": {"steps": steps[thin].tolist()}}
    for name in SCALES:
        values = scales[name].numpy()
        before = [
            float(values[window].mean())
            for start in spikes["start"]
            if begun is not None and start >= begun
            for window in [(steps >= start - BEFORE) & (steps < start)]
            if window.any()
        ]
        numbers["series"][name] = values[thin].tolist()
        numbers[name] = {
            "before_spikes": float(np.median(before)) if before else None,
            "quiet": float(np.median(values[quiet])) if quiet.any() else None,
            "n_spikes": len(before),
        }
    return plain_value(numbers)
