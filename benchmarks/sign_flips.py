"""What a sign-flipped surrogate costs beside a Gram matrix, in memory and with its reading."""

import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rows import Row, alternate, summary

import phasescope as ps
from phasescope.analysis.products import add_products, full_precision, product_buffer
from phasescope.analysis.signs import TILE, RandomSigns


@dataclass(frozen=True)
class Sizes:
    n_steps: tuple[int, ...] = (400, 2000)
    n_columns: int = 1_000_000
    turns: int = 15
    disk_turns: int = 2
    # Surrogates of the whole pass, so that what is paid once does not hide in the share.
    n_surrogates: int = 2


QUICK = Sizes(n_steps=(40, 80), n_columns=9_000, turns=1, disk_turns=1, n_surrogates=2)
# One Gram over the cost of one surrogate, hashing and flipping included: 1.35x and 1.2x of it.
GOALS = (1 / 1.35, 1 / 1.2)


def rows(*, quick: bool, scratch: Path) -> list[Row]:
    sizes = QUICK if quick else Sizes()
    found = []
    for T, goal in zip(sizes.n_steps, GOALS, strict=True):
        found.append(one_tile(T, goal, sizes.turns, quick=quick))
        found.append(from_disk(T, goal, sizes, scratch, quick=quick))
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


def from_disk(T: int, goal: float, sizes: Sizes, scratch: Path, *, quick: bool) -> Row:
    """A whole pass over a file: what each surrogate adds to the Gram matrix."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=scratch) as folder:
        path = Path(folder) / "A.npy"
        A = np.lib.format.open_memmap(path, "w+", np.float32, (T, sizes.n_columns))
        generator = np.random.default_rng(0)
        for start in range(0, sizes.n_columns, 65_536):
            stop = min(start + 65_536, sizes.n_columns)
            A[:, start:stop] = generator.standard_normal((T, stop - start), np.float32)
        A.flush()
        A = np.load(path, mmap_mode="r")
        calls = {
            "gram": lambda: ps.gram(A),
            "all": lambda: list(ps.flipped_grams(A, sizes.n_surrogates)),
        }
        times = alternate(calls, sizes.disk_turns)
    each = [
        (whole - plain) / sizes.n_surrogates
        for whole, plain in zip(times["all"], times["gram"], strict=True)
    ]
    name = f"Sign flips from disk, P = {sizes.n_columns:,}, T = {T:,}, per surrogate"
    times = {"gram": times["gram"], "flipped": [max(seconds, 1e-9) for seconds in each]}
    return row(name, times, goal, quick=quick)


def row(name: str, times: dict[str, list[float]], goal: float, *, quick: bool) -> Row:
    ours, other = (statistics.median(times[key]) for key in ("flipped", "gram"))
    detail = {f"{key}_s": summary(values) for key, values in times.items()}
    note = f"a surrogate costs {ours / other:.2f} Gram matrices"
    return Row(name, ours, other, "one Gram matrix", goal, detail=detail, note=note, quick=quick)
