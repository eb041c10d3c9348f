"""Sums over the columns of many components, block by block.

Letters: n components, m rows of values, w columns of a block.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from phasescope.analysis.gram import check_components
from phasescope.parameters import Component


class ColumnSums:
    """Adds up columns by component; components may overlap and need not cover everything.

    The columns are cut wherever a component begins or ends; every piece is added up once and then
    belongs to as many components as contain it.

    Args:
        components: Parts of the columns.
        n_columns: Number of columns of the matrix.

    Raises:
        ValueError: A component is empty or has columns beyond.
    """

    def __init__(self, components: Mapping[str, Component], n_columns: int) -> None:
        check_components(components, n_columns)
        ranges = [np.array(c.intervals, dtype=np.int64).reshape(-1, 2) for c in components.values()]
        owner = np.repeat(np.arange(len(ranges)), [len(r) for r in ranges])
        bounds = np.concatenate([np.zeros((0, 2), np.int64), *ranges])
        self._edges = np.unique(np.concatenate([[0, n_columns], bounds.ravel()]))
        first, last = np.searchsorted(self._edges, bounds.T)
        lengths = last - first
        ends = lengths.cumsum()
        pieces = np.repeat(first - ends + lengths, lengths) + np.arange(lengths.sum())
        order = np.argsort(pieces, kind="stable")
        self._pieces, self._owner = pieces[order], np.repeat(owner, lengths)[order]
        self.n_components = len(ranges)

    def __call__(self, values: Float[Tensor, "m w"], start: int) -> Float64[Tensor, "n m"]:
        """The part of every component's sums that a block contributes.

        Args:
            values: Values of the columns from `start` on.
            start: First column of the block.
        """
        stop = start + values.shape[1]
        a = int(np.searchsorted(self._edges, start, side="right")) - 1
        b = int(np.searchsorted(self._edges, stop, side="left"))
        cuts = np.clip(self._edges[a : b + 1], start, stop) - start
        offsets = torch.from_numpy(cuts).to(values.device)
        by_piece = torch.segment_reduce(
            values.T.contiguous(), "sum", offsets=offsets, axis=0, unsafe=True
        )
        lo, hi = np.searchsorted(self._pieces, [a, b])
        total = values.new_zeros(self.n_components, values.shape[0])
        picked = torch.from_numpy(self._pieces[lo:hi] - a).to(values.device)
        owner = torch.from_numpy(self._owner[lo:hi]).to(values.device)
        return total.index_add_(0, owner, by_piece[picked])
