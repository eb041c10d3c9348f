"""Recordings that were never closed: what they hold in memory is written all the same.

When the process ends, a recording whose model is still there is closed as interrupted. Of one whose
model, optimizer and recorder are gone the rows are written that wait in memory; until then only
these are kept. A process that is forked off closes nothing: the run is not its own.
"""

from __future__ import annotations

import atexit
import itertools
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phasescope.trajectory.warn import warn

if TYPE_CHECKING:
    from phasescope.trajectory.recording import Recording


@dataclass(frozen=True)
class _Unclosed:
    recording: weakref.ref[Recording]
    finish: Callable[[], None]
    release: Callable[[], None]
    directory: Path
    process: int


_unclosed: dict[int, _Unclosed] = {}
_keys = itertools.count()


def watch(
    recording: Recording,
    directory: Path,
    finish: Callable[[], None],
    release: Callable[[], None],
) -> int:
    """Remember a recording, and finish those that nobody can close any more.

    Args:
        recording: Held weakly.
        directory: Where it goes.
        finish: Writes what is left of it once it is gone, and releases its directory; must hold
            neither it nor its model.
        release: Lets others write into the directory.

    Returns:
        The key for `forget`.
    """
    _finish_lost()
    key = next(_keys)
    _unclosed[key] = _Unclosed(weakref.ref(recording), finish, release, directory, os.getpid())
    return key


def forget(key: int) -> None:
    """The recording is being closed."""
    _unclosed.pop(key, None)


@atexit.register
def finish_all() -> None:
    """Finish every recording; called when the process ends."""
    _finish_lost()
    for key, entry in list(_unclosed.items()):
        recording = entry.recording()
        forget(key)
        if recording is not None:
            _finish(entry, lambda recording=recording: recording.close("interrupted"))
            entry.release()


def _finish_lost() -> None:
    for key, entry in list(_unclosed.items()):
        if entry.recording() is None:
            forget(key)
            _finish(entry, entry.finish)


def _finish(entry: _Unclosed, act: Callable[[], None]) -> None:
    if entry.process != os.getpid() or not entry.directory.exists():
        return
    try:
        act()
        what = "its last rows have been written now"
    except Exception as error:
        what = f"its last rows could not be written ({error})"
    warn(
        f"the Recorder of {entry.directory} was not closed: {what}, and the run is marked as "
        "interrupted. Call recorder.close() after the training, or write 'with Recorder(...) as "
        "recorder:'."
    )
