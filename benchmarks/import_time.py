"""What `import phasescope` adds to `import torch`, in processes of their own."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

from rows import Row, summary

# In this order phasescope is charged only with what torch did not load, in every process anew.
PROGRAM = """
import time
start = time.perf_counter()
import torch
between = time.perf_counter()
import phasescope
print([between - start, time.perf_counter() - between])
"""
GOAL = 0.3


def rows(*, quick: bool, scratch: Path) -> list[Row]:
    if not quick:
        import_seconds()  # compiles the files and brings them into the page cache
    pairs = [import_seconds() for _ in range(1 if quick else 9)]
    torch, added = zip(*pairs, strict=True)
    detail = {"import_torch_s": summary(torch), "then_import_phasescope_s": summary(added)}
    name = "import phasescope, after import torch"
    ours = statistics.median(added)
    note = f"import torch itself: {statistics.median(torch):.2f} s"
    return [Row(name, ours, goal=GOAL, goal_on="ours", detail=detail, note=note, quick=quick)]


def import_seconds() -> tuple[float, float]:
    """Seconds of torch and then of phasescope, in a fresh process."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    torch, phasescope = json.loads(done.stdout)
    return torch, phasescope
