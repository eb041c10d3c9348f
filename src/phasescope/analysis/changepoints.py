"""Change points of a curve: the partition into segments that costs least.

Letters: t evaluations, b blocks, k change points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from phasescope.analysis.curves import CurveSteps, CurveValues, as_curve
from phasescope.analysis.log_blocks import LogBlocks, log_blocks

Shape = Literal["constant", "linear"]

# Penalty per change in units of the noise's variance, at which a twentieth (a hundredth) of curves
# without a change get one: quantiles of `critical_penalty` over 1,000 curves of each length, which
# `python docs/calibrate_phases.py --only penalties` writes here.
# penalties: begin
_LENGTHS = (20, 50, 100, 200)
_PENALTIES: dict[tuple[str, float], tuple[float, ...]] = {
    ("constant", 0.05): (13.1, 11.83, 11.17, 11.32),
    ("constant", 0.01): (22.02, 16.28, 15.49, 15.26),
    ("linear", 0.05): (16.9, 15.33, 15.12, 14.82),
    ("linear", 0.01): (30.58, 22.52, 20.56, 20.29),
}
# penalties: end
_SMALLEST = {"constant": 1, "linear": 2}
# Squared distance in standard deviations within which a change point is not told from its
# neighbours, with probability .95.
_NEAR = 7.69


@dataclass(frozen=True, eq=False)
class ChangePoints:
    """A curve cut into segments of constant or linear trend in logarithmic time."""

    steps: Float64[Tensor, " k"]
    """Where it changes: geometric mean of the last step before and the first one after."""
    low: Float64[Tensor, " k"]
    """Lower end of a 95 % confidence set, the other changes held."""
    high: Float64[Tensor, " k"]
    """Upper end."""
    jumps: Float64[Tensor, " k"]
    """Difference of the two fits at the change, in the unit of the curve."""
    slope_changes: Float64[Tensor, " k"]
    """Change of the slope per unit of ln(1 + step); zero between constants."""
    noise: float
    """Standard deviation of an evaluation that the penalty rests on."""
    penalty: float
    """Reduction of the squared residuals, in units of the noise's variance, that a change costs."""
    fitted: Float64[Tensor, " b"] = field(repr=False)
    """The segments at the blocks."""
    blocks: LogBlocks = field(repr=False)
    """What was cut."""

    def __len__(self) -> int:
        """Number of change points."""
        return len(self.steps)


def change_points(
    steps: CurveSteps,
    values: CurveValues,
    *,
    shape: Shape = "linear",
    false_alarms: float = 0.05,
    penalty: float | None = None,
    noise: float | None = None,
    n_blocks: int = 400,
) -> ChangePoints:
    r"""Change points by optimal partitioning in logarithmic time, with a calibrated penalty.

    The curve is averaged over blocks of ln(1 + step); among all partitions of the blocks the one is
    found that minimises $\sum_{\text{segments}} \text{SSE} + \beta \sigma^2 k$, exactly, by dynamic
    programming. β is such that of curves with one segment and independent normal noise the share
    `false_alarms` gets a change, the estimation of σ included; the textbook value 2 ln n promises
    no rate.

    What it finds is that the curve has corners or jumps compared with its noise. A power law is no
    line in logarithmic time, and a random walk has no segments at all: both get change points, and
    more of them the less noisy they are. Whether a change is a transition and not the bend of a
    smooth curve is what `find_transitions` tests. Give unsmoothed values: an average over
    evaluations makes noise look like trends.

    Args:
        steps: Steps of the evaluations, increasing.
        values: The curve; of a loss its logarithm, often.
        shape: Whether segments are lines or constants. Constants turn a trend into a staircase.
        false_alarms: Share of curves without a change that get one or more: .05 or .01.
        penalty: Instead of the calibrated one, in units of σ².
        noise: Standard deviation of an evaluation, where it is known.
        n_blocks: Blocks of logarithmic time.

    Returns:
        The change points in order.

    Raises:
        ValueError: The curve is too short or not finite, or a number is out of range.

    Example:
        >>> steps = torch.arange(10_000)
        >>> noise = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
        >>> found = change_points(steps, noise + 2 * (steps > 3_000), shape="constant")
        >>> len(found), bool(found.low[0] <= 3_000 <= found.high[0])
        (1, True)

    References:
        Jackson et al. (2005), "An algorithm for optimal partitioning of data on an interval", IEEE
        Signal Processing Letters 12(2). Siegmund (1988), "Confidence sets in change-point
        problems", International Statistical Review 56(1) (the intervals).
    """
    if shape not in _SMALLEST:
        raise ValueError(f"shape is 'constant' or 'linear', but {shape!r} arrived.")
    steps, values = as_curve(steps, values, "the curve", least=2)
    blocks = log_blocks(steps, values, n_blocks)
    smallest = _SMALLEST[shape]
    if len(blocks) < 2 * smallest + 2:
        raise ValueError(
            f"change points need at least {2 * smallest + 2} blocks of logarithmic time, but there "
            f"are {len(blocks)}. Evaluate more often, or raise n_blocks={n_blocks}."
        )
    sigma = blocks.noise if noise is None else noise
    # A curve without noise: rounding is its noise.
    floor = 1e-12 * float(blocks.values.abs().max())
    sigma = max(sigma, floor, 1e-300)
    beta = penalty_for(len(blocks), shape, false_alarms) if penalty is None else penalty
    costs = SegmentCosts(blocks, shape)
    ends = optimal_partition(costs, beta * sigma**2)
    return _described(blocks, costs, ends, sigma, beta, _Curve(steps, values, blocks))


