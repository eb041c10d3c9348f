"""How a tensor is cut so that every component is made of whole cells.

Letters: a tensor of n entries is seen as [A, N, R]: N runs of R neighbours, repeated A times; a
cell is one run or several successive ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from phasescope.parameters import Component, ParameterTable

# A run's squares are added up in float32. With at least eight running sums, as PyTorch has on every
# CPU with vector instructions, 256 of them lose less than 1e-6 even if all roundings agree.
MAX_RUN = 256
# Shorter runs cost more per entry than another way of adding.
MIN_RUN = 16
# A regular grid may have this many times more cells than its tensor has cuts.
_MAX_WASTE = 4


@dataclass(frozen=True)
class Grid:
    """One tensor cut into cells: a regular grid, or cells between given edges."""

    tensor: int
    """Number of the tensor."""
    shape: tuple[int, int, int]
    """Repeats A, runs N, entries per run R."""
    n_cells: int
    """Cells; every cell has N / n_cells runs."""
    edges: np.ndarray | None = None
    """Where cells begin and end, if the cuts are not regular; a cell is one run then."""


@dataclass(frozen=True)
class Cells:
    """The grids of all tensors and the cells of every component."""

    grids: tuple[Grid, ...]
    runs_per_cell: np.ndarray
    """Runs of every cell, grid after grid."""
    members: np.ndarray
    """Numbers of the cells of the first component, then of the second, and so on."""
    n_members: np.ndarray
    """Number of cells of every component."""


# Pieces of one tensor: rows (component, start, length, stride, count).
_Pieces = np.ndarray


def cells(components: Sequence[Component], table: ParameterTable) -> Cells:
    """Cut every tensor as coarsely as the components allow.

    Args:
        components: Parts of the flat vector; they may overlap.
        table: The tensors of the flat vector.
    """
    grids: list[Grid] = []
    ranges: list[np.ndarray] = []  # rows (component, first cell, number of cells)
    n_cells = 0
    for tensor, pieces in _pieces_of_tensors(components, table).items():
        n = table.sizes[tensor]
        whole = (pieces[:, 1] == 0) & (pieces[:, 2] == n)
        found = _cuts(tensor, n, pieces[~whole]) or [(_grid(tensor, 1, 1, n), pieces[:0, :3])]
        everywhere = np.stack(
            [pieces[whole, 0], 0 * pieces[whole, 0], 0 * pieces[whole, 0]], axis=1
        )
        everywhere[:, 2] = found[0][0].n_cells
        for grid, inside in found:
            ranges.append(np.concatenate([inside, everywhere]) + np.array([0, n_cells, 0]))
            everywhere = everywhere[:0]  # a whole tensor is the sum over one of its grids
            grids.append(grid)
            n_cells += grid.n_cells
    runs = [np.full(grid.n_cells, grid.shape[1] // grid.n_cells) for grid in grids]
    joined = np.concatenate([np.zeros((0, 3), np.int64), *ranges])
    joined = joined[np.argsort(joined[:, 0], kind="stable")]
    n_members = np.zeros(len(components), dtype=np.int64)
    np.add.at(n_members, joined[:, 0], joined[:, 2])
    return Cells(
        tuple(grids),
        np.concatenate([np.zeros(0, np.int64), *runs]),
        _counted(joined[:, 1], joined[:, 2]),
        n_members,
    )


def _pieces_of_tensors(
    components: Sequence[Component], table: ParameterTable
) -> Mapping[int, _Pieces]:
    """What the components take of each tensor, with columns counted from the tensor's first."""
    offsets = np.array((*table.offsets, table.size))
    blocks = np.concatenate([np.zeros((0, 4), np.int64), *(c.blocks for c in components)])
    owner = np.repeat(np.arange(len(components)), [len(c.blocks) for c in components])
    pieces = np.column_stack([owner, blocks])
    first, last = _tensor_of(offsets, pieces[:, 1]), _tensor_of(offsets, _stops(pieces) - 1)
    across = pieces[first != last]
    # Blocks that reach over several tensors become single ranges, cut at every tensor.
    owner = np.repeat(across[:, 0], across[:, 4])
    position = _counted(np.zeros(len(across), np.int64), across[:, 4])
    starts = np.repeat(across[:, 1], across[:, 4]) + position * np.repeat(
        across[:, 3], across[:, 4]
    )
    stops = starts + np.repeat(across[:, 2], across[:, 4])
    a, b = _tensor_of(offsets, starts), _tensor_of(offsets, stops - 1)
    tensor = _counted(a, b - a + 1)
    owner, starts, stops = (np.repeat(x, b - a + 1) for x in (owner, starts, stops))
    starts, stops = np.maximum(starts, offsets[tensor]), np.minimum(stops, offsets[tensor + 1])
    filled = stops > starts  # tensors without entries have nothing
    lengths = stops - starts
    singles = np.stack([owner, starts, lengths, lengths, np.ones_like(owner)], axis=1)[filled]
    pieces = np.concatenate([pieces[first == last], singles])
    tensors = np.concatenate([first[first == last], tensor[filled]])
    pieces[:, 1] -= offsets[tensors]
    order = np.argsort(tensors, kind="stable")
    tensors, pieces = tensors[order], pieces[order]
    numbers, begin = np.unique(tensors, return_index=True)
    parts = np.split(pieces, begin[1:])
    return {int(number): part for number, part in zip(numbers, parts, strict=False)}


