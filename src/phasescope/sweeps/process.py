"""What a worker's process does once, when it starts: Dask loads this module as a preload."""

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the process that started the sweep.

    A terminal sends it to every process of the group; that process then stops the workers one by
    one, and a run that is going on closes its recording.

    Args:
        worker: The worker, given by Dask.

    Example:
        >>> before = signal.getsignal(signal.SIGINT)
        >>> dask_setup(None)
        >>> signal.signal(signal.SIGINT, before) is signal.SIG_IGN
        True
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
