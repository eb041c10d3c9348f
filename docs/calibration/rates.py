"""Rates with their intervals, and tables of them in Markdown."""

import math
from collections.abc import Callable


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate."""
    middle = (hits + z * z / 2) / (n + z * z)
    reach = z / (n + z * z) * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def rate(hits: int, n: int) -> dict[str, float | int]:
    low, high = wilson(hits, n)
    return {"hits": hits, "n": n, "rate": hits / n, "low": low, "high": high}


def percent(cell: dict) -> str:
    """A rate with its interval."""
    return f"{100 * cell['rate']:.1f} % ({100 * cell['low']:.0f}–{100 * cell['high']:.0f})"


def table(columns: dict[str, dict], text: Callable[[dict], str], corner: str = "rule") -> str:
    """One column for each key, one row for each key of the columns."""
    names = next(iter(columns.values()))
    lines = [[corner, *columns], ["---"] * (1 + len(columns))]
    lines += [[name, *(text(found[name]) for found in columns.values())] for name in names]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
