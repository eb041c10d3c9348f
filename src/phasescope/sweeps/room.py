"""Whether the disk has room for another run of a sweep."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phasescope.errors import PhasescopeError


class DiskRoom:
    """Free disk, less what the running runs are still going to write.

    Args:
        directory: Where the runs' folders are.
        experiment: Its hook ``disk_bytes(config)``, if it has one, says how much a run needs.
        disk_per_run: Bytes that every run needs; goes before the hook.
    """

    def __init__(self, directory: Path, experiment: Any, disk_per_run: int | None) -> None:
        self._directory = directory
        self._hook = getattr(experiment, "disk_bytes", None)
        self._per_run = disk_per_run

    def needed(self, config: Any) -> int:
        """Bytes that a run needs while it runs; 0 where nobody said."""
        if self._per_run is not None:
            return self._per_run
        return int(self._hook(config)) if self._hook else 0

    def missing(self, config: Any, folder: Path, running: Mapping[Path, Any]) -> str | None:
        """Why there is no room for a run yet; None if there is.

        Args:
            config: The run's configuration.
            folder: Its folder; what an interrupted run left there is part of its need.
            running: Configuration of every running run, by folder.

        Raises:
            PhasescopeError: The whole disk is too small.
        """
        needed = self.needed(config)
        if needed == 0:
            return None
        disk = shutil.disk_usage(self._directory)
        if needed > disk.total:
            raise PhasescopeError(
                f"a run needs {_size(needed)} of disk, but the whole disk of {self._directory} has "
                f"{_size(disk.total)}. Choose another directory, or state the need with "
                "disk_per_run."
            )
        needed -= min(needed, bytes_in(folder))
        reserved = sum(
            max(0, self.needed(other) - bytes_in(place)) for place, other in running.items()
        )
        if disk.free - reserved >= needed:
            return None
        promised = f" of which running runs will take {_size(reserved)}" if reserved else ""
        return (
            f"waiting for disk: the next run needs {_size(needed)}, {_size(disk.free)} are free"
            f"{promised}"
        )


def bytes_in(folder: Path) -> int:
    """Bytes of all files under a folder that others may be writing.

    Example:
        >>> bytes_in(Path("no such folder"))
        0
    """
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:  # deleted in the meantime
                continue
    return total


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.3g} GB"