def _cuts(tensor: int, n: int, pieces: _Pieces) -> list[tuple[Grid, np.ndarray]]:
    """Grids for the pieces of a tensor, and (component, first cell, number of cells) in each."""
    _, start, length, stride, count = pieces.T
    # Columns of a matrix: the same cut in every row. Each length of a row has a grid of its own.
    repeats = (count > 1) & (stride * count == n) & (start + length <= stride)
    found = []
    for period in np.unique(stride[repeats]):
        chosen = pieces[repeats & (stride == period)]
        size = int(np.gcd.reduce([period, *np.unique(chosen[:, 1:3])]))
        inside = np.stack([chosen[:, 0], chosen[:, 1] // size, chosen[:, 2] // size], axis=1)
        found.append((_grid(tensor, n // int(period), int(period) // size, size), inside))
    rest = pieces[~repeats]
    if len(rest):
        owner = np.repeat(rest[:, 0], rest[:, 4])
        position = _counted(np.zeros(len(rest), np.int64), rest[:, 4])
        starts = np.repeat(rest[:, 1], rest[:, 4]) + position * np.repeat(rest[:, 3], rest[:, 4])
        stops = starts + np.repeat(rest[:, 2], rest[:, 4])
        edges = np.unique(np.concatenate([[0, n], starts, stops]))
        size = int(np.gcd.reduce(edges))
        if n // size <= _MAX_WASTE * len(edges):
            grid, first, last = _grid(tensor, 1, n // size, size), starts // size, stops // size
        else:
            grid = Grid(tensor, (1, len(edges) - 1, 0), len(edges) - 1, edges)
            first, last = np.searchsorted(edges, starts), np.searchsorted(edges, stops)
        found.append((grid, np.stack([owner, first, last - first], axis=1)))
    return found


def _grid(tensor: int, repeats: int, n_cells: int, size: int) -> Grid:
    """A regular grid whose cells are divided into runs, if they have a suitable divisor."""
    run = next(r for r in range(min(size, MAX_RUN), 0, -1) if size % r == 0)
    if run < MIN_RUN and size > MAX_RUN:
        run = size
    return Grid(tensor, (repeats, n_cells * (size // run), run), n_cells)


def _stops(pieces: _Pieces) -> np.ndarray:
    _, start, length, stride, count = pieces.T
    return start + stride * (count - 1) + length


def _tensor_of(offsets: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.searchsorted(offsets, columns, side="right") - 1


def _counted(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Every integer of the ranges that begin at `starts`, one range after the other."""
    ends = lengths.cumsum()
    return np.repeat(starts - ends + lengths, lengths) + np.arange(lengths.sum())
