"""Trainings in which it is known when something happened, and where: to score detectors on.

Letters: t recorded steps.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_FILE = "transitions.safetensors.xz"
# Bits of the mantissa that are stored: 3e-5 of a value, and 5e-4 of the series of components.
_BITS, _BITS_OF_COMPONENTS = 15, 11


@dataclass(frozen=True)
class KnownEvent:
    """Something that happened in a training, according to a progress measure or by construction."""

    name: str
    """The measure that rose, or what was done."""
    start: int
    """Step from which a tenth of the measure's rise has been made for good."""
    middle: int
    """The same for half of it."""
    end: int
    """The same for nine tenths."""
    components: tuple[str, ...] = ()
    """Where it happened, by the names that component signals have; empty if that is not known."""


@dataclass(frozen=True, eq=False)
class KnownRun:
    """One training: signals that could be logged anywhere, and what is known to have happened."""

    system: str
    """What was trained."""
    seed: int
    """Of weights and data."""
    steps: Int64[Tensor, " t"]
    """Recorded steps."""
    signals: Mapping[str, Float[Tensor, " t"]]
    """Curves by name. Those of components are ``gradient_norm/NAME`` and ``update_norm/NAME``; the
    update is what the optimizer adds to the weights, decoupled decay left out."""
    progress: Mapping[str, Float[Tensor, " t"]]
    """The progress measures that the events were read off. Not for detectors."""
    events: tuple[KnownEvent, ...]
    """What happened; nothing in a run that is there to raise false alarms."""
    rate_changes: tuple[int, ...] = ()
    """Steps at which the learning rate changed."""

    @property
    def components(self) -> list[str]:
        """Names of the components that have signals."""
        prefix = "update_norm/"
        return [name.removeprefix(prefix) for name in self.signals if name.startswith(prefix)]


@dataclass(frozen=True, eq=False)
class KnownRuns:
    """The runs of the data set."""

    runs: tuple[KnownRun, ...]
    """All of them, system by system."""
    provenance: Mapping[str, Any]
    """How they were made: configurations, commit, versions, seconds."""

    def __repr__(self) -> str:
        """How many runs of which systems."""
        return f"KnownRuns({len(self.runs)} runs of {len(self.systems)} systems)"

    def __len__(self) -> int:
        """Number of runs."""
        return len(self.runs)

    def __iter__(self) -> Iterator[KnownRun]:
        """The runs, system by system."""
        return iter(self.runs)

    @property
    def systems(self) -> tuple[str, ...]:
        """Names of the systems, in their order."""
        return tuple(dict.fromkeys(run.system for run in self.runs))

    def of(self, system: str) -> tuple[KnownRun, ...]:
        """The runs of a system.

        Args:
            system: Its name.

        Raises:
            ValueError: There is no such system.
        """
        if system not in self.systems:
            raise ValueError(f"the systems are {', '.join(self.systems)}, but not {system!r}.")
        return tuple(run for run in self.runs if run.system == system)


def transitions() -> KnownRuns:
    """Trainings with known transitions, and others without any, to score detectors on.

    Made by the experiment ``phase_detection``: grokking of several tasks and networks, S-curves of
    matrix factorizations, sparse parity, features that are learned one after the other, induction
    heads, the end of a phase in which only biases move, spikes that were planted, slingshots; and
    memorisers, one-layer transformers, power laws and learning rates that drop. What happened and
    when was read off progress measures, never off a loss. ``docs/make_transitions.py`` makes them
    again.

    Signals are samples at log-spaced steps (evenly spaced ones for spikes and slingshots), not
    means, rounded to 3e-5 of their values and those of components to 5e-4. Everything is in the
    package: no network.

    Returns:
        The runs, and how they were made.

    Example:
        >>> run = transitions().of("parity")[0]
        >>> run.events[0].components
        ('bit 5', 'bit 6', 'bit 14')
        >>> len(run.signals["train_loss"]), "gradient_norm/bit 5" in run.signals
        (240, True)
    """
    file = resources.files("phasescope.datasets") / _FILE
    return unpacked(file.read_bytes())


