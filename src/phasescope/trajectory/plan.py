"""What a recording will save, and what it costs, before it starts."""

from __future__ import annotations

import difflib
import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from phasescope.components import Subspace, component_lines
from phasescope.errors import RecordingError
from phasescope.parameters import Component, ParameterTable
from phasescope.trajectory.chunkfile import PAGE
from phasescope.trajectory.optimizers import moment_names
from phasescope.trajectory.schedule import Schedule
from phasescope.trajectory.schema import (
    BUCKET,
    COMPONENT,
    DTYPES,
    GROUPS,
    NORMS,
    STEP,
    SUMMARIES,
    TENSOR,
    UNASKED,
    UNCLIPPED,
)
from phasescope.trajectory.store import ArraySpec

BLOCK_BYTES = 80_000_000
CHUNK_BYTES = 4_000_000
MAX_BLOCK_ROWS = 64
SUMMARY_BLOCK_ROWS = 256


@dataclass(frozen=True)
class PlanRow:
    """One array of the plan."""

    name: str
    schedule: str
    bytes_per_row: int
    n_rows: int | None

    @property
    def total(self) -> int | None:
        """Bytes over the whole run; None when its length is not known."""
        return None if self.n_rows is None else self.n_rows * self.bytes_per_row


@dataclass(frozen=True)
class Plan:
    """What will be saved: every array with its bytes, the total, and the free disk.

    Print it, or let a notebook show it.
    """

    n_parameters: int
    n_steps: int | None
    rows: tuple[PlanRow, ...]
    free_bytes: int
    components: tuple[str, ...] = ()
    """The tree of the components whose norms are recorded, as lines."""

    @property
    def total_bytes(self) -> int | None:
        """Bytes of the whole recording, probes left out; None without `n_steps`."""
        totals = [row.total for row in self.rows]
        return None if None in totals else sum(t for t in totals if t is not None)

    def __str__(self) -> str:
        """The plan as a table."""
        length = "unknown number of" if self.n_steps is None else f"{self.n_steps:,}"
        lines = [f"{self.n_parameters:,} parameters, {length} updates"]
        width = max(22, *(len(row.name) for row in self.rows)) if self.rows else 22
        for row in self.rows:
            n = "" if row.n_rows is None else f" x {row.n_rows:,} = {format_bytes(row.total or 0)}"
            per_row = format_bytes(row.bytes_per_row)
            lines.append(f"  {row.name:{width}s} {row.schedule:32s} {per_row:>9s}{n}")
            if row.name == self._last_of_components:
                lines += [f"      {line}" for line in self.components]
        total = self.total_bytes
        shown = "unknown without n_steps" if total is None else format_bytes(total)
        lines.append(f"  total {shown}; free on this disk {format_bytes(self.free_bytes)}")
        return "\n".join(lines)

    @property
    def _last_of_components(self) -> str:
        names = [row.name for row in self.rows if row.name.startswith("component_norms/")]
        return names[-1] if names else ""

    __repr__ = __str__


