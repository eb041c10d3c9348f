"""Which components are detected, and how far their vectors can be trusted.

Letters: T steps (rows), P parameters (columns), k = min(T, P) components.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from phasescope.analysis.edges import degrees_of_freedom, edge_p_values, noise_scale
from phasescope.analysis.spectrum import Spectrum


@dataclass(frozen=True, eq=False)
class LocatedComponents:
    """Signal strength and expected overlaps of every component, under noise of equal variance."""

    strength: Float64[Tensor, " k"]
    """Singular value of the signal without noise, in units of the noise of a row,
    $y = \\theta / (\\sigma \\sqrt{P})$; 0 for components that noise alone would make."""
    time_overlap: Float64[Tensor, " k"]
    """Expected squared cosine between the time vector and the signal's."""
    parameter_overlap: Float64[Tensor, " k"]
    """Expected squared cosine between the parameter vector and the signal's."""
    p: Float64[Tensor, " k"]
    """Probability that noise alone has a largest value as large, see `edge_p_values`."""
    sigma: float
    """Standard deviation of the noise of an entry that was used."""
    level: float
    """Components with a smaller p are detected."""

    @property
    def detected(self) -> Bool[Tensor, " k"]:
        """Components beyond what noise reaches: their time profiles mean something."""
        return (self.strength > 0) & (self.p < self.level)

    @property
    def located(self) -> Bool[Tensor, " k"]:
        """Detected components with y > 1: at least half of their parameter vector is signal."""
        return self.detected & (self.strength > 1)

    @property
    def n_detected(self) -> int:
        """Number of detected components."""
        return int(self.detected.sum())

    @property
    def n_located(self) -> int:
        """Number of located components."""
        return int(self.located.sum())


def located_components(
    spectrum: Spectrum, sigma: float | int | None = None, *, level: float = 0.05
) -> LocatedComponents:
    r"""How strong each component's signal is, and how much of its vectors is that signal.

    For a signal $\theta\, u v^\top$ in noise of variance $\sigma^2$, with $\beta = T/P$ and
    $y = \theta / (\sigma\sqrt{P})$, the singular value tends to
    $\sigma\sqrt{P} \sqrt{(1 + y^2)(\beta + y^2)} / y$ if $y > \beta^{1/4}$, and otherwise stays in
    the noise. The squared overlap of the time vector is
    $1 - \beta(1 + y^2) / (y^2 (y^2 + \beta))$, that of the parameter vector
    $1 - (\beta + y^2) / (y^2 (1 + y^2))$. Here the singular values are solved for y.

    With many more parameters than steps a component is detected long before it is located: its
    time profile is right while its parameter vector is mostly noise. Report both counts.

    It holds for noise of equal variance, few components (it is off for ten in a thousand) and a
    known scale. With unequal variances or norms it finds tens of components in pure noise: take the
    spectrum of `whitened_gram`, with ``sigma=1``, there. The largest value of noise fluctuates
    around the edge and lies beyond it in one case of six, so that being beyond alone says little:
    a component is detected if its p (Tracy–Widom) is below the level.

    Args:
        spectrum: From `spectrum`. T - 1 steps if the mean over steps was subtracted.
        sigma: Standard deviation of the noise of an entry; by default `noise_scale`.
        level: Probability of detecting a component in noise.

    Returns:
        Strengths, overlaps and p-values.

    Raises:
        ValueError: `sigma` is not positive, `level` is no probability, there are fewer than two
            steps or parameters, or the noise cannot be estimated.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> from phasescope.analysis.spectrum import spectrum
        >>> generator = torch.Generator().manual_seed(0)
        >>> A = torch.randn(100, 10_000, generator=generator)
        >>> A[:, 0] += 10 * torch.randn(100, generator=generator)  # y near 1
        >>> found = located_components(spectrum(gram(A)), 1.0)
        >>> found.n_detected, bool(found.time_overlap[0] > 0.9)
        (1, True)

    References:
        Benaych-Georges & Nadakuditi (2012), "The singular values and vectors of low rank
        perturbations of large rectangular random matrices", J. Multivariate Anal. 111, section 3.1.
        Landau, Mel & Ganguli (2023), arXiv:2306.00340 (where the formulas cease to hold).
    """
    if sigma is None:
        sigma = noise_scale(spectrum)
    if not 0 < level < 1:
        raise ValueError(f"level must be a probability such as .05, but {level} arrived.")
    p = edge_p_values(spectrum, sigma)
    T, P = degrees_of_freedom(spectrum)
    # The formulas take the row length as the unit, whichever dimension is the larger.
    beta = T / P
    x = (spectrum.S / sigma) ** 2 / P
    excess = x - 1 - beta
    square = (excess + (excess**2 - 4 * beta).clamp(min=0).sqrt()) / 2
    beyond = x > (1 + math.sqrt(beta)) ** 2
    y2 = torch.where(beyond, square, 1.0)
    time = 1 - beta * (1 + y2) / (y2 * (y2 + beta))
    parameter = 1 - (beta + y2) / (y2 * (1 + y2))

    def where_beyond(values: Tensor) -> Tensor:
        return torch.where(beyond, values.clamp(0, 1), 0.0)

    strength = torch.where(beyond, y2.sqrt(), 0.0)
    return LocatedComponents(
        strength, where_beyond(time), where_beyond(parameter), p, float(sigma), level
    )
