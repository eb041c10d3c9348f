"""Rows in memory: the tensors that a loop fills, the arrays that a writer takes.

Axis letters: t rows of a block, w entries of a row with its padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from phasescope.trajectory.chunkfile import page_aligned
from phasescope.trajectory.store import ArraySpec

# Views of tensors in a block that are kept; where there are more, every row makes its own again.
MAX_VIEWS = 20_000

# A row of an array: one piece for each tensor, or all of it as one piece.
Row = Sequence[Tensor]


class Block:
    """Consecutive rows of every array of a group.

    Args:
        specs: The arrays.
        n_rows: Rows of the block.
        sizes: Lengths of the pieces into which a row is cut; none for a row in one piece.
        pinned: Whether rows are filled from a GPU.

    Example:
        >>> specs = {"values": ArraySpec("float32", (5,), ("parameter",), 2)}
        >>> block = Block(specs, 2, [2, 3])
        >>> first, second = block.row(1)["values"]
        >>> _ = second.fill_(7)
        >>> block.arrays["values"]
        array([[0., 0., 0., 0., 0.],
               [0., 0., 7., 7., 7.]], dtype=float32)
    """

    def __init__(
        self,
        specs: Mapping[str, ArraySpec],
        n_rows: int,
        sizes: Sequence[int] = (),
        *,
        pinned: bool = False,
    ) -> None:
        self.steps = np.zeros(n_rows, np.int64)
        self.arrays: dict[str, np.ndarray] = {}
        self._tensors: dict[str, Tensor] = {}
        for name, spec in specs.items():
            # NumPy and Zarr have no bfloat16: its bits are kept as uint16.
            bfloat16 = spec.dtype == "uint16"
            dtype = torch.bfloat16 if bfloat16 else getattr(torch, spec.dtype)
            tensor = _zeros(n_rows, spec.width, dtype, pinned=pinned)
            self._tensors[name] = tensor
            bits = tensor.view(torch.int16).numpy().view(np.uint16) if bfloat16 else None
            self.arrays[name] = tensor.numpy() if bits is None else bits
        self._sizes = list(sizes)
        few = n_rows * max(1, len(sizes)) * len(specs) <= MAX_VIEWS
        self._rows: dict[int, dict[str, Row]] | None = {} if few else None

    def row(self, index: int) -> dict[str, Row]:
        """The pieces of a row, by array."""
        if self._rows is None:
            return self._cut(index)
        if index not in self._rows:
            self._rows[index] = self._cut(index)
        return self._rows[index]

    def _cut(self, index: int) -> dict[str, Row]:
        rows = {name: tensor[index] for name, tensor in self._tensors.items()}
        if not self._sizes:
            return {name: (row,) for name, row in rows.items()}
        end = sum(self._sizes)
        return {name: row[:end].split(self._sizes) for name, row in rows.items()}


def _zeros(n_rows: int, width: int, dtype: torch.dtype, *, pinned: bool) -> Tensor:
    if pinned:
        return torch.zeros((n_rows, width), dtype=dtype, pin_memory=True)
    memory = torch.from_numpy(page_aligned(n_rows * width * dtype.itemsize))
    return memory.view(dtype).view(n_rows, width)
