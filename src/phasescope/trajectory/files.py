"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file so that a reader, or a killed process, sees the old one or the new one.

    Args:
        path: The file; its folder is made if it is not there.
        content: Text is written as UTF-8, with its line ends as they are.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "new" / "a.txt"
        >>> write_atomic(path, "hello")
        >>> path.read_text()
        'hello'
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    # Beside the file, since a rename is atomic within one file system only; a name of its own for
    # each process that may write the file.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        _write(temporary, data)
        _replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _replace(temporary: Path, path: Path) -> None:
    for attempt in range(10):
        try:
            os.replace(temporary, path)
        except PermissionError:  # Windows refuses while a reader has the file open
            if attempt == 9:
                raise
            time.sleep(0.02)
        else:
            return


def write_json(path: Path, content: Any, *, indent: int | None = 1) -> None:
    """Write strict JSON (no NaN) atomically."""
    write_atomic(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")
