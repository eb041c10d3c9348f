"""One run of a sweep, as a worker makes it."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from phasescope.errors import PhasescopeError, RunError
from phasescope.experiments.runner import finished_numbers, run_folder, run_one
from phasescope.sweeps.cluster import cores, threads_per_run
from phasescope.trajectory.lock import RunLock

TRACEBACK_LINES = 12
WARNINGS_KEPT = 10
# The kernel gives up the lock of a killed process when that is gone altogether, which on a busy
# machine may be later than the scheduler learns of its death.
LOCK_SECONDS = 60.0
_SAY_EVERY = 0.5  # seconds

# Torch's number of threads and its default generator belong to the process: one run at a time,
# however many threads a worker was given.
_alone = threading.Lock()


class Stopped(Exception):
    """The sweep no longer wants the run: it was interrupted, or its client died."""


def run_task(
    module: str,
    config: Any,
    directory: str,
    *,
    index: int,
    topic: str,
    sharing: int = 1,
    most_threads: int | None = None,
) -> dict[str, Any]:
    """What became of one run: small, plain values only, whatever happens in it.

    Args:
        module: Name of the experiment's module.
        config: The configuration, seed included.
        directory: Where the runs' folders are.
        index: The run's number in the sweep.
        topic: Dask topic under which progress is told.
        sharing: Workers on this host, which share its cores.
        most_threads: The most threads that torch may use.

    Returns:
        ``status`` (``finished``, ``failed`` or ``stopped``), ``seconds``, ``warnings``, and either
        ``numbers`` or ``error`` with the last lines of its ``traceback``.
    """
    import torch

    caught: list[warnings.WarningMessage] = []
    with _alone:
        began = time.monotonic()
        torch.set_num_threads(threads_per_run(sharing, cores(), most_threads))
        try:
            # Nobody reads what a worker prints.
            with warnings.catch_warnings(record=True) as caught:
                tell = _Teller(topic, index)
                numbers = _numbers(module, config, Path(directory), tell)
            outcome: dict[str, Any] = {"status": "finished", "numbers": numbers}
        except Stopped:
            outcome = {"status": "stopped"}
        except (Exception, SystemExit) as error:
            outcome = {"status": "failed", **_described(error, config)}
    outcome["seconds"] = time.monotonic() - began
    outcome["warnings"] = list(dict.fromkeys(str(w.message) for w in caught))[:WARNINGS_KEPT]
    return outcome


def _numbers(module: str, config: Any, directory: Path, tell: _Teller) -> dict[str, Any]:
    """The numbers of a run as they are on disk, made where they are not there yet."""
    experiment: Any = importlib.import_module(module)
    folder = run_folder(config, directory)
    tell(0.0, "starting")
    # An earlier attempt may have finished and been lost before it could say so.
    numbers = finished_numbers(config, directory)
    if numbers is None:
        wait_for_lock(folder, tell)
        begun = folder.exists()
        try:
            run_one(experiment, config, directory, progress=tell)
        except RunError:
            if not begun or not _is_unlocked(folder):
                raise
            # What a killed run left cannot be taken up: it begins anew.
            shutil.rmtree(folder)
            run_one(experiment, config, directory, progress=tell)
        numbers = finished_numbers(config, directory)
    assert numbers is not None
    return numbers


def wait_for_lock(folder: Path, tell: Any, seconds: float = LOCK_SECONDS) -> None:
    """Return once nobody writes into a run's folder, or after some seconds at the latest.

    Args:
        folder: The run's folder.
        tell: Called while waiting, with the share done and what is being done.
        seconds: The longest wait; whoever records then gets the error that names the owner.
    """
    deadline = time.monotonic() + seconds
    while folder.exists() and not _is_unlocked(folder) and time.monotonic() < deadline:
        tell(0.0, "waiting for the process that writes the run")
        time.sleep(0.1)


def discard(folder: Path) -> None:
    """Delete the folder of a run that failed, unless someone writes into it."""
    if folder.exists() and _is_unlocked(folder):
        shutil.rmtree(folder, ignore_errors=True)


def _is_unlocked(folder: Path) -> bool:
    try:
        RunLock(folder).release()
    except RunError:
        return False
    return True


def _described(error: BaseException, config: Any) -> dict[str, Any]:
    """An error as text: the message, and where it came from."""
    text = str(error) or repr(error)
    # The note of `run_one` would push the place out of the lines kept; the outcome says it too.
    notes = getattr(error, "__notes__", [])
    notes[:] = [note for note in notes if not note.endswith(f" with {config}")]
    known = isinstance(error, PhasescopeError)
    message = text if known else f"{type(error).__name__}: {text}"
    lines = "".join(traceback.format_exception(error)).splitlines()
    return {"error": message, "traceback": lines[-TRACEBACK_LINES:]}


class _Teller:
    """The progress callback of a run: tells the sweep, and stops the run when it is not wanted.

    Args:
        topic: Dask topic.
        index: The run's number in the sweep.
    """

    def __init__(self, topic: str, index: int) -> None:
        from distributed import get_worker

        self._worker = get_worker()
        self._key = self._worker.get_current_task()
        self._topic = topic
        self._index = index
        self._next = 0.0

    def __call__(self, share: float, what: str) -> None:
        """Tell the sweep, twice a second at most."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _SAY_EVERY
        task = self._worker.state.tasks.get(self._key)
        # Released by its client: cancelled, or gone with the client's process.
        if task is None or task.state == "cancelled":
            raise Stopped
        message = {"index": self._index, "share": float(share), "what": what}
        with contextlib.suppress(OSError):
            self._worker.log_event(self._topic, message)
