"""Many runs of an experiment on a Dask cluster: finished ones are kept, failures stop nothing."""

from __future__ import annotations

import contextlib
import queue
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from phasescope.errors import PhasescopeError
from phasescope.experiments.runner import NUMBERS, finished_numbers, run_folder
from phasescope.sweeps.cluster import RETRIES, connect, most_threads, usable_workers
from phasescope.sweeps.outcome import Outcome, Progress, RunProgress, seconds_left
from phasescope.sweeps.room import DiskRoom
from phasescope.sweeps.task import TRACEBACK_LINES, discard, run_task
from phasescope.trajectory.files import write_json

if TYPE_CHECKING:
    from distributed import Client, Future

_POLL_SECONDS = 1.0
_WORKERS_SECONDS = 5.0


def sweep(
    experiment: Any,
    configs: Sequence[Any],
    directory: Path | str,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    known: Mapping[str, dict[str, Any]] | None = None,
    memory_per_run: int | None = None,
    disk_per_run: int | None = None,
    retries: int = RETRIES,
    keep_failed: bool = False,
    dashboard: bool = False,
    watch: Callable[[Progress], None] | None = None,
) -> list[Outcome]:
    """Outcomes of an experiment's runs, made on a local Dask cluster or on a given one.

    A run has the folder of its configuration in `directory`, as `phasescope run` gives it. Finished
    ones are read, begun ones go on. A run that raises is an outcome with its error; one whose
    worker dies is started again, which takes up what it left, and given up after `retries`. No more
    than one run is with a worker, so that a death costs one task. When the call is interrupted, or
    its process dies, the running runs stop at their next progress report.

    Args:
        experiment: A module as in `phasescope.experiments`; workers import it by its name. A hook
            ``disk_bytes(config)`` says how much disk a run needs.
        configs: Configurations, seeds included; see `grid`.
        directory: Where the runs' folders are; workers on other machines must share it to take up
            interrupted runs and to leave what figures need.
        workers: Processes of a local cluster; by default one per core.
        scheduler: Address of a running Dask scheduler, instead.
        known: Numbers of runs made elsewhere, by hash; see `runner.known_runs`.
        memory_per_run: Bytes of memory that a run needs: no more workers than fit are used, and on
            a local cluster a run that takes more is killed.
        disk_per_run: Bytes of disk that a run needs while it runs; a run begins once they are free.
        retries: How often a run whose worker died is started again (local cluster).
        keep_failed: Keep what failed runs have recorded; by default it is deleted.
        dashboard: Serve Dask's dashboard on 127.0.0.1:8787.
        watch: Called about every second, and whenever a run ends.

    Returns:
        One outcome per configuration, in their order.

    Raises:
        TypeError: The experiment is not a module.
        PhasescopeError: The cluster cannot be had or is lost, or no machine is large enough.

    Example:
        >>> from phasescope.experiments import gradient_spectrum
        >>> sweep(gradient_spectrum, [], "runs/nothing")
        []
    """
    if not isinstance(experiment, ModuleType):
        raise TypeError(
            "a sweep requires the experiment's module, which workers import by its name, but "
            f"{type(experiment).__name__} arrived."
        )
    directory = Path(directory).absolute()
    folders = [run_folder(config, directory) for config in configs]
    numbers = [finished_numbers(config, directory, known) for config in configs]
    outcomes: dict[int, Outcome] = {
        i: _loaded(experiment, configs[i], folders[i], found)
        for i, found in enumerate(numbers)
        if found is not None
    }
    missing = [i for i in range(len(configs)) if i not in outcomes]
    if missing:
        directory.mkdir(parents=True, exist_ok=True)
        room = DiskRoom(directory, experiment, disk_per_run)
        with connect(
            scheduler=scheduler,
            workers=workers,
            n_tasks=len(missing),
            memory_per_run=memory_per_run,
            retries=retries,
            dashboard=dashboard,
        ) as client:
            loop = _Loop(experiment, configs, folders, outcomes, client, room)
            loop.run(
                missing,
                watch or (lambda progress: None),
                memory_per_run=memory_per_run,
                most_threads=None if scheduler else most_threads(),
                keep_failed=keep_failed,
            )
    return [outcomes[i] for i in range(len(configs))]