class SegmentCosts:
    """Squared residuals of a line (or a constant) over any run of blocks, from prefix sums.

    Args:
        blocks: The blocks; each counts as often as it has evaluations.
        shape: "linear" or "constant".
    """

    def __init__(self, blocks: LogBlocks, shape: Shape) -> None:
        w = blocks.counts.double().numpy()
        x, y = blocks.tau.numpy(), blocks.values.numpy()
        # Centred, so that differences of prefix sums keep their digits.
        self._x = x - np.average(x, weights=w)
        self._y = y - np.average(y, weights=w)
        rows = [w, w * self._x, w * self._y, w * self._x**2, w * self._x * self._y, w * self._y**2]
        self._sums = np.pad(np.cumsum(rows, axis=1), ((0, 0), (1, 0)))
        self.shape: Shape = shape
        self.smallest = _SMALLEST[shape]
        self.n = len(w)

    def __call__(self, starts: np.ndarray | int, stop: np.ndarray | int) -> np.ndarray:
        """Costs of the segments ``[start, stop)``, one or many."""
        a, b = np.atleast_1d(starts), np.atleast_1d(stop)
        w, x, y, xx, xy, yy = self._sums[:, b] - self._sums[:, a]
        cost = yy - y * y / w
        if self.shape == "linear":
            spread = xx - x * x / w
            together = xy - x * y / w
            with np.errstate(divide="ignore", invalid="ignore"):
                cost = cost - np.where(spread > 0, together**2 / spread, 0.0)
        return np.maximum(cost, 0.0)

    def line(self, start: int, stop: int) -> tuple[float, float]:
        """Value at the centred origin and slope of the fit over a segment."""
        w, x, y, xx, xy, _ = self._sums[:, stop] - self._sums[:, start]
        slope = 0.0
        if self.shape == "linear" and xx - x * x / w > 0:
            slope = float((xy - x * y / w) / (xx - x * x / w))
        return float((y - slope * x) / w), slope


def optimal_partition(costs: SegmentCosts, penalty: float) -> list[int]:
    """Ends of the segments of the cheapest partition, the number of blocks last.

    Args:
        costs: Of every possible segment.
        penalty: Cost of every segment.
    """
    n, smallest = costs.n, costs.smallest
    best = np.full(n + 1, np.inf)
    best[0] = 0.0
    before = np.zeros(n + 1, dtype=np.int64)
    for stop in range(smallest, n + 1):
        starts = np.arange(stop - smallest + 1)
        total = best[: stop - smallest + 1] + costs(starts, stop) + penalty
        before[stop] = total.argmin()
        best[stop] = total[before[stop]]
    ends = [n]
    while before[ends[-1]]:
        ends.append(int(before[ends[-1]]))
    return ends[::-1]


def critical_penalty(costs: SegmentCosts) -> float:
    """The largest penalty at which the cheapest partition still has a change."""
    whole = float(costs(0, costs.n)[0])
    penalty = 0.0
    for _ in range(100):
        ends = optimal_partition(costs, penalty)
        if len(ends) == 1:
            return penalty
        starts = np.array([0, *ends[:-1]])
        gain = (whole - float(costs(starts, np.array(ends)).sum())) / (len(ends) - 1)
        if gain <= penalty * (1 + 1e-12):
            return gain
        penalty = gain
    return penalty


