"""Series of checkpoints, anyone's, as a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from phasescope.components.norms import ComponentNorms
from phasescope.errors import RunError
from phasescope.parameters import Component, ParameterTable
from phasescope.trajectory import schema
from phasescope.trajectory.checkpoint_files import CheckpointTensors, find_checkpoints
from phasescope.trajectory.lock import RunLock
from phasescope.trajectory.plan import format_bytes, free_bytes, parameter_spec, summary_spec
from phasescope.trajectory.reader import Run, open_run
from phasescope.trajectory.runfile import RunFile
from phasescope.trajectory.store import ArraySpec, GroupWriter, TrajectoryStore

_PIECE = 4_000_000  # entries squared at once, 32 MB of float64


def import_checkpoints(
    checkpoints: Sequence[str | Path],
    directory: str | Path,
    *,
    save: Literal["weights", "norms"] = "weights",
    steps: Sequence[int] | None = None,
    model: nn.Module | None = None,
    components: Mapping[str, Component] | None = None,
    exclude: Sequence[str] = (),
    progress: Callable[[float, str], None] | None = None,
) -> Run:
    """A run made of a series of checkpoints, which every analysis of weights takes.

    safetensors, PyTorch files (read with ``weights_only``, no pickle), folders as Hugging Face
    writes them and its cache with revisions; see `find_checkpoints` for how steps are read off
    names. One checkpoint is read at a time and its tensors one by one, so memory is bounded by one
    row of float32 weights, or for norms by the largest tensor; bfloat16 and float16 are widened
    exactly, float64 is rounded. Norms of all tensors are always written.

    Args:
        checkpoints: Files, folders, or folders of these.
        directory: The run to make; it must not hold one.
        save: Whole weights, or norms only.
        steps: Step of every checkpoint, where the names do not say it.
        model: Gives names, order and shapes of the parameters, so that `components` of it fit; by
            default they are those of the first checkpoint, in its order.
        components: Parts whose norms are written too; they need `model`, whose columns they have.
        exclude: Patterns of names that are no parameters.
        progress: Called after every checkpoint with the fraction that is done and its name.

    Returns:
        The run, complete.

    Raises:
        RunError: The directory holds a run already, or the disk is too small.
        ValueError: A checkpoint cannot be read, has other tensors than the first one or the model,
            or holds values that are not finite.

    Example:
        >>> import tempfile
        >>> folder, model = Path(tempfile.mkdtemp()), nn.Linear(3, 2)
        >>> for step in (0, 100):
        ...     torch.save(model.state_dict(), folder / f"step{step}.pt")
        >>> import_checkpoints([folder], folder / "run").weights
        <Series weights: 2 x 8 float32, steps 0…100>
    """
    directory = Path(directory)
    if components and model is None:
        raise ValueError(
            "components= are columns of a model's flat vector, which a checkpoint does not "
            "define. Pass model= as well."
        )
    if isinstance(checkpoints, str | Path) or not checkpoints:
        raise ValueError(
            "a sequence of one file or folder or more is required, such as ['checkpoints/'], but "
            f"{checkpoints!r} arrived."
        )
    found = find_checkpoints(checkpoints, steps)
    if (directory / schema.RUN_FILE).exists():
        raise RunError(f"{directory} holds a run already. Import into another directory.")
    first = CheckpointTensors(found[0].path, exclude)
    table = _table(first, model)
    specs: dict[str, dict[str, ArraySpec]] = {}
    if save == "weights":
        specs["weights"] = {"values": parameter_spec(table.size, "float32")}
        needed = 4 * table.size * len(found)
        if needed > (free := free_bytes(directory)):
            raise RunError(
                f"{len(found)} checkpoints of {table.size:,} parameters need "
                f"{format_bytes(needed)}, but the disk of {directory} has {format_bytes(free)} "
                "free. Import fewer of them, or their norms only (save='norms')."
            )
    specs["norms"] = {"weights": summary_spec(len(table.names), schema.TENSOR)}
    if components:
        specs["component_norms"] = {"weights": summary_spec(len(components), schema.COMPONENT)}
    directory.mkdir(parents=True, exist_ok=True)
    lock = RunLock(directory)
    try:
        file = _begin(directory, table, components or {}, first, save, found[-1].step)
        groups, store = _groups(directory, specs, table, components or {})
        norms_of = ComponentNorms(components, table) if components else None
        for i, checkpoint in enumerate(found):
            tensors = first if i == 0 else CheckpointTensors(checkpoint.path, exclude)
            _check_same(tensors, table, model)
            _write(tensors, table, checkpoint.step, groups, norms_of)
            store.commit()
            if progress is not None:
                progress((i + 1) / len(found), checkpoint.path.name)
        file.write(status="complete")
    finally:
        lock.release()
    return open_run(directory)


def _table(first: CheckpointTensors, model: nn.Module | None) -> ParameterTable:
    if model is not None:
        return ParameterTable.from_module(model)
    return ParameterTable(tuple(first.shapes), tuple(first.shapes.values()))


def _check_same(tensors: CheckpointTensors, table: ParameterTable, model: nn.Module | None) -> None:
    whose = "the first checkpoint" if model is None else "the model"
    for name, shape in zip(table.names, table.shapes, strict=True):
        if tensors.shapes.get(name) != shape:
            there = tensors.shapes.get(name, "missing")
            raise ValueError(
                f"{tensors.path} must have the tensor {name!r} of {whose}, of shape {shape}, but "
                f"it is {there}. Pass model= if names differ, or exclude= what comes and goes."
            )
    extra = set(tensors.shapes) - set(table.names)
    if model is None and extra:
        raise ValueError(
            f"{tensors.path} must have the tensors of the first checkpoint only, but also has "
            f"{sorted(extra)[:4]}. Leave them out with exclude=."
        )


def _begin(
    directory: Path,
    table: ParameterTable,
    components: Mapping[str, Component],
    first: CheckpointTensors,
    save: str,
    last_step: int,
) -> RunFile:
    file = RunFile(
        directory,
        {
            "parameters": table.to_json(),
            "components": [
                {"name": name, "blocks": part.blocks.tolist()} for name, part in components.items()
            ],
            "sketch": None,
            "save": {save: "imported checkpoints"},
            "n_steps": last_step,
            "dtype": "float32",
            "loss_reduction": "unknown",
            "optimizer": "unknown",
            "decay": "not split",
            "config": {},
            "imported": {"from": str(first.path.parent.name), "left_out": first.left_out},
        },
    )
    file.write(status="recording", step=last_step, nonfinite=[])
    return file


def _groups(
    directory: Path,
    specs: Mapping[str, Mapping[str, ArraySpec]],
    table: ParameterTable,
    components: Mapping[str, Component],
) -> tuple[dict[str, GroupWriter], TrajectoryStore]:
    store = TrajectoryStore(directory / schema.STORE, {"schema": schema.SCHEMA_VERSION})
    labels = {
        "norms": {schema.TENSOR: table.names},
        "component_norms": {schema.COMPONENT: tuple(components)},
    }
    groups = {
        name: store.add_group(
            name,
            arrays,
            attributes={"meaning": schema.GROUPS[name].meaning},
            labels=labels.get(name, {}),
        )
        for name, arrays in specs.items()
    }
    return groups, store


def _write(
    tensors: CheckpointTensors,
    table: ParameterTable,
    step: int,
    groups: Mapping[str, GroupWriter],
    norms_of: ComponentNorms | None,
) -> None:
    """One row of every group; tensors are read one by one."""
    row: np.ndarray | None = None
    if "weights" in groups:
        row = np.zeros((1, groups["weights"].specs["values"].width), np.float32)
    norms, kept = [], []
    for name, a, size in zip(table.names, table.offsets, table.sizes, strict=True):
        tensor = tensors[name].detach()
        norm = _norm(tensor)
        if not math.isfinite(norm):
            raise ValueError(
                f"weights must be finite, but those of {name!r} in {tensors.path} are not. Leave "
                "this checkpoint out."
            )
        norms.append(norm)
        if row is not None:
            torch.from_numpy(row[0, a : a + size]).copy_(tensor.reshape(-1))
        if norms_of is not None:
            kept.append(tensor)
    at = np.array([step], np.int64)
    if row is not None:
        groups["weights"].write(at, {"values": row})
    groups["norms"].write(at, {"weights": np.array([norms], np.float32)})
    if norms_of is not None:
        found = norms_of(kept).cpu().numpy()[None]
        groups["component_norms"].write(at, {"weights": found})


def _norm(tensor: Tensor) -> float:
    """In float64, without a copy of the whole tensor."""
    pieces = tensor.reshape(-1).split(_PIECE)
    return math.sqrt(sum(float(piece.double().square().sum()) for piece in pieces))
