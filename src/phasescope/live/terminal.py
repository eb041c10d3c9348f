"""A watched run on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from io import TextIOBase
from typing import IO, cast

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from phasescope.live.document import (
    alarm_lines,
    clock_time,
    headline,
    norms_to_choose,
    phase_rows,
    phases_note,
    remarks,
)
from phasescope.live.watch import Watch

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 48
_MOST_NORMS = 12


def watch_in_terminal(
    watch: Watch,
    *,
    every: float = 2.0,
    file: TextIOBase | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show a run on a terminal until its recording has ended; Ctrl-C ends it before.

    Where the output is no terminal, a line is printed for every change of the status, every alarm
    and every phase instead.

    Args:
        watch: The run.
        every: Seconds between two looks.
        file: Where to; standard output by default.
        sleep: Waits; for tests.

    Example:
        >>> import phasescope as ps, io, tempfile, torch
        >>> folder, model = tempfile.mkdtemp() + "/run", torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> save = {"weights": ps.every(1)}
        >>> with ps.Recorder(folder, model, optimizer, save=save) as recorder:
        ...     recorder.log(loss=1.0)
        >>> watch_in_terminal(Watch(folder), file=(lines := io.StringIO()))
        >>> lines.getvalue().splitlines()[0].split(" ", 1)[1]
        'complete at step 0'
    """
    console = Console(file=cast("IO[str] | None", file))
    if not console.is_terminal:
        _in_lines(watch, console, every, sleep)
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            while watch.poll():
                live.update(_picture(watch), refresh=True)
            live.update(_picture(watch), refresh=True)
            if watch.ended:
                return
            sleep(every)


def _in_lines(watch: Watch, console: Console, every: float, sleep: Callable[[float], None]) -> None:
    said: dict[str, None] = {}
    status = ""

    def say(line: str) -> None:
        if line not in said:
            said[line] = None
            console.print(f"{clock_time()} {line}", highlight=False, markup=False, soft_wrap=True)

    while True:
        while watch.poll():
            pass
        if watch.status != status:
            status = watch.status
            said.pop(headline(watch), None)
            say(headline(watch))
        for line in (*remarks(watch), *alarm_lines(watch)):
            say(line)
        for metric, onset, middle, end, change, _, moved in phase_rows(watch):
            say(f"phase of {metric}: {onset} to {end}, midpoint {middle}, {change}; moved {moved}")
        if watch.ended:
            say(headline(watch))
            return
        sleep(every)


def _picture(watch: Watch) -> Group:
    parts: list[Text | Table] = [Text(f"{watch.path.name}: {headline(watch)}", style="bold")]
    parts += [Text(line, style="dim") for line in remarks(watch)]
    if watch.metrics:
        table = _table("metric", "last", "smallest", "largest", "over ln(1 + step)")
        for name, blocks in watch.metrics.items():
            low, high = float(np.nanmin(blocks.low)), float(np.nanmax(blocks.high))
            numbers = (f"{x:.4g}" for x in (blocks.last[0], low, high))
            table.add_row(Text(name), *numbers, sparkline(blocks.steps, blocks.mean[:, 0]))
        parts.append(table)
    if choice := norms_to_choose(watch):
        parts.append(_norms(watch, choice[0]))
    if rows := phase_rows(watch):
        heads = ("onset", "midpoint (95 %)", "end", "change", "evidence", "moved most")
        table = _table("phase of", *heads)
        for row in rows:
            table.add_row(*map(Text, row))
        parts.append(table)
    else:
        parts.append(Text(phases_note(watch).splitlines()[0]))
    parts += [Text(line, style="yellow") for line in alarm_lines(watch)[-5:]]
    return Group(*parts)


def _norms(watch: Watch, name: str) -> Table:
    """The parts whose norm is now farthest from its median."""
    norms = watch.norms[name]
    mean = np.where(norms.blocks.mean > 0, norms.blocks.mean, np.nan)
    known = np.isfinite(mean).any(0)
    change = np.full(len(norms.names), -np.inf)
    usual = np.nanmedian(mean[:, known], axis=0)
    last = np.where(norms.blocks.last > 0, norms.blocks.last, np.nan)[known]
    change[known] = np.nan_to_num(np.abs(np.log2(last / usual)), nan=-np.inf)
    chosen = np.argsort(-change, kind="stable")[:_MOST_NORMS]
    quantity = name.partition("/")[2]
    title = f"norm of {quantity}"
    if len(chosen) < len(norms.names):
        title += f", {len(chosen)} of {len(norms.names)}"
    table = _table(title, "last", "over its median", "over ln(1 + step)")
    medians = dict(zip(np.flatnonzero(known).tolist(), usual.tolist(), strict=True))
    for i in chosen.tolist():
        ratio = norms.blocks.last[i] / medians[i] if i in medians else np.nan
        curve = sparkline(norms.blocks.steps, mean[:, i])
        table.add_row(Text(norms.names[i]), f"{norms.blocks.last[i]:.3g}", f"{ratio:.2f}", curve)
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, overflow="ellipsis", no_wrap=True, max_width=36)
    for name in others:
        curve = name.startswith("over ln")
        table.add_column(name, justify="left" if curve else "right", no_wrap=curve)
    return table


def sparkline(steps: np.ndarray, values: np.ndarray, width: int = _WIDTH) -> str:
    """A curve as a row of bars over ln(1 + step), each the mean of the blocks that fall into it.

    Example:
        >>> sparkline(np.array([0.0, 1.0, 3.0, 7.0]), np.array([0.0, 1.0, 2.0, 7.0]), width=4)
        '▁▂▃█'
    """
    known = np.isfinite(values)
    if not known.any():
        return ""
    tau = np.log1p(steps[known])
    span = max(float(tau[-1] - tau[0]), 1e-12)
    place = np.minimum((tau - tau[0]) / span * width, width - 1).astype(int)
    sums = np.bincount(place, values[known], minlength=width)
    counts = np.bincount(place, minlength=width)
    with np.errstate(invalid="ignore"):
        mean = sums / counts
    low, high = np.nanmin(mean), np.nanmax(mean)
    levels = (mean - low) / max(high - low, 1e-300) * (len(_BARS) - 1)
    return "".join(" " if np.isnan(x) else _BARS[round(float(x))] for x in levels)
