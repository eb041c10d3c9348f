"""The recorder of a process that writes nothing: it takes part where the others need it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from phasescope.trajectory.channels import Job, WriterThread
from phasescope.trajectory.contents import Contents
from phasescope.trajectory.runfile import RunFile
from phasescope.trajectory.sharding import communicates, sharded_names


def quiet_contents(contents: Contents, parameters: Mapping[str, Tensor]) -> Contents:
    """What a process that writes nothing must compute all the same, because all do it together.

    That is nothing under DistributedDataParallel; with sharded parameters the norms, and the
    probes, whose forward passes gather the weights.
    """
    kept = (["norms"] if sharded_names(parameters) else []) + (
        ["probes"] if communicates(parameters.values()) else []
    )
    return dataclasses.replace(
        contents,
        save={group: contents.save[group] for group in kept if group in contents.save},
        specs={group: contents.specs[group] for group in kept if group in contents.specs},
        probes=contents.probes if "probes" in kept else {},
        sinks=(),
    )


class QuietFile(RunFile):
    """The run.json of a process that leaves it to rank 0."""

    def write(self, **changes: Any) -> None:
        """Leave it."""


class QuietWriter(WriterThread):
    """Takes rows and drops them; it has no thread and no file."""

    def __init__(self) -> None:
        self.store: Any = _NoStore()
        self.error = None

    def submit(self, job: Job) -> None:
        """Drop a job."""
        if job.release:
            job.release()

    def drain(self) -> None:
        """Nothing is queued."""

    def check(self) -> None:
        """Nothing can fail."""

    def close(self) -> None:
        """Nothing is open."""


@dataclasses.dataclass
class _NoGroup:
    rows: int = 0
    last_step: int = -1
    specs: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class _NoStore:
    """A store that holds no group and forgets the ones that are added."""

    def __init__(self) -> None:
        self.groups: dict[str, _NoGroup] = {}

    def add_group(self, name: str, specs: Any, **options: Any) -> _NoGroup:
        return _NoGroup()

    def commit(self) -> None:
        pass
