"""The Gram matrix of a run on disk, against one product of the whole shape; and its memory."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rows import Row, alternate, summary

import phasescope as ps
from phasescope.parameters import ParameterTable
from phasescope.trajectory.runfile import RunFile
from phasescope.trajectory.schema import PARAMETER, SCHEMA_VERSION, STORE
from phasescope.trajectory.store import ArraySpec, TrajectoryStore

PRODUCT_COLUMNS = 16_384
MEMORY_GOAL = 800e6


@dataclass(frozen=True)
class Sizes:
    n_steps: int = 2000
    n_columns: int = 1_000_000
    chunk_columns: int = 16_384
    turns: int = 2
    products: int = 5


QUICK = Sizes(n_steps=128, n_columns=20_000, chunk_columns=4096, turns=1, products=1)


def rows(*, quick: bool, scratch: Path) -> list[Row]:
    sizes = QUICK if quick else Sizes()
    square = ArraySpec("float32", (sizes.n_columns,), (PARAMETER,), 64, sizes.chunk_columns)
    return layout_rows(sizes, square, scratch, quick=quick, goals=True)


def layout_rows(
    sizes: Sizes, spec: ArraySpec, scratch: Path, *, quick: bool, goals: bool
) -> list[Row]:
    """Rows of one layout on disk: warm, cold, and the memory of a process of its own."""
    require_disk(scratch, 4 * sizes.n_steps * spec.width)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=scratch) as folder:
        run = Path(folder) / "run"
        write_run(run, sizes.n_steps, spec)
        timed = time_states(run, sizes)
        memory = peak_memory(run)
    title = (
        f"Gram from disk, P = {sizes.n_columns:,}, T = {sizes.n_steps:,}, "
        f"chunks {spec.chunk_rows} x {spec.chunk_tail[0]:,}"
    )
    scale = sizes.n_columns / min(PRODUCT_COLUMNS, sizes.n_columns)
    other = statistics.median(timed["product"]) * scale
    found = []
    for state, goal in (("warm", 1.1), ("cold", 1.0)):
        if state not in timed:
            continue
        detail = {
            "gram_s": summary(timed[state]),
            "product_of_block_s": summary(timed["product"]),
            "product_columns": min(PRODUCT_COLUMNS, sizes.n_columns),
            "read_bytes_per_s": summary(timed[f"{state} reading"]),
            "run_bytes": 4 * sizes.n_steps * sizes.n_columns,
        }
        name = f"{title}: {state} page cache"
        ours = statistics.median(timed[state])
        found.append(
            Row(name, ours, other, "torch.mm of the shape", goal if goals else None, detail=detail,
                quick=quick)
        )  # fmt: skip
    found.append(
        Row(f"{title}: peak memory of its process", memory["peak_bytes"], unit="bytes",
            goal=MEMORY_GOAL if goals else None, goal_on="ours", detail=memory, quick=quick)
    )  # fmt: skip
    return found


def require_disk(scratch: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(scratch).free
    if free < 1.1 * n_bytes:
        raise SystemExit(
            f"the benchmark writes {n_bytes / 1e9:.1f} GB, but its scratch folder has only "
            f"{free / 1e9:.1f} GB free. Pass --scratch with a folder on another disk."
        )


def write_run(directory: Path, n_steps: int, spec: ArraySpec) -> None:
    """A run of noise as the recorder would leave it."""
    store = TrajectoryStore(directory / STORE, {"schema": SCHEMA_VERSION})
    group = store.add_group("gradients", {"values": spec})
    generator = torch.Generator().manual_seed(0)
    block = torch.empty(spec.chunk_rows, spec.width)
    for start in range(0, n_steps, spec.chunk_rows):
        steps = np.arange(start, min(start + spec.chunk_rows, n_steps))
        block.normal_(generator=generator)
        group.write(steps, {"values": block[: len(steps)].numpy()})
    store.commit()
    table = ParameterTable(("weight",), (spec.tail,))
    RunFile(directory, {"parameters": table.to_json(), "config": {}}).write(status="complete")
    for path in chunk_files(directory):
        with path.open("rb") as file:
            os.fsync(file.fileno())  # else the disk is busy during the first timings


def time_states(run: Path, sizes: Sizes) -> dict[str, list[float]]:
    """Seconds of the Gram in each state of the page cache, products between them."""
    series = ps.open_run(run).gradients
    columns = min(PRODUCT_COLUMNS, sizes.n_columns)
    X = torch.from_numpy(series[:, :columns])
    K = torch.empty(sizes.n_steps, sizes.n_steps)
    product = {"product": lambda: torch.mm(X, X.T, out=K)}
    alternate(product, 1)  # the first call sets things up
    prepare: dict[str, Callable[[Path], None]] = {"warm": read_all}
    if hasattr(os, "posix_fadvise"):
        prepare["cold"] = drop_from_cache
    times: dict[str, list[float]] = {"product": alternate(product, sizes.products)["product"]}
    for _ in range(sizes.turns):
        for state, bring_about in prepare.items():
            bring_about(run)
            times.setdefault(f"{state} reading", []).append(reading_speed(series))
            bring_about(run)
            found = alternate({state: lambda: ps.gram(series)}, 1)
            times.setdefault(state, []).extend(found[state])
            times["product"] += alternate(product, sizes.products)["product"]
    return times


def chunk_files(run: Path) -> list[Path]:
    return sorted(path for path in (run / STORE).rglob("c/**/*") if path.is_file())


def read_all(run: Path) -> None:
    for path in chunk_files(run):
        path.read_bytes()


def drop_from_cache(run: Path) -> None:
    """Make the next reading come from the disk. A virtual machine's host may still remember."""
    for path in chunk_files(run):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def reading_speed(series: ps.Series) -> float:
    """Bytes per second of reading one block of columns: tells a warm cache from a cold one."""
    columns = min(series.chunk_columns, series.shape[1])
    out = np.empty((series.shape[0], columns), np.float32)
    out.fill(0)
    start = time.perf_counter()
    series.read_columns(0, columns, out)
    return out.nbytes / (time.perf_counter() - start)


def peak_memory(run: Path, n_surrogates: int = 0) -> dict[str, float]:
    """Peak resident memory of a fresh process that computes the Gram, and of its imports alone.

    With surrogates it makes as many sign-flipped copies in the same pass.
    """
    command = [sys.executable, str(Path(__file__).with_name("gram_process.py"))]
    done = subprocess.run(
        [*command, str(run), str(n_surrogates)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)