def packed(runs: Sequence[KnownRun], provenance: Mapping[str, Any]) -> bytes:
    """The bytes of a file of runs; runs of one system have the same steps and signals.

    Args:
        runs: The runs.
        provenance: How they were made, as plain JSON.

    Raises:
        ValueError: Runs of one system differ in their steps, signals, progress measures or changes
            of the rate.
    """
    tensors: dict[str, Tensor] = {}
    described = []
    for system in dict.fromkeys(run.system for run in runs):
        own = [run for run in runs if run.system == system]
        first = own[0]
        for run in own:
            shared = [
                (list(r.signals), list(r.progress), list(r.rate_changes)) for r in (run, first)
            ]
            if not torch.equal(run.steps, first.steps) or shared[0] != shared[1]:
                raise ValueError(
                    "runs of one system need the same steps, signals, progress measures and rate "
                    f"changes, but seed {run.seed} of {system!r} differs from seed {first.seed}."
                )
        tensors[f"{system}|steps"] = first.steps.to(torch.int32)
        series = [("signals", n) for n in first.signals] + [("progress", n) for n in first.progress]
        for kind, name in series:
            bits = _BITS_OF_COMPONENTS if "/" in name else _BITS
            stacked = torch.stack([getattr(run, kind)[name] for run in own])
            tensors[f"{system}|{kind}|{name}"] = _planes(_rounded(stacked, bits))
        described.append(
            {
                "system": system,
                "signals": list(first.signals),
                "progress": list(first.progress),
                "rate_changes": first.rate_changes,
                "seeds": [run.seed for run in own],
                "events": [[asdict(event) for event in run.events] for run in own],
            }
        )
    text = json.dumps({"systems": described, "provenance": provenance})
    from safetensors.torch import save

    return lzma.compress(save(tensors, {"description": text}), preset=9 | lzma.PRESET_EXTREME)


def unpacked(content: bytes) -> KnownRuns:
    """The runs of a file's bytes.

    Args:
        content: What `packed` returned.
    """
    plain = lzma.decompress(content)
    length = int.from_bytes(plain[:8], "little")
    header = json.loads(plain[8 : 8 + length])
    description = json.loads(header["__metadata__"]["description"])
    from safetensors.torch import load

    tensors = load(plain)
    runs = []
    for part in description["systems"]:
        system = part["system"]
        steps = tensors[f"{system}|steps"].long()
        curves = {
            kind: {n: _values(tensors[f"{system}|{kind}|{n}"]) for n in part[kind]}
            for kind in ("signals", "progress")
        }
        for i, (seed, events) in enumerate(zip(part["seeds"], part["events"], strict=True)):
            found = tuple(
                KnownEvent(**(e | {"components": tuple(e["components"])})) for e in events
            )
            signals, progress = (
                {n: curve[i] for n, curve in curves[kind].items()} for kind in curves
            )
            runs.append(
                KnownRun(system, seed, steps, signals, progress, found, tuple(part["rate_changes"]))
            )
    return KnownRuns(tuple(runs), description["provenance"])


def write_transitions(runs: Sequence[KnownRun], provenance: Mapping[str, Any]) -> Path:
    """Replace the data set of this installation, which must be a source tree.

    Args:
        runs: The runs.
        provenance: How they were made.

    Returns:
        The file.
    """
    file = Path(__file__).parent / _FILE
    file.write_bytes(packed(runs, provenance))
    return file


def _rounded(values: Tensor, bits: int) -> Tensor:
    """Float32 with the last bits of the mantissa zero."""
    raw = values.float().contiguous().view(torch.int32)
    dropped = 23 - bits
    rounded = ((raw + (1 << (dropped - 1))) >> dropped) << dropped
    return torch.where(values.isfinite(), rounded, raw).view(torch.float32)


def _planes(values: Tensor) -> Tensor:
    """The first bytes of all values, then the second ones and so on: they compress better."""
    return values.contiguous().view(torch.uint8).unflatten(-1, (-1, 4)).movedim(-1, 0).contiguous()


def _values(planes: Tensor) -> Tensor:
    return planes.movedim(0, -1).contiguous().flatten(-2).view(torch.float32)
