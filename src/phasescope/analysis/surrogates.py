"""Gram matrices of sign-flipped copies of a trajectory, in the pass that reads it.

Letters: T steps (rows), P parameters (columns), b columns of a block, q directions in time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from phasescope.analysis.columns import Source, StepMatrix, chunk_columns, source
from phasescope.analysis.gram import Gram, Totals, check_finite, totals_of
from phasescope.analysis.products import (
    add_products,
    full_precision,
    product_buffer,
    symmetric,
)
from phasescope.analysis.selection import Steps, select_steps
from phasescope.analysis.signs import TILE, RandomSigns


@dataclass(frozen=True, eq=False)
class Residual:
    """What is left of the rows after scaling, centring and removing directions in time."""

    scale: Float64[Tensor, " T"]
    """Factor of every row."""
    means: Float64[Tensor, " T"]
    """Mean of every row over the parameters, subtracted before scaling."""
    directions: Float64[Tensor, "T q"]
    """Orthonormal directions in time that are projected out after scaling."""


def flipped_grams(
    A: StepMatrix,
    n_surrogates: int,
    *,
    seed: int = 0,
    steps: Steps | None = None,
    dtype: torch.dtype | None = None,
    memory: int = 400_000_000,
    device: torch.device | str | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[Gram]:
    """The Gram matrix of some steps, then those of copies in which every entry has a random sign.

    A copy keeps the size of every entry, hence the norm of every step, the scale of every parameter
    and whatever outliers there are, and destroys all correlation between steps. Any statistic of a
    Gram matrix gets its null distribution from these: if the entries are independent and symmetric
    around zero, data and copies are exchangeable.

    It misleads where entries have a sign of their own: a mean over steps that is not small beside
    the noise enters the copies as further noise (`flip_rank_test` removes it in turn).

    Args:
        A: Steps × parameters, as for `gram`.
        n_surrogates: Number of copies.
        seed: Seed of the signs. The sign of an entry depends on seed, copy, step and column alone.
        steps: Steps to use, by value (see `spectrum`); all by default.
        dtype: Of the products, as for `gram`.
        memory: Bytes for the buffers of a pass, the Gram matrices that it sums included. Copies
            that do not fit together are made in further passes.
        device: Where the products run; by default where a tensor lies, else the CPU.
        progress: Called after every block with the fraction that is done.

    Yields:
        1 + `n_surrogates` Gram matrices of the selected steps, the data's first.

    Raises:
        TypeError: The values are not real floating point numbers.
        ValueError: As for `gram`, a step was not recorded, or the number of copies is negative.

    Example:
        >>> data, copy = flipped_grams(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), 1)
        >>> copy.K.diagonal()
        tensor([25.,  1.], dtype=torch.float64)
    """
    if n_surrogates < 0:
        raise ValueError(f"n_surrogates must be at least 0, but {n_surrogates} arrived.")
    matrix = source(A, device, dtype)
    rows = select_steps(matrix.steps, steps).sort().values
    labels: list[int | None] = [None, *range(n_surrogates)]
    yield from gram_passes(matrix, rows, labels, seed=seed, memory=memory, progress=progress)


def gram_passes(
    matrix: Source,
    rows: Int64[Tensor, " n"],
    surrogates: Sequence[int | None],
    *,
    seed: int,
    memory: int,
    residual: Residual | None = None,
    factors: Float[Tensor, " P"] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[Gram]:
    """Gram matrices of flipped copies of some rows, as many in one pass as the memory holds.

    Args:
        matrix: The source.
        rows: Row numbers, ascending.
        surrogates: Numbers of the copies; None stands for the rows as they are.
        seed: Seed of the signs.
        memory: Bytes of a pass.
        residual: Flips what this leaves of the rows, not the rows.
        factors: Of every column, on the device; before the residual is formed.
        progress: Called with the fraction that is done.

    Yields:
        One Gram matrix for each of `surrogates`, in order.
    """
    T = len(rows)
    piece = T * min(TILE, matrix.n_columns) * matrix.dtype.itemsize
    buffers = 2 * piece + T * TILE // 2 + 2**20 + 200 * T * matrix.dtype.itemsize
    n_together = max(1, min(len(surrogates), (memory - buffers) // 2 // (8 * T * T)))
    reserved = buffers + n_together * 8 * T * T
    done = 0
    while done < len(surrogates):
        group = surrogates[done : done + n_together]

        def report(fraction: float, done: int = done, n: int = len(group)) -> None:
            if progress is not None:
                progress((done + n * fraction) / len(surrogates))

        width = _aligned(matrix, matrix.width(memory, reserved=reserved))
        yield from _one_pass(matrix, rows, group, seed, width, residual, factors, report)
        done += len(group)


def _aligned(matrix: Source, width: int) -> int:
    """Whole tiles of signs to a block, unless that would cut the chunks of the source."""
    chunk = chunk_columns(matrix.A)
    keeps_chunks = chunk > 1 and width % chunk == 0
    return width if keeps_chunks or not TILE < width < matrix.n_columns else width // TILE * TILE


def _one_pass(
    matrix: Source,
    rows: Int64[Tensor, " n"],
    surrogates: Sequence[int | None],
    seed: int,
    width: int,
    residual: Residual | None,
    factors: Float[Tensor, " P"] | None,
    report: Callable[[float], None],
) -> list[Gram]:
    T, device, dtype = len(rows), matrix.device, matrix.dtype
    signs = RandomSigns(matrix.steps[rows].to(device), seed=seed)
    totals = [totals_of(T, device) for _ in surrogates]
    products = product_buffer(T, dtype, device)
    prepared, flipped = (
        torch.empty(T * min(TILE, matrix.n_columns), dtype=dtype, device=device) for _ in range(2)
    )
    selected = None if matrix.n_steps == T else rows.to(device)
    weights = None if residual is None else _on_device(residual, dtype, device)
    with full_precision():
        for start, X in matrix.blocks(width):
            for column, part in _pieces(X, start):
                Y = part
                if selected is not None:
                    Y = prepared[: T * part.shape[1]].view(T, part.shape[1])
                    torch.index_select(part, 0, selected, out=Y)
                if factors is not None:
                    out = prepared[: T * part.shape[1]].view(T, part.shape[1])
                    Y = torch.mul(Y, factors[column : column + part.shape[1]], out=out)
                if weights is not None:
                    Y = _remainder(Y, weights, prepared[: Y.numel()].view(Y.shape))
                out = flipped[: Y.numel()].view(Y.shape)
                for number, total in zip(surrogates, totals, strict=True):
                    if number is None:
                        _add(Y, total, products)
                    else:
                        _add(signs.flip(Y, column, surrogate=number, out=out), total, products)
            report(min(start + width, matrix.n_columns) / matrix.n_columns)
    squares = torch.zeros(matrix.n_steps, dtype=torch.float64)
    squares[rows] = totals[0].K.diagonal().cpu()
    check_finite(matrix, squares, width)
    eps = float(torch.finfo(dtype).eps)
    steps = matrix.steps[rows]
    return [
        Gram(symmetric(total.K.cpu()), steps, total.sums.cpu(), total.n_columns, {}, eps)
        for total in totals
    ]


def _add(Y: Float[Tensor, "T b"], total: Totals, buffer: Tensor) -> None:
    add_products(Y, [total.K], buffer)
    total.sums += Y.sum(1).to(total.sums)
    total.n_columns += Y.shape[1]


def _pieces(X: Float[Tensor, "T b"], start: int) -> Iterator[tuple[int, Float[Tensor, "T c"]]]:
    """First column and values of the parts of a block, cut where a tile of signs ends."""
    stop = start + X.shape[1]
    column = start
    while column < stop:
        end = min(stop, (column // TILE + 1) * TILE)
        yield column, X[:, column - start : end - start]
        column = end


def _on_device(residual: Residual, dtype: torch.dtype, device: torch.device) -> Sequence[Tensor]:
    scale, means, W = residual.scale, residual.means, residual.directions
    return [t.to(device, dtype) for t in (scale[:, None], (scale * means)[:, None], W)]


def _remainder(
    X: Float[Tensor, "T b"], weights: Sequence[Tensor], out: Float[Tensor, "T b"]
) -> Float[Tensor, "T b"]:
    """Scale, centre over the parameters, project out the directions in time."""
    scale, shift, W = weights
    torch.mul(X, scale, out=out)
    out -= shift
    return out.addmm_(W, W.T @ out, alpha=-1)
