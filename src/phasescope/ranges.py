"""Sets of integers as ranges, and as regular blocks of ranges.

A block is a row of start, length, stride and count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def spelled_out(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Every integer of the ranges that begin at `starts`, one range after the other."""
    ends = lengths.cumsum()
    return np.repeat(starts - ends + lengths, lengths) + np.arange(lengths.sum())


def ranges_of(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last-plus-one columns of every range of the blocks, unsorted."""
    start, length, stride, count = blocks.T
    position = spelled_out(np.zeros_like(count), count)
    starts = np.repeat(start, count) + position * np.repeat(stride, count)
    return starts, starts + np.repeat(length, count)


def merged(starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted, disjoint ranges that cover what the given ones cover."""
    order = np.argsort(starts, kind="stable")
    starts, stops = starts[order], np.maximum.accumulate(stops[order])
    opens = np.append(True, starts[1:] > stops[:-1])[: len(starts)]
    closes = np.append(opens[1:], True)[: len(stops)]
    return starts[opens], stops[closes]


def as_blocks(starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Ranges as few blocks: neighbours of one length and one distance share a block."""
    starts, stops = merged(np.asarray(starts, np.int64), np.asarray(stops, np.int64))
    lengths, steps = stops - starts, np.diff(starts)
    if len(starts) < 3:
        return np.stack([starts, lengths, lengths, np.ones_like(starts)], axis=1)
    # same[i]: range i lies as far behind range i - 1 as that one behind its own predecessor.
    same = np.zeros(len(starts) + 1, dtype=bool)
    same[2:-1] = (steps[1:] == steps[:-1]) & (lengths[2:] == lengths[1:-1])
    same[2:-1] &= lengths[1:-1] == lengths[:-2]
    # The first step of a regular row joins too, unless its left end closes another such row.
    joins = same[:-1].copy()
    joins[1:] |= same[2:] & ~same[:-2]
    first = np.flatnonzero(~joins)
    count = np.diff(np.append(first, len(starts)))
    stride = np.where(count > 1, steps[np.minimum(first, len(steps) - 1)], lengths[first])
    return np.stack([starts[first], lengths[first], stride, count], axis=1)


def disjoint(blocks: np.ndarray, name: str) -> np.ndarray:
    """The blocks without repetitions; blocks that overlap otherwise are cut into disjoint ones."""
    if (blocks < (0, 1, 1, 1)).any() or (blocks[:, 2] < blocks[:, 1]).any():
        raise ValueError(
            "Component blocks must be rows (start >= 0, length > 0, stride >= length, count > 0), "
            f"but {name!r} has {few(blocks.tolist())}."
        )
    blocks = blocks[blocks[:, 0].argsort(kind="stable")]
    start, length, stride, count = blocks.T
    if (start[1:] >= (start + stride * (count - 1) + length)[:-1]).all():
        return blocks
    blocks = np.unique(blocks, axis=0)
    _, length, _, count = blocks.T
    starts, stops = merged(*ranges_of(blocks))
    if (stops - starts).sum() == (length * count).sum():
        return blocks  # they interleave, as the columns of q, k and v of a transposed matrix do
    return as_blocks(starts, stops)


def few(ranges: Sequence[Any]) -> str:
    """The first ranges, for a message."""
    shown = ", ".join(map(str, ranges[:4]))
    return f"({shown}{', ...' if len(ranges) > 4 else ''})"
