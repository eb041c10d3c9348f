"""Rows into the files of uncompressed chunks; whole chunks go past the page cache where they can.

A write through the page cache costs a copy and a page of memory for every 4 kB, by a processor that
the training would use: measured per megabyte, three times as much as the direct write and more
where memory is scarce. It also evicts what others have cached.

Letters: n rows, w entries of a row within the chunk.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np

# Direct writes require whole pages, at addresses and file positions that are whole pages.
PAGE = 4096
_BINARY = getattr(os, "O_BINARY", 0)


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
        self._scratch: mmap.mmap | None = None
        self._possible = hasattr(os, "O_DIRECT") and hasattr(os, "pwrite")

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
            direct: Try to write a whole chunk past the page cache. Say no where the disk does not
                keep up: the cache may be faster, and is while it lasts.
        """
        row_bytes = rows.shape[1] * rows.itemsize
        size = chunk_rows * row_bytes
        if direct and self._possible and len(rows) == chunk_rows and size % PAGE == 0:
            self._possible = self._write_direct(path, rows, size)
            if self._possible:
                return
        with open(_opened(path, os.O_WRONLY), "wb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != size:
                file.truncate(size)
                if isinstance(fill, float) and math.isnan(fill):
                    file.write(np.full(chunk_rows * rows.shape[1], np.nan, rows.dtype).data)
            file.seek(offset * row_bytes)
            _write_all(file, rows)

    def _write_direct(self, path: Path, rows: np.ndarray, size: int) -> bool:
        """Write a whole chunk; False where the file system does not do it this way."""
        if self._scratch is None or len(self._scratch) < size:
            self._scratch = mmap.mmap(-1, size)  # aligned to pages
        gathered = np.frombuffer(self._scratch, rows.dtype, rows.size)
        gathered.reshape(rows.shape)[:] = rows
        try:
            descriptor = _opened(path, os.O_WRONLY | os.O_DIRECT)
        except OSError as error:
            return _refused(error)
        try:
            view = memoryview(self._scratch)[:size]
            done = 0
            while done < size:
                done += os.pwrite(descriptor, view[done:], done)
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


def _write_all(file: Any, rows: np.ndarray) -> None:
    """Write a strided block of rows in the file's order, without copying it together first."""
    if rows.flags.c_contiguous:
        _write_buffer(file, rows.data.cast("B"))
        return
    if hasattr(os, "pwritev") and len(rows) <= 1024:
        position, row_bytes = file.tell(), rows.shape[1] * rows.itemsize
        views = [row.data.cast("B") for row in rows]
        if os.pwritev(file.fileno(), views, position) == len(rows) * row_bytes:
            return
        file.seek(position)
    for row in rows:
        _write_buffer(file, row.data.cast("B"))


def _write_buffer(file: Any, view: memoryview) -> None:
    while view:
        view = view[file.write(view) :]
