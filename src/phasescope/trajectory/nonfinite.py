"""Looks for NaN and infinity in what is written, in the writer's thread."""

from __future__ import annotations

from typing import Any

import numpy as np

from phasescope.parameters import ParameterTable
from phasescope.trajectory.channels import Job

MAX_EVENTS = 100


class NonFiniteWatch:
    """Collects the steps and tensors at which a recorded gradient was not finite.

    Takes a block over parameters (``values``) or over tensors' norms (``gradients``).
    """

    def __init__(self, table: ParameterTable, events: list[dict[str, Any]]) -> None:
        self._table = table
        self.events = events

    def __call__(self, job: Job) -> None:
        """Inspect a block before it is written."""
        block = job.values["values"] if "values" in job.values else job.values["gradients"]
        if block.dtype == np.uint16:  # bfloat16: all exponent bits set
            suspects = ((block & 0x7F80) == 0x7F80).any(axis=1)
        else:
            # One pass; a sum that merely overflows is told apart below.
            with np.errstate(over="ignore", invalid="ignore"):
                suspects = ~np.isfinite(block.sum(axis=1))
        for i in np.flatnonzero(suspects):
            if len(self.events) >= MAX_EVENTS:
                return
            row = block[i]
            values = (
                (row.astype(np.uint32) << 16).view(np.float32) if row.dtype == np.uint16 else row
            )
            self._report(int(job.steps[i]), values[: self._columns(job)])

    def _columns(self, job: Job) -> int:
        return self._table.size if "values" in job.values else len(self._table.names)

    def _report(self, step: int, row: np.ndarray) -> None:
        bad = np.flatnonzero(~np.isfinite(row))
        if not len(bad):
            return
        over_tensors = len(row) == len(self._table.names) != self._table.size
        names = [
            self._table.names[c] if over_tensors else self._table.locate(int(c)) for c in bad[:1]
        ]
        kind = "nan" if np.isnan(row[bad]).any() else "inf"
        self.events.append({"step": step, "parameter": names[0], "kind": kind, "entries": len(bad)})

    def describe(self) -> str:
        """The first event as a sentence."""
        first = self.events[0]
        return (
            f"the gradient of {first['parameter']!r} was not finite ({first['kind']}) at step "
            f"{first['step']}. It was recorded as it was; run.json lists the first {MAX_EVENTS} "
            "such steps under 'nonfinite'."
        )
