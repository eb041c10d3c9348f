"""What one seed says about each claim: numbers read off its networks of 1, 2 and 3 layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from phasescope.experiments.induction_heads.config import Results

INDUCTION = 0.3  # stripe from which a head counts as an induction head
# Factor of a rise; in a pilot run, whose seed no verdict uses, intervals differed by 8 % (sd).
RISE = 1.3


def window(result: Results) -> tuple[float, float, float] | None:
    """Onset, midpoint and end of the fall of the copy loss; None if it has no sudden one."""
    found = result.numbers["window"]
    return None if found is None else (found[0], found[1], found[2])


def scores(result: Results, name: str) -> np.ndarray:
    """A score of every head at every checkpoint."""
    return np.array(result.numbers["heads"][name])


def induction_heads(result: Results) -> np.ndarray:
    """Rows of the heads that are induction heads at the end."""
    return np.flatnonzero(scores(result, "stripe")[:, -1] >= INDUCTION)


def layers(result: Results) -> np.ndarray:
    """The layer of every head."""
    return np.repeat(np.arange(result.config.n_layers), result.config.n_heads)


def previous_token_head(result: Results) -> int:
    """The head of the first layer that looks at the token before most, at the end."""
    last = scores(result, "previous_token")[:, -1]
    return int(np.where(layers(result) == 0, last, -np.inf).argmax())


def activity(result: Results, which: str) -> np.ndarray:
    """Squared movement of every head per interval between checkpoints.

    ``per_parameter`` is the post's, in the coordinates of the heads; ``gauge-free`` the sum of the
    squared relative changes of W_Q W_Kᵀ and W_V W_O.
    """
    moved = result.numbers["moved"]
    if which == "per_parameter":
        return np.array(moved["per_parameter"])
    return np.array(moved["qk_relative"]) ** 2 + np.array(moved["ov_relative"]) ** 2


def inside(result: Results, low: float | int, high: float | int) -> np.ndarray:
    """Intervals between checkpoints that overlap a window."""
    t = np.array(result.numbers["steps"])
    return (t[1:] > low) & (t[:-1] < high)


def turn(result: Results, low: float | int, high: float | int) -> float:
    """How much the movement of all heads turns in a window.

    log2 of its largest value there over the geometric mean of those a quarter before and behind.
    """
    total = activity(result, "per_parameter").mean(0)
    within = inside(result, low, high)
    if not within.any():
        return float("nan")
    begins = np.array(result.numbers["steps"])[:-1]
    before, behind = (
        total[max(int(np.searchsorted(begins, step, side="right")) - 1, 0)]
        for step in (low / 1.25, 1.25 * high)
    )
    return float(np.log2(total[within].max()) - 0.5 * (np.log2(before) + np.log2(behind)))


def turn_elsewhere(result: Results, low: float | int, high: float | int) -> float:
    """Mean turn of windows of the same logarithmic width after the warm-up that do not overlap."""
    t = result.numbers["steps"]
    width = math.log1p(high) - math.log1p(low)
    first = math.log1p(max(t[1], 4 * result.config.warmup_steps))
    found = []
    for start in np.linspace(first, math.log1p(t[-1]) - width, 40):
        a, b = math.expm1(start), math.expm1(start + width)
        if b < low or a > high:
            found.append(turn(result, a, b))
    return float(np.nanmean(found)) if found else float("nan")


def rise_time(
    result: Results, row: int, which: str, before: float | int, until: float | int
) -> float:
    """When a head's movement first exceeds its median before the onset by `RISE`, three times over.

    Looked for from half of the onset on; `until` if it does not happen.
    """
    t = np.array(result.numbers["steps"])[1:]
    moved = activity(result, which)[row]
    usual = np.median(moved[(t >= before / 4) & (t <= before / 2)])
    above = (moved > RISE * usual) & (t >= before / 2) & (t <= until)
    for i in range(len(above) - 2):
        if above[i : i + 3].all():
            return float(t[i])
    return float(until)


def half_rise(steps: Sequence[int], curve: np.ndarray, until: float | int) -> float:
    """Step at which a curve is halfway from a tenth of `until` to its largest value by `until`."""
    t = np.array(steps)
    base = curve[int(np.searchsorted(t, until / 10))]
    early = curve[t <= until]
    goal = (base + early.max()) / 2
    later = np.flatnonzero((curve >= goal) & (t >= until / 10))
    return float(t[later[0]]) if len(later) and early.max() > base else float("nan")


def effective_share(squares: np.ndarray) -> float:
    """Participation ratio of a distribution over its number of parts: 1 if all have the same."""
    p = squares / squares.sum()
    return float(1 / (len(p) * (p**2).sum()))


def unigram_loss(result: Results) -> float:
    """Copy loss of the best guess from the set of tokens of the segment alone, in nats.

    After the first occurrence all tokens of a segment of n random tokens have been seen; knowing
    the set but not the order costs ln n. The mean over the lengths, weighted by their repeats. Of a
    text tokens count as often as they occur, and the loss was measured (`order_free_loss`).
    """
    if result.config.data == "text":
        return result.numbers["order_free_loss"]
    n = np.arange(result.config.n_ctx // 8, 3 * result.config.n_ctx // 8 + 1)
    weights = result.config.n_ctx - n
    return float((weights * np.log(n)).sum() / weights.sum())


def numbers(result: Results) -> dict[str, Any]:
    """Main statistics of one run, for tables."""
    stripe = scores(result, "stripe")
    found = window(result)
    return {
        "largest stripe": float(stripe[:, -1].max()),
        "induction heads": [result.numbers["head_names"][i] for i in induction_heads(result)],
        "midpoint": None if found is None else found[1],
    }
