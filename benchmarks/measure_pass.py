"""One pass of progress measures over a checkpoint modulo 113, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

from rows import Row, summary

P = 113
GOAL_S, GOAL_BYTES = 0.5, 500e6


def rows(*, quick: bool, scratch: Path) -> list[Row]:
    p = 23 if quick else P
    turns = 1 if quick else 10
    measured = _in_a_fresh_process(p, turns)
    size = f"p = {p}, d_mlp = 512, float64, network included"
    note = f"observe {measured['observe_s']:.2f} s, measure {measured['measure_s']:.2f} s"
    return [
        Row(
            f"Default report row of one checkpoint, {size}",
            summary(measured["seconds"])["median"],
            goal=GOAL_S,
            goal_on="ours",
            detail={"seconds": summary(measured["seconds"]), "threads": measured["threads"]},
            note=note,
            quick=quick,
        ),
        Row(
            f"Memory of that process at its peak, {size}",
            measured["peak_bytes"],
            goal=GOAL_BYTES,
            goal_on="ours",
            unit="bytes",
            detail={"before_bytes": measured["before_bytes"]},
            note=f"{measured['before_bytes'] / 1e6:.0f} MB of it before, for torch alone",
            quick=quick,
        ),
    ]


def _in_a_fresh_process(p: int, turns: int) -> dict:
    command = [sys.executable, str(Path(__file__).with_name("measure_process.py"))]
    done = subprocess.run([*command, str(p), str(turns)], capture_output=True, check=True)
    return json.loads(done.stdout)