def format_bytes(n: float | int) -> str:
    """A number of bytes for people: ``407 kB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"


def free_bytes(directory: Path) -> int:
    """Free bytes on the disk that holds, or will hold, a directory."""
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free


def parameter_spec(size: int, dtype: str) -> ArraySpec:
    """Blocks and chunks of an array over parameters: a few MB per chunk file, K steps per block."""
    itemsize = 4 if dtype == "float32" else 2
    rows = max(1, min(MAX_BLOCK_ROWS, BLOCK_BYTES // max(1, size * itemsize)))
    columns = _chunk_columns(size, itemsize, math.ceil(rows * size * itemsize / CHUNK_BYTES))
    attributes = {} if dtype == "float32" else {"encoding": "bfloat16"}
    stored = "float32" if dtype == "float32" else "uint16"
    return ArraySpec(stored, (size,), ("parameter",), rows, columns, attributes=attributes)


def _chunk_columns(size: int, itemsize: int, n_chunks: int) -> int:
    """Columns of about `n_chunks` chunk files, whose rows consist of whole pages.

    So they can be written past the page cache. Of the counts near `n_chunks` the one that pads
    least: up to a third larger chunks.
    """
    if n_chunks <= 1:
        return size
    alignment = PAGE // itemsize
    if size < 4 * n_chunks * alignment:
        alignment = 16
    counts = range(n_chunks, math.ceil(0.75 * n_chunks) - 1, -1)
    columns = [math.ceil(math.ceil(size / n) / alignment) * alignment for n in counts]
    return min(columns, key=lambda width: math.ceil(size / width) * width)


def summary_spec(n_values: int, dimension: str) -> ArraySpec:
    """Blocks of an array with a few numbers per step: norms of tensors, a sketch."""
    rows = max(1, min(SUMMARY_BLOCK_ROWS, BLOCK_BYTES // max(1, 4 * n_values)))
    return ArraySpec("float32", (n_values,), (dimension,), rows)


def parse_save(
    save: Mapping[str, Schedule], probes: Iterable[str]
) -> dict[str, dict[str, Schedule]]:
    """``{"norms/updates": schedule}`` as ``{"norms": {"updates": schedule}}``; "" stands for all.

    Raises:
        KeyError: A group, norm or probe of this name does not exist.
        TypeError: A value is not a schedule.
        ValueError: Nothing would be saved, or arrays of one group have different schedules.
    """
    if not isinstance(save, Mapping):
        raise TypeError(
            "save= takes a dictionary of groups and their schedules, but "
            f"{type(save).__name__} arrived. Write save={{'gradients': every(1)}}."
        )
    if not save:
        raise ValueError(
            "save= is empty, so nothing would be saved. Write save={'gradients': every(1)}, or "
            "{'norms': every(1)} for little disk."
        )
    probes = tuple(probes)
    parsed: dict[str, dict[str, Schedule]] = {}
    known = [name for name in GROUPS if name not in UNASKED]
    for key, schedule in save.items():
        group, _, array = key.partition("/")
        if group not in known:
            close = difflib.get_close_matches(group, known, n=1) or known
            raise KeyError(
                f"save= takes the groups {known}, but {key!r} arrived. Did you mean {close[0]!r}? "
                "(Metrics need no entry: recorder.log saves them.)"
            )
        if not isinstance(schedule, Schedule):
            raise TypeError(
                f"save[{key!r}] requires a schedule, but {schedule!r} arrived. Write every(1), "
                "at(0, 100), log_spaced(200), or a union of these with |."
            )
        if array and group not in (*SUMMARIES, "moments", "probes"):
            raise KeyError(f"save= has {key!r}, but the group {group!r} has no parts.")
        parts = (*NORMS, UNCLIPPED) if group == "norms" else NORMS
        if group in SUMMARIES and array not in ("", *parts):
            raise KeyError(f"the parts of {group!r} are {list(parts)}, but save= has {key!r}.")
        if group == "probes" and array not in ("", *probes):
            raise KeyError(f"probes= defines {list(probes)}, but save= has {key!r}.")
        parsed.setdefault(group, {})[array] = schedule
    for group in (*SUMMARIES, "moments"):
        if len(set(map(str, parsed.get(group, {}).values()))) > 1:
            raise ValueError(
                f"the arrays of {group!r} share their {STEP}s and need one schedule, but save= has "
                f"{ {k or 'all': str(v) for k, v in parsed[group].items()} }."
            )
    if "probes" in parsed and not probes:
        raise ValueError(
            "save= asks for the probes, but none were passed, so nothing would be recorded. Add "
            "probes={'logits': lambda model: model(inputs)}."
        )
    if probes and "probes" not in parsed:
        raise ValueError(
            f"probes {list(probes)} were passed, but save= has no entry 'probes'. Add "
            "save={'probes': every(100)}."
        )
    return parsed


def group_specs(
    save: Mapping[str, Mapping[str, Schedule]],
    table: ParameterTable,
    optimizer: torch.optim.Optimizer,
    *,
    dtype: str,
    decay_known: bool,
    n_components: int = 0,
    sketch_size: int = 0,
) -> dict[str, dict[str, ArraySpec]]:
    """The arrays of every group whose shape is known before training (all but the probes).

    Raises:
        ValueError: A group cannot be recorded with this optimizer, or its argument is missing.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype requires one of {DTYPES}, but {dtype!r} arrived.")
    no_gradients = isinstance(optimizer, torch.optim.LBFGS)
    summaries = {
        "norms": summary_spec(len(table.names), TENSOR),
        "component_norms": summary_spec(n_components, COMPONENT),
        "sketches": summary_spec(sketch_size, BUCKET),
    }
    for group, size, argument in (
        ("component_norms", n_components, "components=ps.components(model, 'heads')"),
        ("sketches", sketch_size, "sketch=ps.CountSketch(65_536)"),
    ):
        if (group in save) != (size > 0):
            there, lacking = f"save={{{group!r}: ...}}", argument
            if size:
                there, lacking = (
                    argument.partition("=")[0] + "=",
                    f"save={{{group!r}: ps.every(1)}}",
                )
            raise ValueError(f"{there} needs {lacking} beside it, but that is missing.")
    specs: dict[str, dict[str, ArraySpec]] = {}
    for group, schedules in save.items():
        if group in SUMMARIES:
            names = _quantities(group, schedules, no_gradients, decay_known)
            specs[group] = dict.fromkeys(names, summaries[group])
        elif group == "moments":
            names = [name for name in schedules if name] or moment_names(optimizer)
            if not names:
                raise ValueError(
                    f"save= asks for moments, but which {type(optimizer).__name__} keeps with "
                    "these settings, if any, is not known. Name them, 'moments/<name in its "
                    "state>' (for Muon 'moments/momentum_buffer'), or leave 'moments' out."
                )
            specs[group] = {name: parameter_spec(table.size, dtype) for name in names}
        elif group != "probes":
            specs[group] = {"values": parameter_spec(table.size, dtype)}
    if no_gradients and ("gradients" in specs or UNCLIPPED in specs):
        raise ValueError(
            "L-BFGS evaluates many gradients within one step, so there is no one gradient to "
            "record. Record 'updates' and 'weights'."
        )
    if "decay" in specs and not decay_known:
        raise ValueError(_NOT_SPLIT.format(name=type(optimizer).__name__))
    return specs


