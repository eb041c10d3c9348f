"""One writer per run directory, by a lock that dies with its process."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import IO

from phasescope.errors import RunError
from phasescope.trajectory.schema import LOCK

_OWNER = re.compile(rb"process \d+\n")
# POSIX record locks do not exclude the process that holds them, so it remembers its own.
_held: set[Path] = set()


class RunLock:
    """Exclusive right to write into a run directory, released by `release` or by process death.

    Raises:
        RunError: Another recorder, here or in another live process, writes into the directory.
    """

    def __init__(self, directory: Path) -> None:
        self.path = (directory / LOCK).resolve()
        if self.path in _held:
            raise RunError(
                f"{directory} is being written by another Recorder of this process. Close it "
                "first, or record into a directory of its own."
            )
        _check_own(self.path)
        self._file: IO[bytes] = open(self.path, "a+b")  # noqa: SIM115 - held until release
        try:
            _lock(self._file)
        except OSError:
            self._file.seek(0)
            owner = self._file.read().decode(errors="replace").strip()
            self._file.close()
            raise RunError(
                f"{directory} is being written by another process ({owner or 'unknown'}). Wait for "
                "it, stop it, or record into a directory of its own."
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()}\n".encode())
        self._file.flush()
        _held.add(self.path)

    def release(self) -> None:
        """Let others write."""
        if self.path in _held:
            _held.discard(self.path)
            self._file.close()


def _check_own(path: Path) -> None:
    """Refuse to write over a file of this name that was made by something else."""
    with contextlib.suppress(FileNotFoundError):
        content = path.read_bytes()
        if content and not _OWNER.fullmatch(content):
            raise RunError(
                f"a recorder keeps its lock in {path}, but that file was made by something else "
                f"({content[:30]!r}). Record into a directory of its own."
            )


def _lock(file: IO[bytes]) -> None:
    if os.name == "nt":
        import msvcrt

        # A byte far behind the text: Windows locks are mandatory, the owner must stay readable.
        file.seek(1 << 20)
        lock, mode = msvcrt.locking, msvcrt.LK_NBLCK  # pyright: ignore[reportAttributeAccessIssue]
        lock(file.fileno(), mode, 1)
    else:
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
