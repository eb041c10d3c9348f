"""Column blocks of a steps × parameters matrix, read ahead from wherever the matrix lies.

Letters: T steps (rows), P parameters (columns).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

# Blocks wider than this neither read nor multiply faster; they only delay the first product.
_TARGET_WIDTH = 16_384
# Narrower blocks would read a file in crumbs: better to say that the memory does not suffice.
_MIN_WIDTH = 64


@runtime_checkable
class StepMatrix(Protocol):
    """Anything with a shape, a dtype and 2-D slicing: rows are steps, columns are parameters.

    A tensor, a NumPy array or memmap, a Zarr array and a recorded series of a run all qualify.
    `steps` (the step of every row), `read_columns(start, stop, out)`, `chunk_columns` and
    `parameters` (a `ParameterTable`) are used where they exist.
    """

    @property
    def shape(self) -> Any:
        """Number of rows and of columns."""
        ...

    @property
    def dtype(self) -> Any:
        """A floating point dtype of torch or NumPy."""
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """Rows and columns by two slices."""
        ...


@dataclass(frozen=True, eq=False)
class Source:
    """A checked `StepMatrix` and how it is going to be read."""

    A: Any
    """The matrix as it was given."""
    n_steps: int
    """Rows, T."""
    n_columns: int
    """Columns, P."""
    steps: Int64[Tensor, " T"]
    """Step of every row."""
    dtype: torch.dtype
    """What blocks and products are held in: float32 or float64."""
    device: torch.device
    """Where blocks arrive."""

    @property
    def is_ready(self) -> bool:
        """Whether blocks are plain views, so that nothing is read or copied."""
        A = self.A
        return isinstance(A, Tensor) and A.dtype == self.dtype and A.device == self.device

    @property
    def _reads_columns(self) -> bool:
        """Whether the source itself can fill a block, which it does in float32 only."""
        return hasattr(self.A, "read_columns") and self.dtype == torch.float32

    def width(self, memory: int, *, reserved: int = 0, copies: int = 0) -> int:
        """Columns per block such that every buffer of a pass fits into `memory` bytes.

        Two blocks are counted (one being read, one in use), a third where slicing the source makes
        a temporary array, another where blocks go to a device.

        Args:
            memory: Bytes for the pass.
            reserved: Bytes that the caller needs besides the blocks.
            copies: Further copies of a block that the caller makes.

        Returns:
            A multiple of the source's chunk width where one fits.

        Raises:
            ValueError: Not even a narrow block fits.
        """
        per_column = self.n_steps * self.dtype.itemsize * (copies + self._copies())
        narrowest = min(_MIN_WIDTH, self.n_columns)
        if memory < reserved + narrowest * per_column:
            raise ValueError(
                f"a pass over {self.n_steps} steps needs memory >= "
                f"{reserved + narrowest * per_column:,} bytes for its buffers, but "
                f"memory={memory:,} arrived. Give it more memory or fewer steps."
            )
        chunk = min(chunk_columns(self.A), self.n_columns)
        width = min(max(_TARGET_WIDTH // chunk, 1) * chunk, self.n_columns)
        if per_column:
            width = min(width, (memory - reserved) // per_column)
        # A chunk that does not fit is read several times: as few times as the memory allows.
        return width // chunk * chunk if chunk <= width < self.n_columns else width

    def _copies(self) -> int:
        if self.is_ready:
            return 0
        direct = isinstance(self.A, Tensor | np.ndarray) or self._reads_columns
        return 2 + (not direct) + (self.device.type != "cpu")

    def blocks(self, width: int) -> Iterator[tuple[int, Float[Tensor, "T width"]]]:
        """First column and values of every block, left to right.

        One thread reads the next block while the caller works on the present one. A block is
        overwritten once the next-but-one is asked for: copy what must outlive the loop's body.
        """
        starts = range(0, self.n_columns, width)
        if self.is_ready:
            for start in starts:
                yield start, self.A.detach()[:, start : start + width]
            return
        buffers = [torch.empty(self.n_steps * width, dtype=self.dtype) for _ in range(2)]
        with ThreadPoolExecutor(max_workers=1) as reader:
            pending = reader.submit(self._read, starts[0], width, buffers[0])
            for i, start in enumerate(starts):
                block = pending.result()
                if i + 1 < len(starts):
                    pending = reader.submit(self._read, starts[i + 1], width, buffers[(i + 1) % 2])
                yield start, block.to(self.device)

    def _read(self, start: int, width: int, buffer: Tensor) -> Tensor:
        stop = min(start + width, self.n_columns)
        out = buffer[: self.n_steps * (stop - start)].view(self.n_steps, stop - start)
        if self._reads_columns:
            self.A.read_columns(start, stop, out.numpy())
        elif isinstance(self.A, Tensor):
            out.copy_(self.A.detach()[:, start:stop])
        else:
            np.copyto(out.numpy(), np.asarray(self.A[:, start:stop]), casting="same_kind")
        return out


def source(
    A: StepMatrix,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Source:
    """A matrix that passed the checks, ready to be read in column blocks.

    Args:
        A: Steps × parameters.
        device: Where blocks shall arrive; by default where a tensor lies, else the CPU.
        dtype: Float32 or float64 of blocks and products; by default float64 for float64 input, else
            float32.

    Returns:
        The matrix with its steps (row numbers where it has no `steps`) and its product dtype.

    Raises:
        TypeError: The values are not real floating point numbers.
        ValueError: The matrix is not 2-D, is empty, its steps do not increase, or `dtype` is
            another one.

    Example:
        >>> source(torch.ones(3, 5)).steps
        tensor([0, 1, 2])
    """
    shape = tuple(A.shape)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(
            "a steps × parameters matrix with at least one step and one parameter is required, but "
            f"shape {shape} arrived. Stack the flat vectors of the steps as rows."
        )
    T, P = int(shape[0]), int(shape[1])
    dtype = _product_dtype(A.dtype, dtype)
    if type(A) is np.ndarray and A.dtype.isnative and A.flags.c_contiguous and A.flags.writeable:
        A = torch.from_numpy(A)  # the same memory, so that blocks are views
    if device is None:
        device = A.device if isinstance(A, Tensor) else "cpu"
    return Source(A, T, P, _steps(A, T), dtype, torch.empty(0, device=device).device)


def _steps(A: StepMatrix, n_steps: int) -> Int64[Tensor, " T"]:
    found = getattr(A, "steps", None)
    if found is None:
        return torch.arange(n_steps)
    steps = torch.tensor(np.asarray(found), dtype=torch.int64)
    if steps.shape != (n_steps,) or not bool((steps.diff() > 0).all()):
        raise ValueError(
            f"A.steps must hold {n_steps} strictly increasing steps, one per row, but it has "
            f"shape {tuple(steps.shape)} and begins {steps.reshape(-1)[:5].tolist()}. Sort "
            "the rows by step."
        )
    return steps


def _product_dtype(dtype: Any, asked: torch.dtype | None) -> torch.dtype:
    if asked not in (None, torch.float32, torch.float64):
        raise ValueError(
            f"products are computed in torch.float32 or torch.float64, but dtype={asked} arrived. "
            "Leave it out for the precision of the data."
        )
    if isinstance(dtype, torch.dtype):
        is_float, is_double = dtype.is_floating_point, dtype == torch.float64
    else:
        is_float, is_double = np.dtype(dtype).kind == "f", np.dtype(dtype).itemsize >= 8
    if is_float:
        return asked or (torch.float64 if is_double else torch.float32)
    advice = "Convert it to a real floating point dtype."
    if str(dtype).removeprefix("torch.") in ("uint16", "int16"):
        advice = (
            "These may be raw bfloat16 codes, whose products mean nothing: a recorded run decodes "
            "them itself, so pass `open_run(path).gradients` rather than its Zarr array."
        )
    raise TypeError(
        f"a matrix of floating point numbers is required, but dtype {dtype} arrived. {advice}"
    )


def chunk_columns(A: Any) -> int:
    """Columns that the source keeps together, 1 where it does not say."""
    width = getattr(A, "chunk_columns", None)
    chunks = getattr(A, "chunks", None)
    if width is None and isinstance(chunks, tuple) and len(chunks) == 2:
        width = chunks[1]
    return width if isinstance(width, int) and width > 0 else 1