def _loaded(
    experiment: Any,
    config: Any,
    folder: Path,
    numbers: dict[str, Any],
    *,
    seconds: float | None = None,
    warnings: Sequence[str] = (),
) -> Outcome:
    try:
        results = experiment.load(config, folder, numbers)
    except Exception as error:
        return Outcome(
            config,
            folder,
            "failed",
            seconds=seconds,
            error=f"{type(error).__name__}: {error}; what it left in {folder} cannot be read. "
            "Delete that folder to run it again.",
            traceback=tuple(traceback.format_exc().splitlines()[-TRACEBACK_LINES:]),
            warnings=tuple(warnings),
        )
    return Outcome(config, folder, "finished", results, seconds, warnings=tuple(warnings))


class _Loop:
    """Hands runs to workers, one each, and collects what becomes of them.

    Dask's own queue is not used: a task that waits at a worker would share the blame for its death,
    and could not wait for disk.
    """

    def __init__(
        self,
        experiment: Any,
        configs: Sequence[Any],
        folders: Sequence[Path],
        outcomes: dict[int, Outcome],
        client: Client,
        room: DiskRoom,
    ) -> None:
        self.experiment = experiment
        self.configs = configs
        self.folders = folders
        self.outcomes = outcomes
        self.client = client
        self.room = room
        self.topic = f"phasescope-{uuid.uuid4().hex}"
        self.futures: dict[int, Future] = {}
        self.since: dict[int, float] = {}
        self.shares: dict[int, tuple[float, str]] = {}
        self.events: queue.SimpleQueue[tuple[str, int, Any]] = queue.SimpleQueue()
        self.kept = len(outcomes)
        self.last: Outcome | None = None
        self._workers: list[str] = []
        self._asked = -_WORKERS_SECONDS

    def run(
        self,
        missing: Sequence[int],
        watch: Callable[[Progress], None],
        *,
        memory_per_run: int | None,
        most_threads: int | None,
        keep_failed: bool,
    ) -> None:
        """Make the runs with these numbers; on the way out none of them is left running."""
        waiting = deque(missing)
        self._memory_per_run, self._most_threads = memory_per_run, most_threads
        self.client.subscribe_topic(self.topic, self._heard)
        try:
            while waiting or self.futures:
                why = self._begin(waiting)
                watch(self._progress(len(waiting), why))
                for kind, index, content in self._events():
                    if kind == "ended":
                        self._end(index, content, keep_failed)
                    elif index in self.futures:
                        self.shares[index] = content
            watch(self._progress(0, ""))
        finally:
            with contextlib.suppress(Exception):  # of a scheduler that is gone
                if self.futures:
                    self.client.cancel(list(self.futures.values()))
                self.client.unsubscribe_topic(self.topic)

    def _heard(self, event: tuple[float, dict[str, Any]]) -> None:
        _, said = event
        self.events.put(("told", said["index"], (said["share"], said["what"])))

    def _events(self) -> list[tuple[str, int, Any]]:
        """What has happened, up to the end of one run; waits a second for something."""
        found = []
        try:
            found.append(self.events.get(timeout=_POLL_SECONDS))
            while found[-1][0] != "ended":
                found.append(self.events.get_nowait())
        except queue.Empty:
            pass
        return found

    def _begin(self, waiting: deque[int]) -> str:
        """Hand runs to idle workers; returns what the next one waits for, workers aside."""
        workers = self._known_workers()
        if not workers:
            return "waiting for workers" if waiting else ""
        while waiting and len(self.futures) < len(workers):
            index = waiting[0]
            running = {self.folders[i]: self.configs[i] for i in self.futures}
            why = self.room.missing(self.configs[index], self.folders[index], running)
            if why is not None:
                return why
            waiting.popleft()
            sharing = max(workers.count(host) for host in workers)
            future = self.client.submit(
                run_task,
                self.experiment.__name__,
                self.configs[index],
                str(self.folders[index].parent),
                index=index,
                topic=self.topic,
                sharing=sharing,
                most_threads=self._most_threads,
                key=f"{self.topic}-{index}",
                pure=False,
            )
            self.futures[index] = future
            self.since[index] = time.monotonic()
            self.shares[index] = (0.0, "starting")
            future.add_done_callback(lambda f, i=index: self.events.put(("ended", i, f)))
        return ""

    def _known_workers(self) -> list[str]:
        """The host of every worker that can take a run; asked for now and then."""
        now = time.monotonic()
        if now - self._asked > _WORKERS_SECONDS or not self._workers:
            self._asked = now
            found = self.client.scheduler_info(n_workers=-1)["workers"]
            self._workers = list(usable_workers(found, self._memory_per_run).values())
            if found and not self._workers:
                largest = max(info["memory_limit"] for info in found.values())
                raise PhasescopeError(
                    f"a run was said to need {self._memory_per_run:,} bytes of memory, but the "
                    f"largest worker has {largest:,}. Start larger workers."
                )
        return self._workers

    def _end(self, index: int, future: Future, keep_failed: bool) -> None:
        """Take the outcome of a run whose task is over."""
        seconds = time.monotonic() - self.since[index]
        outcome = self._outcome(index, future, seconds)
        if outcome.status == "failed" and not keep_failed:
            discard(outcome.folder)
        del self.futures[index], self.since[index], self.shares[index]
        self.outcomes[index] = self.last = outcome

    def _outcome(self, index: int, future: Future, seconds: float) -> Outcome:
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        config, folder = self.configs[index], self.folders[index]
        try:
            record = future.result()
        except KilledWorker as error:
            n_died = error.allowed_failures + 1
            text = (
                f"the worker died {n_died} time{'s' * (n_died > 1)} while it ran this: killed, out "
                "of memory (--memory-per-run sets how much a run may use), or crashed"
            )
            return Outcome(config, folder, "failed", seconds=seconds, error=text)
        except FutureCancelledError as error:
            raise PhasescopeError(
                f"the Dask scheduler was lost while runs were going on ({error.reason}). Finished "
                "runs are kept; the same call goes on with the others."
            ) from error
        except Exception as error:  # the task could not even begin, such as a failing import
            lines = traceback.format_exception(error)[-1].splitlines()
            text = f"a worker could not begin it: {type(error).__name__}: {error}"
            return Outcome(
                config, folder, "failed", seconds=seconds, error=text, traceback=tuple(lines)
            )
        if record["status"] == "finished":
            if not (folder / NUMBERS).exists():  # made on a machine with disks of its own
                folder.mkdir(parents=True, exist_ok=True)
                write_json(folder / NUMBERS, record["numbers"])
            return _loaded(
                self.experiment,
                config,
                folder,
                record["numbers"],
                seconds=record["seconds"],
                warnings=record["warnings"],
            )
        return Outcome(
            config,
            folder,
            "failed",
            seconds=record["seconds"],
            error=record.get("error", "it was stopped by its worker"),
            traceback=tuple(record.get("traceback", ())),
            warnings=tuple(record["warnings"]),
        )

    def _progress(self, n_waiting: int, why: str) -> Progress:
        now = time.monotonic()
        running = tuple(
            RunProgress(*self.shares[i], seconds=now - self.since[i]) for i in self.futures
        )
        done = list(self.outcomes.values())
        durations = [o.seconds for o in done if o.status == "finished" and o.seconds is not None]
        failed = sum(o.status == "failed" for o in done)
        return Progress(
            total=len(self.configs),
            kept=self.kept,
            finished=len(durations),
            failed=failed,
            running=running,
            seconds_left=seconds_left(durations, running, n_waiting, len(self._workers)),
            waiting=why,
            last=self.last,
        )
