"""Sudden transitions of a curve: S-curves in logarithmic time that no smooth curve explains.

Letters: t evaluations, b blocks, k transitions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from phasescope.analysis.curves import CurveSteps, CurveValues
from phasescope.analysis.log_blocks import LogBlocks, log_blocks
from phasescope.analysis.smooth_fits import (
    Fit,
    fit_smooth,
    fit_walk,
    with_transition,
)

_LN9 = math.log(9.0)
# Heights known less well than this, in standard errors, are no transitions but bends.
_CERTAIN = 4.0
# Heights beyond this share of the range of the curve cancel each other.
_LARGEST = 1.2


@dataclass(frozen=True)
class Transition:
    r"""One S-curve $h / (1 + e^{-(\tau - m)/s})$ in τ = ln(1 + step)."""

    onset: float
    """Step at which a tenth of the change has happened."""
    midpoint: float
    """Step at which half of it has."""
    end: float
    """Step at which nine tenths have."""
    midpoint_low: float
    """Lower end of a 95 % interval of the midpoint."""
    midpoint_high: float
    """Upper end."""
    onset_low: float
    """Lower end of a 95 % interval of the onset."""
    onset_high: float
    """Upper end."""
    height: float
    """Change of the curve, signed, in its unit."""
    height_error: float
    """Standard error of the height."""
    evidence: float
    """Decrease of the Bayesian information criterion when this transition is added to the smooth
    curve and the earlier ones; 10 is what is called strong."""

    @property
    def sharpness(self) -> float:
        """ln(end / onset), dimensionless: 3.08 is an exponential relaxation, 0 a jump."""
        return math.log((1 + self.end) / (1 + self.onset))

    @property
    def width(self) -> float:
        """Steps from onset to end."""
        return self.end - self.onset


@dataclass(frozen=True, eq=False)
class Transitions:
    """The transitions of a curve, beside what it looks like without them."""

    found: tuple[Transition, ...]
    """In the order of their midpoints."""
    evidence: float
    """How much the Bayesian information criterion is lower than that of the best alternative: a
    power law or a relaxation without transitions, and a random walk with noise. −inf if none was
    found."""
    fitted: Float64[Tensor, " b"] = field(repr=False)
    """Power law and transitions at the blocks."""
    smooth: Float64[Tensor, " b"] = field(repr=False)
    """The best power law alone."""
    blocks: LogBlocks = field(repr=False)
    """Means of the curve over blocks of logarithmic time, on which all of this was fitted."""

    def __len__(self) -> int:
        """Number of transitions."""
        return len(self.found)

    def __iter__(self):
        """The transitions in order."""
        return iter(self.found)


def find_transitions(
    steps: CurveSteps,
    values: CurveValues,
    *,
    min_evidence: float = 10.0,
    max_transitions: int = 3,
    max_sharpness: float = 2.5,
    known: Sequence[int] = (),
    n_blocks: int = 200,
) -> Transitions:
    r"""Transitions of a curve that neither a smooth curve nor a random walk explains.

    Over blocks of τ = ln(1 + step) the curve is fitted by a power law
    $a + b\,(1 + t/t_0)^{-c}$, which includes exponential relaxations, and then by the same plus
    logistic curves in τ, one at a time as long as each lowers the Bayesian information criterion by
    `min_evidence`. Logistics that are wider than `max_sharpness` (an exponential relaxation has
    3.08), whose height is below four standard errors, or which exceed the range of the curve
    because two of them cancel, bend the smooth curve and are not reported. In the end the whole fit
    must beat a random walk with noise (an ARIMA(0,1,1), whose steps are independent and which
    wanders anywhere) by the same margin, or nothing is returned: of a walk a sum of S-curves is a
    good description, too.

    False-alarm rates are in the guide, {doc}`phases`. A drop of the learning rate makes a true
    transition of the loss, of which training schedules are the cause: name their steps in `known`
    and transitions that hold one of them between onset and end are left out.

    Args:
        steps: Steps of the evaluations, increasing.
        values: The curve, unsmoothed; of a loss it or its logarithm.
        min_evidence: Least decrease of the criterion, for each transition and against the walk.
        max_transitions: Where to stop.
        max_sharpness: Slowest transition, as ln(end / onset).
        known: Steps at which something else changed, such as the learning rate.
        n_blocks: Blocks of logarithmic time.

    Returns:
        Transitions with onset, midpoint, end, height and intervals. Intervals are those of least
        squares with independent noise; correlation of neighbouring residuals widens them.

    Raises:
        ValueError: There are fewer than 20 blocks, the curve is not finite or its steps do not
            increase, or a number is out of range.

    Example:
        >>> steps = torch.arange(1, 4_001)
        >>> noise = 0.02 * torch.randn(4_000, generator=torch.Generator().manual_seed(0))
        >>> loss = 3 * steps**-0.1 - 1 / (1 + (1_000 / steps) ** 8) + noise
        >>> (drop,) = find_transitions(steps, loss)
        >>> round(drop.midpoint, -1), round(drop.height, 1), round(drop.sharpness, 1)
        (1000.0, -1.0, 0.6)

    References:
        Schwarz (1978), "Estimating the dimension of a model", Annals of Statistics 6(2). Kass &
        Raftery (1995), "Bayes factors", JASA 90(430) (10 is very strong evidence).
    """
    if not min_evidence >= 0 or max_transitions < 1 or not max_sharpness > 0:
        raise ValueError(
            "min_evidence must be 0 or more, max_transitions 1 or more and max_sharpness "
            f"positive, but they are {min_evidence}, {max_transitions} and {max_sharpness}."
        )
    blocks = log_blocks(steps, values, n_blocks)
    if len(blocks) < 20:
        raise ValueError(
            f"transitions need at least 20 blocks of logarithmic time, but the {len(steps)} "
            f"evaluations fill {len(blocks)}. Evaluate more often, early in training too."
        )
    base = fit_smooth(blocks)
    fits = [base]
    while len(fits) <= max_transitions and fits[-1].squares > _rounding(blocks):
        better = with_transition(blocks, fits[-1])
        if fits[-1].bic - better.bic < min_evidence:
            break
        fits.append(better)
    final, evidence = fits[-1], -math.inf
    if len(fits) > 1:
        evidence = min(base.bic, fit_walk(blocks)) - final.bic
    found: tuple[Transition, ...] = ()
    if evidence >= min_evidence:
        largest = _LARGEST * float(blocks.values.max() - blocks.values.min())
        found = tuple(
            x
            for x in _transitions(blocks, fits)
            if _CERTAIN * x.height_error < abs(x.height) < largest
            and x.sharpness <= max_sharpness
            and not any(x.onset <= k <= x.end for k in known)
        )
    return Transitions(
        found, evidence, torch.from_numpy(final.fitted), torch.from_numpy(base.fitted), blocks
    )


def _rounding(blocks: LogBlocks) -> float:
    """Squared residuals below which a fit is exact."""
    return 1e-20 * float((blocks.counts * blocks.values.square()).sum())


def _transitions(blocks: LogBlocks, fits: list[Fit]) -> tuple[Transition, ...]:
    final = fits[-1]
    covariance = _covariance(blocks, final)
    rows = []
    for i, (m, s, h) in enumerate(final.logistics):
        at = 2 + 2 + 3 * i  # behind the four parameters of the power law
        C = covariance[at : at + 3, at : at + 3]
        error_m = math.sqrt(max(C[0, 0], 0.0))
        # The onset m − s ln 9: its variance by the delta method.
        g = np.array([1.0, -_LN9, 0.0])
        error_o = math.sqrt(max(float(g @ C @ g), 0.0))
        onset, end = m - _LN9 * s, m + _LN9 * s
        tau = (onset, m, end, m - 1.96 * error_m, m + 1.96 * error_m)
        tau += (onset - 1.96 * error_o, onset + 1.96 * error_o)
        points = [math.expm1(min(max(x, 0.0), 60.0)) for x in tau]
        rows.append(
            Transition(
                *(points[0], points[1], points[2], points[3], points[4], points[5], points[6]),
                h,
                math.sqrt(max(C[2, 2], 0.0)),
                fits[i].bic - fits[i + 1].bic,
            )
        )
    return tuple(sorted(rows, key=lambda x: x.midpoint))


def _covariance(blocks: LogBlocks, fit: Fit) -> np.ndarray:
    """Covariance of all parameters: least squares, widened for correlated residuals."""
    w = np.sqrt(blocks.counts.double().numpy())
    J = w[:, None] * fit.jacobian
    r = w * (blocks.values.numpy() - fit.fitted)
    scale = float(r @ r) / max(len(r) - J.shape[1], 1)
    rho = float(np.clip(r[1:] @ r[:-1] / max(float(r @ r), 1e-300), 0.0, 0.9))
    lengths = np.maximum(np.linalg.norm(J, axis=0), 1e-300)
    inverse = np.linalg.pinv((J / lengths).T @ (J / lengths), rcond=1e-12)
    return scale * (1 + rho) / (1 - rho) * inverse / np.outer(lengths, lengths)