_NOT_SPLIT = (
    "save= asks for the decay, but how {name} applies its weight decay is not known (it may act on "
    "the gradient). If it is decoupled, pass decay=lambda group: group['lr'] * "
    "group['weight_decay']."
)


def _quantities(
    group: str, schedules: Mapping[str, Schedule], no_gradients: bool, decay_known: bool
) -> list[str]:
    """What a group of summaries is taken of; without naming, all that this optimizer has."""
    asked = [name for name in schedules if name]
    if no_gradients and {"gradients", UNCLIPPED} & set(asked):
        raise ValueError(
            f"save= asks for {group} of {asked}, but L-BFGS has no single gradient per step. Name "
            f"what there is: '{group}/updates'."
        )
    if "decay" in asked and not decay_known:
        raise ValueError(
            f"save= asks for {group} of {asked}, but this optimizer has no known split of its "
            f"decay. Name what there is: '{group}/updates'."
        )
    every = ("gradients",) if group == "sketches" else NORMS
    usual = [
        name
        for name in every
        if not (name == "gradients" and no_gradients) and not (name == "decay" and not decay_known)
    ]
    return list(dict.fromkeys((usual if "" in schedules else []) + asked))


def make_plan(
    save: Mapping[str, Mapping[str, Schedule]],
    specs: Mapping[str, Mapping[str, ArraySpec]],
    table: ParameterTable,
    n_steps: int | None,
    directory: Path,
    *,
    checkpoint: Schedule | None = None,
    checkpoint_bytes: int = 0,
    components: Mapping[str, Component | Subspace] | None = None,
) -> Plan:
    """The plan of a recording. Probes show no bytes: their size is known once evaluated.

    Args:
        save: Group, part of it, schedule.
        specs: Arrays of every group but the probes.
        table: The parameters.
        n_steps: Length of the run, if known.
        directory: Where it goes.
        checkpoint: Schedule of the checkpoints, if there are any.
        checkpoint_bytes: Of one of them.
        components: Whose norms are recorded.
    """
    rows = []
    for group, schedules in save.items():
        schedule = next(iter(schedules.values()))
        count = None if n_steps is None else schedule.count(n_steps)
        for array, spec in specs.get(group, {}).items():
            name = group if array == "values" else f"{group}/{array}"
            extra = 1 if group == "weights" and count is not None else 0
            size = math.prod(spec.tail) * (2 if spec.dtype == "uint16" else 4)
            rows.append(
                PlanRow(name, str(schedule), size, None if count is None else count + extra)
            )
        if group == "probes":
            rows.append(PlanRow("probes (size unknown)", str(schedule), 0, count))
    if checkpoint is not None:
        # The state after the last update is saved as well.
        count = None if n_steps is None else checkpoint.count(n_steps) + 1
        rows.append(PlanRow("checkpoints (about)", str(checkpoint), checkpoint_bytes, count))
    tree = tuple(component_lines(components)) if components else ()
    return Plan(table.size, n_steps, tuple(rows), free_bytes(directory), tree)


def check_disk(plan: Plan, directory: Path) -> None:
    """Refuse a recording that the disk cannot hold.

    Raises:
        RecordingError: It needs more than is free.
    """
    if plan.total_bytes is not None and plan.total_bytes > plan.free_bytes:
        raise RecordingError(
            f"the recording needs {format_bytes(plan.total_bytes)}, but the disk of "
            f"{directory} has {format_bytes(plan.free_bytes)} free. Save fewer steps "
            "(every(10), log_spaced(200)), use dtype='bfloat16', or choose another disk. "
            "recorder.plan() shows what takes how much."
        )
