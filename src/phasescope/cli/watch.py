"""The command ``watch``: a run in progress, on a page or on the terminal."""

import time
from pathlib import Path
from typing import Annotated

import tyro

from phasescope.errors import RunError


def watch(
    run: Annotated[Path, tyro.conf.Positional],
    terminal: bool = False,
    port: int | None = None,
    every: float = 2.0,
) -> None:
    """Follow a run in progress: curves, norms per component, phases as they are detected.

    A page on 127.0.0.1, for this machine only, or the terminal. The run is read while another
    process writes it, without its lock, and never changed; one that is not there yet is waited for.
    Recorders commit every five seconds. Ctrl-C ends the watching, not the run.

    Args:
        run: The run's directory.
        terminal: Show it here; ends with the run.
        port: Of the page; 8650 by default, or the next that is free.
        every: Seconds between two looks.
    """
    if not every > 0:
        raise ValueError(f"--every needs a positive number of seconds, but got {every}.")
    if run.exists() and not run.is_dir():
        raise RunError(f"watch needs the directory of a run, but {run} is a file.")
    from phasescope.live import Watch, WatchServer, watch_in_terminal

    watched = Watch(run)
    try:
        if terminal:
            watch_in_terminal(watched, every=every)
            return
        with WatchServer(watched, port) as server:
            print(f"{run}: watch it at {server.address} (Ctrl-C ends the watching)", flush=True)
            while True:
                if not server.poll():
                    time.sleep(every)
    except KeyboardInterrupt:
        print("watching ended; the run is left as it is")
