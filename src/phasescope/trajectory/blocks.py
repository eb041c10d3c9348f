"""Rows in memory: the tensors that a loop fills, the arrays that a writer takes.

Axis letters: t rows of a block, w entries of a row with its padding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from phasescope.trajectory.chunkfile import page_aligned
from phasescope.trajectory.store import ArraySpec

# Views of tensors in a block that are kept; where there are more, every row makes its own again.
MAX_VIEWS = 20_000


class Block:
    """Consecutive rows of every array of a group.

    Args:
        specs: The arrays.
        n_rows: Rows of the block.
        shapes: Shapes of the pieces into which a row is cut; none for a row in one piece.
        pinned: Whether rows are filled from a GPU.

    Example:
        >>> specs = {"values": ArraySpec("float32", (5,), ("parameter",), 2)}
        >>> block = Block(specs, 2, [(2,), (1, 3)])
        >>> first, second = block.row(1).pieces("values")
        >>> _ = second.copy_(torch.tensor([[7, 7, 7]]))
        >>> block.arrays["values"]
        array([[0., 0., 0., 0., 0.],
               [0., 0., 7., 7., 7.]], dtype=float32)
    """

    def __init__(
        self,
        specs: Mapping[str, ArraySpec],
        n_rows: int,
        shapes: Sequence[Sequence[int]] = (),
        *,
        pinned: bool = False,
    ) -> None:
        self.steps = np.zeros(n_rows, np.int64)
        self.arrays: dict[str, np.ndarray] = {}
        self.tensors: dict[str, Tensor] = {}
        for name, spec in specs.items():
            # NumPy and Zarr have no bfloat16: its bits are kept as uint16.
            bfloat16 = spec.dtype == "uint16"
            dtype = torch.bfloat16 if bfloat16 else getattr(torch, spec.dtype)
            tensor = _zeros(n_rows, spec.width, dtype, pinned=pinned)
            self.tensors[name] = tensor
            bits = tensor.view(torch.int16).numpy().view(np.uint16) if bfloat16 else None
            self.arrays[name] = tensor.numpy() if bits is None else bits
        self._shapes = [tuple(shape) for shape in shapes]
        self._sizes = [math.prod(shape) for shape in shapes]
        self._end = sum(self._sizes)
        self._pieces: dict[tuple[str, int], list[Tensor]] = {}
        self._keeps = n_rows * max(1, len(self._sizes)) * len(specs) <= MAX_VIEWS

    def row(self, index: int) -> Row:
        """One row of every array."""
        return Row(self, index)

    def pieces(self, name: str, index: int) -> list[Tensor]:
        """A row of an array: one view for each piece, of its shape."""
        found = self._pieces.get((name, index))
        if found is None:
            row = self.tensors[name][index]
            if self._sizes:
                flat = row[: self._end].split(self._sizes)
                found = [x.view(shape) for x, shape in zip(flat, self._shapes, strict=True)]
            else:
                found = [row]
            if self._keeps:
                self._pieces[name, index] = found
        return found


class Row:
    """A row of every array of a block, to be filled."""

    __slots__ = ("_block", "_index")

    def __init__(self, block: Block, index: int) -> None:
        self._block = block
        self._index = index

    @property
    def names(self) -> Sequence[str]:
        """The arrays that have it."""
        return tuple(self._block.arrays)

    def pieces(self, name: str) -> list[Tensor]:
        """The row of one array, cut into its pieces."""
        return self._block.pieces(name, self._index)

    def write(self, name: str, values: Tensor | list[float]) -> None:
        """Set the row of one array that is not cut."""
        if isinstance(values, list):
            self._block.arrays[name][self._index] = values
        elif values.is_cpu and values.dtype is torch.float32:
            # By NumPy: it has less to look up.
            self._block.arrays[name][self._index] = values.numpy()
        else:
            self._block.tensors[name][self._index].copy_(values, non_blocking=True)


def _zeros(n_rows: int, width: int, dtype: torch.dtype, *, pinned: bool) -> Tensor:
    if pinned:
        return torch.zeros((n_rows, width), dtype=dtype, pin_memory=True)
    memory = torch.from_numpy(page_aligned(n_rows * width * dtype.itemsize))
    return memory.view(dtype).view(n_rows, width)
