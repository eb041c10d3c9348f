"""A run in progress as it looks now: curves, norms, alarms, phases."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from phasescope.analysis.online import Alarm, OnlineDetector
from phasescope.errors import RunError
from phasescope.live.blocks import GrowingBlocks
from phasescope.live.tail import News, Rows, RunTail
from phasescope.report.phases import RunPhases, run_phases
from phasescope.trajectory.reader import Run

METRIC_WIDTH = 0.005
NORM_WIDTH = 0.02
SILENT_SECONDS = 60.0
_GROWTH = 1.1
_PATIENCE = 20.0
_RATE_SECONDS = 60.0
_MOST_ALARMS = 200


@dataclass(frozen=True)
class MetricAlarm:
    """A change of a metric that was noticed while it happened."""

    metric: str
    """Name of the metric."""
    alarm: Alarm
    """When, since when, in which direction."""


@dataclass(frozen=True, eq=False)
class Norms:
    """Norms of every tensor or component, in blocks."""

    names: tuple[str, ...]
    """Of the columns."""
    blocks: GrowingBlocks
    """Their norms."""


class Watch:
    """What a run in progress looks like, brought up to date by `poll`.

    Memory grows with the logarithm of the run's length: curves are kept in blocks of logarithmic
    time. `OnlineDetector` reads every metric as it comes. The phases are those of `phasescope
    analyse` (`run_phases`, without changes between recorded weights, which are large): searched in
    a thread once the run has grown by a tenth, in at most a twentieth of the time, and once more
    when it has ended.

    Args:
        path: The run's directory; it need not exist yet.
        clock: Seconds since any moment; for tests.

    Example:
        >>> watch = Watch("no/such/run")
        >>> watch.poll()
        False
        >>> watch.status
        'waiting'
    """

    def __init__(self, path: Path | str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = Path(path)
        self.version = 0
        """Rises whenever there is something new to show."""
        self.run: Run | None = None
        """The run as of its last commit; None while it is not there."""
        self.why = ""
        """Why the run is not there or cannot be read at the moment."""
        self.rewinds = 0
        """How often the run went back to a checkpoint or was begun again."""
        self._tail = RunTail(path)
        self._clock = clock
        self._search = PhaseSearch(clock)
        self._behind = False
        self._forget()

    def _forget(self) -> None:
        self.metrics: dict[str, GrowingBlocks] = {}
        self.norms: dict[str, Norms] = {}
        self.alarms: list[MetricAlarm] = []
        self._detectors: dict[str, OnlineDetector] = {}
        self._progress: deque[tuple[float, int]] = deque()
        self._newest = self._clock()
        self._search.forget()

    @property
    def phases(self) -> RunPhases | None:
        """The phases found last; None before the first search has ended."""
        return self._search.found

    @property
    def last_step(self) -> int:
        """Step of the newest row; −1 before there is one."""
        curves = [*self.metrics.values(), *(norms.blocks for norms in self.norms.values())]
        return max((blocks.last_step for blocks in curves), default=-1)

    @property
    def status(self) -> str:
        """``waiting``, ``recording``, ``silent``, ``complete`` or ``interrupted``.

        Silent is a run that says that it is being recorded, but has committed nothing for a minute:
        its process was stopped or killed, or a step takes that long. Recorders commit every five
        seconds.
        """
        if self.run is None:
            return "waiting"
        if self.run.status == "recording" and self.silence > SILENT_SECONDS:
            return "silent"
        return self.run.status

    @property
    def ended(self) -> bool:
        """Whether the recording is over and everything about it is known."""
        if self.run is None or self.run.status == "recording":
            return False
        return not self._behind and not self._search.busy

    @property
    def silence(self) -> float:
        """Seconds since the run last committed something, as far as was seen."""
        return self._clock() - self._newest

    @property
    def rate(self) -> float | None:
        """Steps per second over the last minute; None if that is not known."""
        if len(self._progress) < 2:
            return None
        (began, first), (ended, last) = self._progress[0], self._progress[-1]
        return (last - first) / (ended - began) if ended > began else None

    def poll(self) -> bool:
        """Look once; whether there may be more to read at once."""
        news = self._tail.poll()
        if news.anew:
            self.rewinds += 1
            self._forget()
        told = self.why != news.why or self._search.take()
        self.why = news.why
        if news.changed:
            self.run = news.run
            for rows in news.rows:
                self._take(rows)
        if news.rows:
            self._newest = self._clock()
            self._measure_rate(news)
        self._behind = news.more
        if news.changed or told:
            self.version += 1
        if self.run is not None and not news.more and not news.why:
            over = self.run.status != "recording"
            self._search.consider(self.run, self.last_step, over=over)
        return news.more

    def _take(self, rows: Rows) -> None:
        group, _, name = rows.name.partition("/")
        columns = rows.values.shape[1]
        if group != "metrics":
            if rows.name not in self.norms:
                names = rows.labels or tuple(str(i) for i in range(columns))
                self.norms[rows.name] = Norms(names, GrowingBlocks(columns, NORM_WIDTH))
            self.norms[rows.name].blocks.add(rows.steps, rows.values)
            return
        blocks = self.metrics.setdefault(name, GrowingBlocks(1, METRIC_WIDTH))
        blocks.add(rows.steps, rows.values)
        detector = self._detectors.setdefault(name, OnlineDetector())
        finite = np.isfinite(rows.values[:, 0])
        pairs = zip(rows.steps[finite].tolist(), rows.values[finite, 0].tolist(), strict=True)
        for step, value in pairs:
            if (alarm := detector.update(step, value)) is not None:
                self.alarms.append(MetricAlarm(name, alarm))
        del self.alarms[:-_MOST_ALARMS]

    def _measure_rate(self, news: News) -> None:
        if news.more:  # what was there before one looked says nothing about the speed
            self._progress.clear()
            return
        now = self._clock()
        self._progress.append((now, self.last_step))
        while now - self._progress[0][0] > _RATE_SECONDS and len(self._progress) > 2:
            self._progress.popleft()


class PhaseSearch:
    """Searches a growing run for phases in a thread, at most a twentieth of the time.

    Args:
        clock: Seconds since any moment.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._done: tuple[int, Any] | None = None
        self._generation = 0
        self._not_before = 0.0
        self.forget()

    def forget(self) -> None:
        """The run went back: what was found, and what is being searched, counts no longer."""
        self._generation += 1
        self.found: RunPhases | None = None
        self._searched = -1
        self._finished = False

    @property
    def busy(self) -> bool:
        """Whether a search is under way or its result was not taken yet."""
        return self._thread is not None

    def consider(self, run: Run, last_step: int, *, over: bool) -> None:
        """Begin a search if it is time.

        Args:
            run: The run as of its last commit.
            last_step: Its newest step.
            over: Whether the recording has ended.
        """
        grown = last_step + 1 >= _GROWTH * (self._searched + 1) and last_step > self._searched
        due = over and not self._finished if over else grown and self._clock() >= self._not_before
        if self.busy or last_step < 0 or not due:
            return
        self._searched, self._finished = last_step, over
        arguments = (run, self._generation)
        self._thread = threading.Thread(target=self._work, args=arguments, daemon=True)
        self._thread.start()

    def take(self) -> bool:
        """Take over the result of a search that has ended; whether there is a new one."""
        if self._thread is None or self._thread.is_alive():
            return False
        self._thread = None
        if self._done is None or self._done[0] != self._generation:
            return False
        self.found, self._done = self._done[1], None
        return True

    def _work(self, run: Run, generation: int) -> None:
        began = self._clock()
        try:
            found = run_phases(run, weights=False)
        except (RunError, OSError):  # the run went back meanwhile; the next look says so
            found = None
        if found is not None:
            self._done = (generation, found)
        now = self._clock()
        self._not_before = now + _PATIENCE * (now - began)
