"""What a recording consists of, worked out before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from phasescope.components import ComponentNorms, Subspace
from phasescope.parameters import Component, ParameterTable
from phasescope.trajectory.captures import Summary
from phasescope.trajectory.optimizers import DecayFactor, decay_factor
from phasescope.trajectory.plan import group_specs, parse_save
from phasescope.trajectory.probes import Probe
from phasescope.trajectory.runfile import as_json
from phasescope.trajectory.schedule import Schedule
from phasescope.trajectory.schema import COMPONENT, TENSOR
from phasescope.trajectory.sketch import CountSketch
from phasescope.trajectory.store import ArraySpec

if TYPE_CHECKING:
    from phasescope.trajectory.sinks import Sink


@dataclass(frozen=True)
class Contents:
    """What a recording consists of."""

    save: Mapping[str, Mapping[str, Schedule]]
    """Group, part of it, schedule."""
    specs: Mapping[str, Mapping[str, ArraySpec]]
    """Arrays of every group but the probes."""
    n_steps: int | None
    """Length of the run, if known."""
    decay: DecayFactor | None
    """The rule of decoupled decay, if known."""
    probes: Mapping[str, Probe]
    """Named functions of the model."""
    summaries: Mapping[str, Summary]
    """Per group of summaries, the function of one tensor per parameter."""
    labels: Mapping[str, Mapping[str, tuple[str, ...]]]
    """Per group, the names along its dimensions."""
    sinks: Sequence[Sink]
    """Who else gets the metrics and norms."""
    components: Mapping[str, Component | Subspace]
    """Whose norms are recorded."""
    sketch: CountSketch | None
    """The sketch that is recorded."""

    @property
    def spaced_groups(self) -> list[str]:
        """The groups that have a schedule for which the length of the run must be known."""
        return [
            group
            for group, schedules in self.save.items()
            if any(schedule.needs_n_steps for schedule in schedules.values())
        ]


def make_contents(
    save: Mapping[str, Schedule],
    table: ParameterTable,
    optimizer: torch.optim.Optimizer,
    *,
    n_steps: int | None,
    dtype: str,
    decay: DecayFactor | None,
    probes: Mapping[str, Probe],
    components: Mapping[str, Component | Subspace],
    sketch: CountSketch | None,
    sinks: Sequence[Sink],
) -> Contents:
    """The contents that the arguments of a `Recorder` describe.

    Raises:
        KeyError: `save` names something that does not exist.
        TypeError: `save` holds something that is no schedule.
        ValueError: The arguments do not fit together.
    """
    if not isinstance(components, Mapping):
        raise TypeError(
            "components= takes components by name, but "
            f"{type(components).__name__} arrived. Write components=ps.components(model, 'layers')."
        )
    parsed = parse_save(save, probes)
    factor = decay or decay_factor(optimizer)
    specs = group_specs(
        parsed,
        table,
        optimizer,
        dtype=dtype,
        decay_known=factor is not None,
        n_components=len(components),
        sketch_size=sketch.size if sketch is not None else 0,
    )
    for schedules in parsed.values():
        for schedule in schedules.values():
            schedule.resolve(n_steps)
    summaries: dict[str, Summary] = {}
    if components:
        summaries["component_norms"] = ComponentNorms(components, table)
    if sketch is not None:
        summaries["sketches"] = sketch.apply
    labels = {"norms": {TENSOR: table.names}, "component_norms": {COMPONENT: tuple(components)}}
    return Contents(
        save=parsed,
        specs=specs,
        n_steps=n_steps,
        decay=factor,
        probes=dict(probes),
        summaries=summaries,
        labels=labels,
        sinks=tuple(sinks),
        components=dict(components),
        sketch=sketch,
    )


def describe(
    contents: Contents,
    save: Mapping[str, Schedule],
    table: ParameterTable,
    optimizer: torch.optim.Optimizer,
    dtype: str,
    loss_reduction: str,
    config: Any,
) -> dict[str, Any]:
    """What run.json says about a recording before it starts."""
    return {
        "parameters": table.to_json(),
        # A subspace by its dimension only: its basis is as large as k models.
        "components": [
            {"name": name, "directions": len(part.basis)}
            if isinstance(part, Subspace)
            else {"name": name, "blocks": part.blocks.tolist()}
            for name, part in contents.components.items()
        ],
        "sketch": contents.sketch.to_json() if contents.sketch is not None else None,
        "save": {key: str(schedule) for key, schedule in save.items()},
        "n_steps": contents.n_steps,
        "dtype": dtype,
        "loss_reduction": loss_reduction,
        "optimizer": type(optimizer).__name__,
        "decay": "split" if contents.decay is not None else "not split",
        "config": as_json(config),
    }
