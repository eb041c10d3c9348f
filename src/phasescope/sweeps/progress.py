"""A sweep's progress, on standard error: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from phasescope.sweeps.outcome import Outcome, Progress

_SHOWN_FIELDS = 3


@contextmanager
def shown(name: str, *, quiet: bool = False) -> Iterator[Callable[[Progress], None]]:
    """What `sweep` takes as `watch`.

    Elsewhere than on a terminal a line is written when a run ends, and when the sweep begins to
    wait for something.

    Args:
        name: The experiment, for the first words.
        quiet: Show nothing.
    """
    if quiet:
        yield lambda progress: None
        return
    if not sys.stderr.isatty():
        before: list[tuple[int, str]] = []

        def tell(progress: Progress) -> None:
            state = (progress.ended, progress.waiting.split(":")[0])
            if before[-1:] != [state]:
                before[:] = [state]
                sys.stderr.write(f"sweep {name}: {line(progress)}\n")
                sys.stderr.flush()

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    with Bar(
        BarColumn(), TextColumn("{task.description}"), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("starting", total=1.0)
        said: list[Outcome] = []

        def draw(progress: Progress) -> None:
            part = sum(run.share for run in progress.running)
            bar.update(
                task,
                completed=progress.ended + part,
                total=float(progress.total),
                description=line(progress),
            )
            last = progress.last
            if last is not None and last.status == "failed" and all(last is not o for o in said):
                said[:] = [last]
                bar.console.print(f"failed: {last.folder.name}: {last.error}", markup=False)

        yield draw


def line(progress: Progress) -> str:
    """Progress in a line.

    Example:
        >>> from phasescope.sweeps import RunProgress
        >>> running = (RunProgress(0.25, "training", 12.0),)
        >>> line(Progress(6, 1, 2, 1, running, 3700.0))
        '4/6 done (1 before, 1 failed), 1 running (training 25%), about 1 h 1 min left'
    """
    kinds = [(progress.kept, "before"), (progress.failed, "failed")]
    counted = ", ".join(f"{count} {kind}" for count, kind in kinds if count)
    parts = [f"{progress.ended}/{progress.total} done{f' ({counted})' if counted else ''}"]
    if progress.running:
        runs = [f"{r.what} {r.share:.0%}" if r.share else r.what for r in progress.running]
        more = ", …" if len(runs) > _SHOWN_FIELDS else ""
        parts.append(f"{len(runs)} running ({', '.join(runs[:_SHOWN_FIELDS])}{more})")
    if progress.seconds_left is not None and progress.ended < progress.total:
        parts.append(f"about {duration(progress.seconds_left)} left")
    if progress.waiting:
        parts.append(progress.waiting)
    return ", ".join(parts)


def duration(seconds: float | int) -> str:
    """Seconds in words, to two units.

    Example:
        >>> duration(4.2), duration(75), duration(7300), duration(200_000)
        ('5 s', '1 min 15 s', '2 h 1 min', '2 d 7 h')
    """
    whole = -int(-seconds // 1)
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    parts = []
    for unit, size in units:
        count, whole = divmod(whole, size)
        parts.append((count, unit))
    first = next((i for i, (count, _) in enumerate(parts) if count), len(parts) - 1)
    said = [f"{count} {unit}" for count, unit in parts[first : first + 2] if count or first == 3]
    return " ".join(said)
