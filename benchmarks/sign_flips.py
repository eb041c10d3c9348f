"""What a sign-flipped surrogate costs beside a Gram matrix, in memory and with its reading."""

import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from gram_from_disk import MEMORY_GOAL, peak_memory, require_disk, write_run
from rows import Row, alternate, summary

import phasescope as ps
from phasescope.analysis.products import add_products, full_precision, product_buffer
from phasescope.analysis.signs import TILE, RandomSigns
from phasescope.trajectory.schema import PARAMETER
from phasescope.trajectory.store import ArraySpec


@dataclass(frozen=True)
class Sizes:
    n_steps: tuple[int, ...] = (400, 2000)
    n_columns: int = 1_000_000
    chunk_columns: int = 16_384
    turns: int = 21
    # Passes over 1.6 and 8 GB.
    disk_turns: tuple[int, ...] = (5, 1)
    # Surrogates of the whole pass, so that what is paid once does not hide in the share.
    n_surrogates: int = 2


QUICK = Sizes(n_steps=(40, 80), n_columns=9_000, chunk_columns=4096, turns=1, disk_turns=(1, 1))
# One Gram over the cost of one surrogate, hashing and flipping included: 1.35x and 1.2x of it.
GOALS = (1 / 1.35, 1 / 1.2)


def rows(*, quick: bool, scratch: Path) -> list[Row]:
    sizes = QUICK if quick else Sizes()
    found = []
    for T, goal, turns in zip(sizes.n_steps, GOALS, sizes.disk_turns, strict=True):
        found.append(one_tile(T, goal, sizes.turns, quick=quick))
        found += from_disk(T, goal, turns, sizes, scratch, quick=quick)
    return found


def one_tile(T: int, goal: float, turns: int, *, quick: bool) -> Row:
    """The product of one tile of columns, plain and flipped, all in memory."""
    X = torch.randn(T, TILE, generator=torch.Generator().manual_seed(0))
    out, K = torch.empty_like(X), torch.zeros(T, T, dtype=torch.float64)
    buffer = product_buffer(T, X.dtype, X.device)
    signs = RandomSigns(torch.arange(T), seed=0)

    def flipped() -> None:
        add_products(signs.flip(X, 0, surrogate=0, out=out), [K], buffer)

    calls = {"gram": lambda: add_products(X, [K], buffer), "flipped": flipped}
    with full_precision():
        alternate(calls, 1)  # the first call sets things up
        times = alternate(calls, turns)
    return row(f"Sign flips, one tile of {TILE:,} columns, T = {T:,}", times, goal, quick=quick)


def from_disk(
    T: int, goal: float, turns: int, sizes: Sizes, scratch: Path, *, quick: bool
) -> list[Row]:
    """A whole pass over a recorded run: what each surrogate adds to the Gram matrix; its memory."""
    spec = ArraySpec("float32", (sizes.n_columns,), (PARAMETER,), 64, sizes.chunk_columns)
    require_disk(scratch, 4 * T * spec.width)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=scratch) as folder:
        run = Path(folder) / "run"
        write_run(run, T, spec)
        A = ps.open_run(run).gradients
        calls = {
            "gram": lambda: ps.gram(A),
            "all": lambda: list(ps.flipped_grams(A, sizes.n_surrogates)),
        }
        times = alternate(calls, turns)
        memory = peak_memory(run, 1)
    each = [
        (whole - plain) / sizes.n_surrogates
        for whole, plain in zip(times["all"], times["gram"], strict=True)
    ]
    name = f"Sign flips from disk, P = {sizes.n_columns:,}, T = {T:,}"
    times = {"gram": times["gram"], "flipped": [max(seconds, 1e-9) for seconds in each]}
    return [
        row(f"{name}, per surrogate", times, goal, quick=quick),
        Row(f"{name}: peak memory of its process", memory["peak_bytes"], unit="bytes",
            goal=MEMORY_GOAL, goal_on="ours", detail=memory, quick=quick),
    ]  # fmt: skip


def row(name: str, times: dict[str, list[float]], goal: float, *, quick: bool) -> Row:
    ours, other = (statistics.median(times[key]) for key in ("flipped", "gram"))
    detail = {f"{key}_s": summary(values) for key, values in times.items()}
    note = f"a surrogate costs {ours / other:.2f} Gram matrices"
    return Row(name, ours, other, "one Gram matrix", goal, detail=detail, note=note, quick=quick)
