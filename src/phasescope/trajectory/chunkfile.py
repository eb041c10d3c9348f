"""Rows into the files of uncompressed chunks; large blocks go past the page cache if they can.

A write through the page cache costs a copy and the management of a page for every 4 kB, on a
processor that the training would use: two to ten times the processor time of the direct write,
which hands the pages of the block to the disk as they are. It also evicts what others have cached.

Letters: n rows, w entries of a row within the chunk.
"""

from __future__ import annotations

import contextlib
import errno
import math
import mmap
import os
from pathlib import Path

import numpy as np

# Direct writes require whole pages: their length, where they lie in memory and where in the file.
PAGE = 4096
# Below it the wait for the disk costs more than the copy.
DIRECT_BYTES = 2**18
_VIEWS = 1024  # what one call takes on every system
_BINARY = getattr(os, "O_BINARY", 0)


def page_aligned(n_bytes: int) -> np.ndarray:
    """Zeros that begin at a page, for blocks of rows that are to be written directly.

    Example:
        >>> block = page_aligned(10_000)
        >>> block.shape, block.ctypes.data % PAGE
        ((10000,), 0)
    """
    if hasattr(mmap, "MAP_PRIVATE"):
        # By default it is shared memory, whose pages are slower to get and never huge.
        memory = mmap.mmap(-1, max(1, n_bytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:  # Windows
        memory = mmap.mmap(-1, max(1, n_bytes))
    if hasattr(memory, "madvise") and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel built without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8, n_bytes)


class ChunkFiles:
    """Writes rows into chunk files, each of a fixed number of rows; of one thread.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "0" / "0"
        >>> rows = np.arange(6, dtype="<f4").reshape(3, 2)
        >>> ChunkFiles().write(path, rows[:2], 1, chunk_rows=4, fill=0)
        >>> np.fromfile(path, "<f4").reshape(4, 2)[:, 0]
        array([0., 0., 2., 0.], dtype=float32)
    """

    def __init__(self) -> None:
        self._possible = hasattr(os, "O_DIRECT") and hasattr(os, "pwritev")

    def write(
        self,
        path: Path,
        rows: np.ndarray,
        offset: int,
        *,
        chunk_rows: int,
        fill: float | int,
        direct: bool = False,
    ) -> None:
        """Write ``rows[n, w]`` from row `offset` of a chunk file on; the rest holds `fill`.

        Args:
            path: The file; it appears, with its folder, if it is not there.
            rows: Consecutive rows, contiguous each.
            offset: Where they begin.
            chunk_rows: Rows of the whole file.
            fill: What the rows hold that were never written; zero, or NaN.
            direct: Try to write past the page cache, which takes pages only: see `page_aligned`.
                Say no where the disk does not keep up: the cache may be faster, and is while it
                lasts.
        """
        row_bytes = rows.shape[1] * rows.itemsize
        size, position = chunk_rows * row_bytes, offset * row_bytes
        views = _views(rows)
        filled = len(rows) == chunk_rows or not math.isnan(fill)
        if direct and filled and self._possible and _pages_only(rows, views, position):
            self._possible = _written_directly(path, views, position, size)
            if self._possible:
                return
        descriptor = _opened(path, os.O_WRONLY)
        try:
            if os.fstat(descriptor).st_size != size:
                os.ftruncate(descriptor, size)
                if math.isnan(fill):
                    rest = np.full((chunk_rows, rows.shape[1]), np.nan, rows.dtype)
                    _write_all(descriptor, _views(rest), 0)
            _write_all(descriptor, views, position)
        finally:
            os.close(descriptor)


def _pages_only(rows: np.ndarray, views: list[memoryview], position: int) -> bool:
    """Whether each piece begins at a page, here and in the file, and consists of whole ones."""
    stride = rows.strides[0] if len(views) > 1 else 0
    places = (rows.ctypes.data, stride, len(views[0]), position)
    return rows.nbytes >= DIRECT_BYTES and all(place % PAGE == 0 for place in places)


def _written_directly(path: Path, views: list[memoryview], position: int, size: int) -> bool:
    """Write into a file of this size; False where the file system does not do it this way."""
    try:
        descriptor = _opened(path, os.O_WRONLY | os.O_DIRECT)
    except OSError as error:
        return _refused(error)
    try:
        if os.fstat(descriptor).st_size != size:
            os.ftruncate(descriptor, size)
        _write_all(descriptor, views, position)
    except OSError as error:
        return _refused(error)
    finally:
        os.close(descriptor)
    return True


def _refused(error: OSError) -> bool:
    """False if the file system cannot write directly; any other error is one."""
    if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
        raise error
    return False


def _opened(path: Path, flags: int) -> int:
    """A descriptor of the file, which is made if it is not there."""
    try:
        return os.open(path, flags | _BINARY)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags | os.O_CREAT | _BINARY, 0o644)


def _views(rows: np.ndarray) -> list[memoryview]:
    """The bytes of the rows in the file's order, as pieces that are contiguous in memory."""
    return [piece.data.cast("B") for piece in ([rows] if rows.flags.c_contiguous else rows)]


def _write_all(descriptor: int, views: list[memoryview], position: int) -> None:
    """Write pieces of memory one behind the other, without copying them together first."""
    while views:
        if hasattr(os, "pwritev"):
            written = os.pwritev(descriptor, views[:_VIEWS], position)
        else:
            os.lseek(descriptor, position, os.SEEK_SET)
            written = os.write(descriptor, views[0])
        position += written
        views = _behind(views, written)


def _behind(views: list[memoryview], n_bytes: int) -> list[memoryview]:
    """What is left of the pieces behind their first bytes."""
    for i, view in enumerate(views):
        if n_bytes < len(view):
            return [view[n_bytes:], *views[i + 1 :]]
        n_bytes -= len(view)
    return []
