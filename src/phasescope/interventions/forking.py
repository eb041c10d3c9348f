"""Going on from a checkpoint of a recorded run, in another way: forks of a training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from phasescope.errors import RunError
from phasescope.parameters import ParameterTable
from phasescope.trajectory.checkpoint import Stateful, checkpoints_in, load_part, restore
from phasescope.trajectory.distributed import process_rank
from phasescope.trajectory.schema import CHECKPOINTS, read_run_file
from phasescope.trajectory.sharding import sharded_names


def fork(
    run: str | Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    state: Mapping[str, Stateful] | None = None,
    intervention: str = "none",
) -> dict[str, Any]:
    """Put a training back to a checkpoint of a recorded run, to go on from there in another way.

    Weights, buffers, the optimizer, everything in `state` (position in the data, scheduler, scaler)
    and the global random states are those of the checkpoint. What comes then is yours: put the
    gradients through a transform, change the learning rate or the data, take components out of the
    weights. Without an intervention the fork is the original run, bit for bit, if the data position
    is part of `state`. The run that is forked is only read.

    Args:
        run: Directory of the run; recorded with ``checkpoint=`` and perhaps ``state=``.
        step: A step at which it has a checkpoint.
        model: A model of the same kind; changed in place.
        optimizer: Of the same class, over the model's parameters; its settings become those of the
            checkpoint, so change them after the fork.
        state: The same entries that the recorder was given.
        intervention: What is done differently, in words; kept in the fork's run.json.

    Returns:
        What ``Recorder(..., resume=...)`` takes to record the fork into a directory of its own,
        whose `run.json` says where it came from. The rows of the fork begin at `step`.

    Raises:
        RunError: The directory is no run, or it has no checkpoint at this step.
        ValueError: Model or optimizer are of another kind.

    Example:
        >>> import phasescope as ps, tempfile
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> directory = tempfile.mkdtemp() + "/run"
        >>> save, when = {"updates": ps.every(1)}, ps.every(2)
        >>> with ps.Recorder(directory, model, optimizer, save=save, checkpoint=when) as recorder:
        ...     for _ in range(4):
        ...         model(torch.ones(1, 2)).sum().backward()
        ...         optimizer.step()
        ...         recorder.end_step()
        >>> fork(directory, 2, model, optimizer)["step"]
        2
    """
    path = Path(run)
    info = read_run_file(path)
    _check_same(path, info, model, optimizer)
    folder = path / CHECKPOINTS
    found = checkpoints_in(folder)
    if step not in found:
        raise RunError(
            f"{path} can be forked at its checkpoints, {_listed(sorted(found))}, but step={step} "
            "arrived. "
            + (
                "Choose one of them."
                if found
                else "Record with Recorder(..., checkpoint=phasescope.every(n)) to have some."
            )
        )
    sharded = bool(sharded_names(dict(model.named_parameters())))
    tree = load_part(folder, step, process_rank()[0], sharded=sharded)
    restore(tree, model, optimizer, state or {})
    origin = {
        "run": path.resolve().name,
        "created": info.get("created"),
        "step": step,
        "intervention": intervention,
    }
    # What was logged already for steps to come had not been committed yet, and belongs to both.
    logged = tree.get("extra", {}).get("metrics", {})
    metrics = {int(s): values for s, values in logged.items() if int(s) >= step}
    return {"step": step, "metrics": metrics, "origin": origin}


def _check_same(
    path: Path, info: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Raise unless model and optimizer are of the kind that was recorded."""
    recorded, given = (
        ParameterTable.from_json(info["parameters"]),
        ParameterTable.from_module(model),
    )
    pairs = {(n, s) for n, s in zip(recorded.names, recorded.shapes, strict=True)}
    pairs ^= {(n, s) for n, s in zip(given.names, given.shapes, strict=True)}
    if pairs:
        name, shape = sorted(pairs)[0]
        raise ValueError(
            f"a model with the {len(recorded.names)} parameters recorded in {path} is required, "
            f"but {name!r} of shape {shape} is in one of the two only. Build the model as it was."
        )
    if recorded != given:
        name, other = next(
            (a, b) for a, b in zip(recorded.names, given.names, strict=True) if a != b
        )
        raise ValueError(
            f"the parameters must come in the order recorded in {path}, by which the optimizer's "
            f"state is kept, but {other!r} stands where {name!r} was. Build the model as it was."
        )
    if info["optimizer"] != type(optimizer).__name__:
        raise ValueError(
            f"{path} was trained with {info['optimizer']}, whose state a fork takes over, but "
            f"{type(optimizer).__name__} arrived. Fork with the same class, and change its "
            "settings afterwards."
        )


def _listed(steps: list[int]) -> str:
    if not steps:
        return "of which it has none"
    return ", ".join(map(str, steps[:8])) + (f", … {steps[-1]}" if len(steps) > 8 else "")
