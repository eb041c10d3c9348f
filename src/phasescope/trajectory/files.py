"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a killed process, sees the old one or the new one."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(data)
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
