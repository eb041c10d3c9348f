"""The contract of a run directory: groups, arrays, dimensions, units. `docs/schema.md` in code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phasescope.errors import RunError

SCHEMA_VERSION = 1
FORMAT = "phasescope-run"

RUN_FILE = "run.json"
STORE = "trajectory.zarr"
CHECKPOINTS = "checkpoints"
RESULTS = "results"
LOCK = "lock"

STEP = "step"
PARAMETER = "parameter"
TENSOR = "tensor"
COMPONENT = "component"
BUCKET = "bucket"

UNCLIPPED = "unclipped_gradients"


@dataclass(frozen=True)
class Group:
    """What one group of the store holds."""

    meaning: str
    dimensions: tuple[str, ...]
    # Gradients, updates and decay belong to an update t; weights, metrics and probes to a state t.
    of: str


GROUPS = {
    "gradients": Group(
        "what the optimizer consumed at weights[t]: accumulated, unscaled, clipped if the loop "
        "clips; before the optimizer's own weight decay and momentum",
        (STEP, PARAMETER),
        "update",
    ),
    UNCLIPPED: Group(
        "the gradient as the backward passes left it at weights[t]: accumulated, unscaled, before "
        "the loop clipped it",
        (STEP, PARAMETER),
        "update",
    ),
    "updates": Group("weights[t+1] - weights[t], decay included", (STEP, PARAMETER), "update"),
    "decay": Group(
        "the part of the update that decoupled weight decay made: -lr * weight_decay * weights[t]",
        (STEP, PARAMETER),
        "update",
    ),
    "weights": Group("the weights before update t", (STEP, PARAMETER), "state"),
    "moments": Group("the optimizer's state after update t", (STEP, PARAMETER), "update"),
    "norms": Group(
        "L2 norm of every tensor's gradient, update, decay and weights", (STEP, TENSOR), "update"
    ),
    "component_norms": Group(
        "L2 norm of every component's gradient, update, decay and weights",
        (STEP, COMPONENT),
        "update",
    ),
    "sketches": Group(
        "CountSketch of the gradient, update, decay or weights", (STEP, BUCKET), "update"
    ),
    "probes": Group("values of named functions of the model at weights[t]", (STEP,), "state"),
    "metrics": Group("what the loop logged, under the step of its weights", (STEP,), "state"),
    "skipped": Group(
        "updates that a gradient scaler skipped at weights[t], one row each: steps may repeat",
        (STEP,),
        "state",
    ),
}
# Written without being asked for.
UNASKED = ("metrics", "skipped")
NORMS = ("gradients", "updates", "decay", "weights")
# Groups of numbers about a quantity, with one array for each quantity.
SUMMARIES = ("norms", "component_norms", "sketches")
DTYPES = ("float32", "bfloat16")


def read_run_file(directory: Path) -> dict[str, Any]:
    """The validated contents of ``run.json``.

    Raises:
        RunError: The directory is missing, is not a run, is damaged, or has another schema version.
    """
    path = directory / RUN_FILE
    if not directory.is_dir():
        raise RunError(f"a run directory is required, but {directory} is not a directory.")
    if not path.is_file():
        raise RunError(
            f"a run directory holds {RUN_FILE}, but {directory} does not; it holds "
            f"{sorted(p.name for p in directory.iterdir())[:8]}. Is it the folder above or below?"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path} must be JSON, but it cannot be read ({error}). The recording in {STORE} can "
            "still be opened with xarray.open_zarr."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunError(f"{path} must say format {FORMAT!r}: this is not a phasescope run.")
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        age = "an older" if isinstance(version, int) and version < SCHEMA_VERSION else "a newer"
        raise RunError(
            f"{path} has schema version {version}, but this phasescope reads version "
            f"{SCHEMA_VERSION}: the run was written by {age} version "
            f"({content.get('environment', {}).get('phasescope', 'unknown')}). "
            "Open it with that version, or record the run again."
        )
    return content


def validate_store(metadata: dict[str, Any], n_parameters: int, where: Path) -> None:
    """Check that a store keeps to the schema: known groups, their dimensions, their sizes.

    Raises:
        RunError: It does not; the message names the array.
    """
    nodes = metadata["consolidated_metadata"]["metadata"]
    for key, node in nodes.items():
        if node.get("node_type") != "array":
            continue
        group, _, name = key.rpartition("/")
        root = group.split("/")[0]
        if root not in GROUPS:
            raise RunError(
                f"{where} may hold the groups {', '.join(GROUPS)}, but has the array {key!r}. Was "
                "it written by something else? Move it out of the store."
            )
        dimensions = node.get("dimension_names") or []
        if name in (STEP, TENSOR, COMPONENT):
            continue
        expected = list(GROUPS[root].dimensions)
        if dimensions[: len(expected)] != expected:
            raise RunError(
                f"{key} in {where} must have the dimensions {expected}, but has {dimensions}: the "
                "run is damaged or was changed by something else."
            )
        rows = nodes.get(f"{group}/{STEP}", {}).get("shape", [None])[0]
        if rows != node["shape"][0]:
            raise RunError(
                f"{key} in {where} has {node['shape'][0]} rows, but its steps have {rows}: the run "
                "is damaged or was changed by something else."
            )
        if PARAMETER in dimensions and node["shape"][1] != n_parameters:
            raise RunError(
                f"{key} in {where} has {node['shape'][1]} columns, but run.json lists "
                f"{n_parameters} parameters: they belong to different runs."
            )


_REBUILD = (
    "If the arrays are there, it can be made anew from their own metadata: delete it, then call "
    "zarr.open_group(path, mode='a') and zarr.consolidate_metadata(path)."
)


def read_metadata(path: Path) -> dict[str, Any]:
    """The root metadata of a store, which is its last commit.

    Raises:
        RunError: It is missing or damaged.
    """
    try:
        root = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        root["consolidated_metadata"]["metadata"].items()
    except FileNotFoundError as error:
        raise RunError(
            f"a run keeps its trajectory in {path}, but {path.name}/zarr.json is not there. "
            f"{_REBUILD}"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise RunError(
            f"{path}/zarr.json must be the metadata of a Zarr 3 store with everything consolidated "
            f"in it, but it cannot be read ({type(error).__name__}: {error}). {_REBUILD}"
        ) from error
    return root
