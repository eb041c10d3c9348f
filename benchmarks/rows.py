"""What a benchmark measures and returns: calls timed in turn, and one row for each comparison."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


def alternate(calls: Mapping[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """Seconds of every call, one after the other in each turn.

    The speed of a machine drifts by tens of per cent within minutes. Only things that were timed
    in turn can be compared.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return times


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and range of repetitions, for a row's detail."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "n": len(values),
    }


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio` is other / ours: above 1, phasescope is the faster one."""

    name: str
    ours: float
    other: float | None = None
    other_name: str = ""
    goal: float | None = None
    # A goal on the ratio is a lower bound, one on ours (seconds or bytes) an upper bound.
    goal_on: Literal["ratio", "ours"] = "ratio"
    unit: Literal["s", "bytes"] = "s"
    detail: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    # Sizes were shrunk to try the benchmark: its numbers mean nothing.
    quick: bool = False

    @property
    def ratio(self) -> float | None:
        """How many times faster than the other; None where there is no other."""
        return None if self.other is None else self.other / self.ours

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal, and for quick rows."""
        if self.goal is None or self.quick:
            return None
        if self.goal_on == "ours":
            return self.ours <= self.goal
        return self.ratio is not None and self.ratio >= self.goal

    def to_json(self) -> dict[str, Any]:
        """All fields, ratio and met included."""
        return {
            "name": self.name,
            "ours": float(self.ours),  # bytes are often counted in integers
            "other": self.other,
            "other_name": self.other_name,
            "unit": self.unit,
            "ratio": self.ratio,
            "goal": self.goal,
            "goal_on": self.goal_on if self.goal is not None else None,
            "met": self.met,
            "quick": self.quick,
            "note": self.note,
            "detail": self.detail,
        }
