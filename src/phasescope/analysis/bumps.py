"""Bumps of an alignment: a column turns to a target and backs off again.

Axes: seed, time, column (of the learned factor), target (a column of the true factor).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from phasescope.analysis.turning import turning_points


@dataclass(frozen=True, eq=False)
class Bumps:
    """Every bump of every pair of column and target, ordered by seed."""

    seed: Int64[Tensor, " bumps"]
    """Row of the seed in the batch."""
    column: Int64[Tensor, " bumps"]
    """Column that turned to the target."""
    target: Int64[Tensor, " bumps"]
    """Target that it turned to."""
    start: Int64[Tensor, " bumps"]
    """Time index of the trough before."""
    peak: Int64[Tensor, " bumps"]
    """Time index of the peak."""
    end: Int64[Tensor, " bumps"]
    """Time index of the trough after."""
    prominence: Float[Tensor, " bumps"]
    """Smaller of the rise before and the fall after the peak."""
    n_seeds: int
    """Seeds in the batch."""

    def count(self, which: Bool[Tensor, " bumps"] | None = None) -> Int64[Tensor, " seed"]:
        """Number of bumps of every seed.

        Args:
            which: Only these bumps.
        """
        seeds = self.seed if which is None else self.seed[which]
        return torch.bincount(seeds, minlength=self.n_seeds)


def find_bumps(
    alignments: Float[Tensor, "seed time column target"], *, prominence: float = 0.05
) -> Bumps:
    """Peaks of each alignment over time that stand out on both sides.

    Counts what `scipy.signal.find_peaks` counts at this prominence, for all series at once. A bump
    that the sampling in time misses is not seen, and one threshold decides: report it.

    Args:
        alignments: Such as absolute cosines between columns and targets.
        prominence: Rise before and fall after a peak, in units of the alignment.

    Returns:
        The bumps.

    Raises:
        ValueError: If the prominence is not positive, an alignment not finite, or an axis missing.

    Example:
        >>> one = torch.tensor([0.1, 0.6, 0.2]).view(1, 3, 1, 1)
        >>> bumps = find_bumps(one)
        >>> bumps.count().tolist(), round(bumps.prominence.item(), 2)
        ([1], 0.4)
    """
    if alignments.ndim != 4:
        raise ValueError(
            "alignments must have the axes seed, time, column and target, but their shape is "
            f"{tuple(alignments.shape)}. Of one series x it is x.view(1, -1, 1, 1)."
        )
    n_seeds, n_times, n_columns, n_targets = alignments.shape
    series = alignments.permute(0, 2, 3, 1).reshape(-1, n_times)
    turns = turning_points(series, prominence)
    peaks = (~turns.is_trough & ~turns.is_end).nonzero().squeeze(1)
    # Turns alternate, but a series may open with the peak that it starts from: no bump.
    peaks = peaks[peaks > 0]
    peaks = peaks[turns.series[peaks - 1] == turns.series[peaks]]
    pair = turns.series[peaks]
    rise = turns.value[peaks] - turns.value[peaks - 1]
    fall = turns.value[peaks] - turns.value[peaks + 1]
    return Bumps(
        seed=pair // (n_columns * n_targets),
        column=pair // n_targets % n_columns,
        target=pair % n_targets,
        start=turns.time[peaks - 1],
        peak=turns.time[peaks],
        end=turns.time[peaks + 1],
        prominence=torch.minimum(rise, fall),
        n_seeds=n_seeds,
    )


def contested(
    alignments: Float[Tensor, "seed time column target"],
    bumps: Bumps,
    *,
    gain: float = 0.05,
    target: Int64[Tensor, " bumps"] | None = None,
) -> Bool[Tensor, " bumps"]:
    """Whether another column took the target while the bump's own column backed off.

    Some other column gained at least `gain` of alignment with the target from the trough before the
    bump to the trough after it, and is ahead of the bump's column at the end. As a control pass
    other targets (`other_targets`): how often would a column seem to take a target that has nothing
    to do with the bump?

    Args:
        alignments: What the bumps were found in.
        bumps: From `find_bumps`.
        gain: Least gain of the other column.
        target: Target to look at for each bump; by default its own.

    Returns:
        One answer per bump; never true with a single column.

    Example:
        >>> first, second = torch.tensor([0.1, 0.6, 0.2]), torch.tensor([0.1, 0.3, 0.9])
        >>> both = torch.stack([first, second], 1).view(1, 3, 2, 1)
        >>> bumps = find_bumps(both)
        >>> bumps.column.tolist(), contested(both, bumps).tolist()
        ([0], [True])
    """
    goal = bumps.target if target is None else target
    before = alignments[bumps.seed, bumps.start, :, goal]
    after = alignments[bumps.seed, bumps.end, :, goal]
    rows = torch.arange(len(goal), device=goal.device)
    own = after[rows, bumps.column].unsqueeze(1)
    taking = (after - before >= gain) & (after > own)
    taking[rows, bumps.column] = False
    return taking.any(1)


def other_targets(
    bumps: Bumps, n_targets: int, *, generator: torch.Generator | None = None
) -> Int64[Tensor, " bumps"]:
    """A random target for each bump that is not its own, as a control of `contested`.

    Args:
        bumps: From `find_bumps`.
        n_targets: Number of targets, at least two.
        generator: Source of randomness.

    Returns:
        One target per bump.

    Raises:
        ValueError: If there is no other target.

    Example:
        >>> bumps = find_bumps(torch.tensor([0.1, 0.6, 0.2]).view(1, 3, 1, 1))
        >>> other_targets(bumps, 2).tolist()
        [1]
    """
    if n_targets < 2:
        raise ValueError(f"another target needs at least two, but n_targets is {n_targets}.")
    shift = torch.randint(1, n_targets, bumps.target.shape, generator=generator)
    return (bumps.target + shift.to(bumps.target.device)) % n_targets
