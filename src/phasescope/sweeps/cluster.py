"""The Dask cluster that a sweep runs on: one of this machine, or a scheduler somewhere."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from phasescope.errors import PhasescopeError

if TYPE_CHECKING:
    from distributed import Client

RETRIES = 2
_CONNECT_SECONDS = 60
_PRELOAD = "phasescope.sweeps.process"
_LATE = "Creating scratch directories"  # how Dask's warning of a slow disk begins


@contextmanager
def connect(
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    n_tasks: int | None = None,
    memory_per_run: int | None = None,
    retries: int = RETRIES,
    dashboard: bool = False,
) -> Iterator[Client]:
    """A client of the cluster, which is closed on leaving if it was started here.

    A local cluster has one process of one Dask thread per worker and listens on 127.0.0.1 only. Its
    workers never pause or spill: what a run keeps is not Dask's to move. One that needs more memory
    than its share is killed, and with it its task.

    Args:
        scheduler: Address of a running scheduler, such as ``tcp://10.0.0.1:8786``.
        workers: Processes of a local cluster; by default one per core.
        n_tasks: How much there is to do: more workers are not started.
        memory_per_run: Bytes that a worker may use; no more workers than the memory holds are
            started. By default every worker may use its share of the memory.
        retries: How often a task whose worker died is started again, on a local cluster; elsewhere
            the scheduler's ``allowed-failures`` decides.
        dashboard: Serve Dask's dashboard on 127.0.0.1:8787.

    Raises:
        PhasescopeError: The scheduler does not answer or has no workers, or the memory does not
            hold one run.
        ValueError: A scheduler and workers were given, or fewer than one worker.
    """
    if scheduler is not None and workers is not None:
        raise ValueError(
            "give either workers=, for a cluster on this machine, or scheduler=, whose workers are "
            f"there already; but workers={workers} and scheduler={scheduler!r} arrived."
        )
    if scheduler is not None:
        yield from _remote(scheduler)
    else:
        count = _count(workers, n_tasks, memory_per_run)
        yield from _local(count, memory_per_run, retries, dashboard)


def _remote(scheduler: str) -> Iterator[Client]:
    from distributed import Client

    where = f"a running Dask scheduler is required, but {scheduler}"
    try:
        client = Client(scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise PhasescopeError(
            f"{where} does not answer: {error}. Start one with `dask scheduler`, and workers with "
            "`dask worker ADDRESS --nthreads 1`."
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
        except TimeoutError as error:
            raise PhasescopeError(
                f"{where} has no workers. Start some with `dask worker {scheduler} --nthreads 1`."
            ) from error
        yield client


def _local(
    n_workers: int, memory_per_run: int | None, retries: int, dashboard: bool
) -> Iterator[Client]:
    import dask.config
    from distributed import Client, LocalCluster
    from distributed.system import MEMORY_LIMIT

    settings: dict[str, Any] = {
        "distributed.scheduler.allowed-failures": retries,
        # A training may hold Python's lock for long; a worker that died closes its connection.
        "distributed.scheduler.worker-ttl": None,
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.profile.enabled": False,
        # On a busy machine everything may be late.
        "distributed.comm.timeouts.connect": "120s",
        "distributed.comm.timeouts.tcp": "120s",
        "distributed.deploy.lost-worker-timeout": "120s",
        "distributed.nanny.pre-spawn-environ.PYTHONWARNINGS": f"ignore:{_LATE}",
    }
    if not dashboard:
        settings["distributed.scheduler.http.routes"] = []
        settings["distributed.worker.http.routes"] = []
    with dask.config.set(settings):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _LATE, UserWarning)
            cluster = LocalCluster(
                n_workers=n_workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:8787" if dashboard else "127.0.0.1:0",
                scheduler_kwargs={"dashboard": dashboard},
                memory_limit=memory_per_run or MEMORY_LIMIT // n_workers,
                silence_logs=logging.CRITICAL,
                preload=[_PRELOAD],
            )
        with cluster, Client(cluster, set_as_default=False) as client:
            yield client


def _count(workers: int | None, n_tasks: int | None, memory_per_run: int | None) -> int:
    """Processes of a local cluster: no more than are asked for, can work, or fit."""
    if workers is not None and workers < 1:
        raise ValueError(f"a sweep needs at least 1 worker, but workers={workers} arrived.")
    count = workers or cores()
    if n_tasks is not None:
        count = min(count, max(1, n_tasks))
    if memory_per_run is None:
        return count
    from distributed.system import MEMORY_LIMIT

    fitting = MEMORY_LIMIT // memory_per_run
    if fitting < 1:
        raise PhasescopeError(
            f"a run was said to need {memory_per_run:,} bytes of memory, but this machine has "
            f"{MEMORY_LIMIT:,}. Use a scheduler with larger workers."
        )
    return min(count, fitting)


def cores() -> int:
    """Cores that this process may use.

    Example:
        >>> cores() >= 1
        True
    """
    from dask.system import CPU_COUNT

    return max(1, CPU_COUNT)


def usable_workers(found: dict[str, Any], memory_per_run: int | None = None) -> dict[str, str]:
    """Address and host of the workers whose memory holds a run.

    Args:
        found: What the scheduler knows of every worker, by address.
        memory_per_run: Bytes that a run needs.

    Example:
        >>> small, any_size = {"host": "a", "memory_limit": 4}, {"host": "b", "memory_limit": 0}
        >>> found = {"a:1": small, "b:1": any_size}
        >>> usable_workers(found, memory_per_run=5)
        {'b:1': 'b'}
    """
    return {
        address: info["host"]
        for address, info in found.items()
        if not info["memory_limit"] or info["memory_limit"] >= (memory_per_run or 0)
    }


def most_threads() -> int | None:
    """The limit that `OMP_NUM_THREADS` sets in this process, if it does.

    A worker cannot ask: Dask sets the variable in its environment.
    """
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdigit() and int(text) > 0 else None


def threads_per_run(sharing: int, n_cores: int, most: int | None = None) -> int:
    """Threads of torch such that those of all workers of a host fit on its cores.

    Args:
        sharing: Workers of the host.
        n_cores: Cores of the host.
        most: A limit.

    Example:
        >>> threads_per_run(3, 8), threads_per_run(3, 8, most=1), threads_per_run(16, 8)
        (2, 1, 1)
    """
    threads = max(1, n_cores // sharing)
    return threads if most is None else min(threads, most)
