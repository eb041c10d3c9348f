"""What a recording consists of, worked out before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from phasescope.parameters import ParameterTable
from phasescope.trajectory.captures import Summary
from phasescope.trajectory.flat import tensor_norms
from phasescope.trajectory.optimizers import DecayFactor, decay_factor
from phasescope.trajectory.plan import group_specs, parse_save
from phasescope.trajectory.probes import Probe
from phasescope.trajectory.schedule import Schedule
from phasescope.trajectory.schema import COMPONENT, TENSOR
from phasescope.trajectory.store import ArraySpec

if TYPE_CHECKING:
    from phasescope.trajectory.sketch import CountSketch
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


def make_contents(
    save: Mapping[str, Schedule],
    table: ParameterTable,
    optimizer: torch.optim.Optimizer,
    *,
    n_steps: int | None,
    dtype: str,
    decay: DecayFactor | None,
    probes: Mapping[str, Probe],
    components: Mapping[str, Any],
    sketch: CountSketch | None,
    sinks: Sequence[Sink],
) -> Contents:
    """The contents that the arguments of a `Recorder` describe.

    Raises:
        KeyError: `save` names something that does not exist.
        TypeError: `save` holds something that is no schedule.
        ValueError: The arguments do not fit together.
    """
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
    summaries: dict[str, Summary] = {"norms": tensor_norms}
    if components:
        from phasescope.components.norms import ComponentNorms

        summaries["component_norms"] = ComponentNorms(components, table)
    if sketch is not None:
        summaries["sketches"] = sketch.apply
    labels = {"norms": {TENSOR: table.names}, "component_norms": {COMPONENT: tuple(components)}}
    return Contents(parsed, specs, n_steps, factor, dict(probes), summaries, labels, tuple(sinks))
