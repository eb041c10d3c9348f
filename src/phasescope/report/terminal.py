"""Progress of long work, on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(n_runs: int = 1, *, quiet: bool) -> Iterator[Callable[[int, float, str], None]]:
    """A progress bar on a terminal, a line per tenth elsewhere, on standard error."""
    if quiet:
        yield lambda index, share, what: None
        return
    if not sys.stderr.isatty():
        shown = -1

        def tell(index: int, share: float, what: str) -> None:
            nonlocal shown
            tenth = int(10 * (index + share) / n_runs)
            if tenth > shown:
                shown = tenth
                sys.stderr.write(f"{10 * tenth:3d}% run {index + 1}/{n_runs}: {what}\n")

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=float(n_runs))
        yield lambda index, share, what: bar.update(
            task, completed=index + share, description=f"run {index + 1}/{n_runs}: {what}"
        )