def simulate_penalties(
    n_blocks: int, shape: Shape, *, n_draws: int = 1000, seed: int = 0
) -> Float64[Tensor, " n_draws"]:
    """Critical penalties of curves without a change, sorted: what the calibration rests on.

    Args:
        n_blocks: Length of the curves.
        shape: "linear" or "constant".
        n_draws: Curves.
        seed: Of their noise.

    Returns:
        In units of the estimated variance of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.arange(n_blocks, dtype=torch.float64)
    one = torch.ones(n_blocks, dtype=torch.int64)
    found = []
    for _ in range(n_draws):
        y = torch.randn(n_blocks, generator=generator, dtype=torch.float64)
        blocks = LogBlocks(x, y, one, x.long(), x.long())
        found.append(critical_penalty(SegmentCosts(blocks, shape)) / blocks.noise**2)
    return torch.tensor(found, dtype=torch.float64).sort().values


def penalty_for(n_blocks: int, shape: Shape, false_alarms: float) -> float:
    """The calibrated penalty per change, in units of the noise's variance.

    Between the simulated lengths it is linear in the logarithm of the length; longer curves have
    that of the longest, at which the estimate of the noise hardly matters any more.

    Raises:
        ValueError: There is no calibration for this rate.
    """
    key = (shape, false_alarms)
    if key not in _PENALTIES:
        rates = sorted({rate for _, rate in _PENALTIES})
        raise ValueError(
            f"false_alarms must be one of {rates}, for which penalties were simulated, but "
            f"{false_alarms} arrived. Pass penalty= for any other."
        )
    table = np.array(_PENALTIES[key])
    return float(np.interp(math.log(n_blocks), np.log(_LENGTHS), table))


class _Curve:
    """The evaluations themselves, for changes that happen inside a block."""

    def __init__(self, steps: Tensor, values: Tensor, blocks: LogBlocks) -> None:
        self.t = steps.cpu().numpy()
        self.x = np.log1p(self.t.astype(np.float64))
        self.x = self.x - np.average(blocks.tau.numpy(), weights=blocks.counts.double().numpy())
        self.y = values.detach().double().cpu().numpy()
        self.mean = np.average(blocks.values.numpy(), weights=blocks.counts.double().numpy())
        self.blocks = blocks

    def split(self, start: int, stop: int, lines: list[tuple[float, float]]) -> tuple[float, float]:
        """Least squared residuals of blocks ``[start, stop)`` divided between two lines.

        Returns:
            The residuals, and the step from which the second line is the better one.
        """
        inside = slice(
            int(np.searchsorted(self.t, int(self.blocks.first[start]))),
            int(np.searchsorted(self.t, int(self.blocks.last[stop - 1]))) + 1,
        )
        left, right = (
            np.square(self.y[inside] - self.mean - c - s * self.x[inside]) for c, s in lines
        )
        total = np.append(0.0, left.cumsum()) + np.append(right[::-1].cumsum()[::-1], 0.0)
        i = int(total.argmin())
        t = np.append(self.t[inside], int(self.blocks.last[stop - 1]) + 1)
        return float(total[i]), float(t[i])

    def own(self, start: int, stop: int, line: tuple[float, float]) -> float:
        """Squared residuals of blocks ``[start, stop)`` around their own line."""
        return self.split(start, stop, [line, line])[0]


def _merged(
    ends: list[int], costs: SegmentCosts, curve: _Curve, penalty: float
) -> list[tuple[int, int, float | None]]:
    """Change points as (end of the left segment, start of the right one, step if inside blocks).

    A jump within a block leaves its mean between two levels: a segment of its own, if the curve is
    precise. Where dividing its evaluations between its neighbours is cheaper, it is one change.
    """
    changes: list[tuple[int, int, float | None]] = []
    starts = [0, *ends[:-1]]
    i = 1
    while i < len(ends):
        a, b = starts[i], ends[i]
        if i + 1 < len(ends) and b - a <= _SMALLEST["linear"]:
            left = costs.line(starts[i - 1], a)
            right = costs.line(b, ends[i + 1])
            divided, at = curve.split(a, b, [left, right])
            if divided <= curve.own(a, b, costs.line(a, b)) + penalty:
                changes.append((a, b, at))
                i += 2
                continue
        changes.append((a, a, None))
        i += 1
    return changes


def _described(
    blocks: LogBlocks,
    costs: SegmentCosts,
    ends: list[int],
    sigma: float,
    beta: float,
    curve: _Curve,
) -> ChangePoints:
    w = blocks.counts.double().numpy()
    x = blocks.tau.numpy() - np.average(blocks.tau.numpy(), weights=w)
    starts = [0, *ends[:-1]]
    fitted = np.concatenate(
        [c + s * x[a:b] for a, b in zip(starts, ends, strict=True) for c, s in [costs.line(a, b)]]
    )
    changes = _merged(ends, costs, curve, beta * sigma**2)
    begins = [0, *(right for _, right, _ in changes)]
    stops = [*(left for left, _, _ in changes), len(x)]
    rows = []
    for i, (left, right, at) in enumerate(changes):
        (c, s), (d, u) = costs.line(begins[i], left), costs.line(right, stops[i + 1])
        low, high = left, right
        if left == right:
            possible = np.arange(begins[i] + costs.smallest, stops[i + 1] - costs.smallest + 1)
            profile = costs(begins[i], possible) + costs(possible, stops[i + 1])
            near = possible[profile <= profile.min() + _NEAR * sigma**2]
            low, high = min(left, int(near.min())), max(right, int(near.max()))
        before, after = float(blocks.last[low - 1]), float(blocks.first[high])
        if at is None:
            ends_at, begins_at = float(blocks.last[left - 1]), float(blocks.first[right])
            at = math.sqrt((1 + ends_at) * (1 + begins_at)) - 1
        place = math.log1p(at) - (float(blocks.tau[0]) - x[0])
        rows.append([at, before, after, (d + u * place) - (c + s * place), u - s])
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 5)
    return ChangePoints(
        *table.unbind(1),
        noise=sigma,
        penalty=beta,
        fitted=torch.from_numpy(fitted + curve.mean),
        blocks=blocks,
    )
