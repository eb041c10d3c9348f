"""Training against resampling: gradients of a run beside gradients at frozen weights.

Letters: T steps, k singular values, D draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from phasescope.analysis.gram import Gram
from phasescope.analysis.p_values import two_sided_p
from phasescope.analysis.ranks import count_above, participation_ratio, stable_rank
from phasescope.analysis.selection import Steps, select_steps
from phasescope.analysis.spectrum import Center, Spectrum, check_not_constant, spectrum

Statistic = Callable[[Tensor], float | int]
STATISTICS: Mapping[str, Statistic] = {
    "count above 10%": count_above,
    "participation ratio": participation_ratio,
    "stable rank": stable_rank,
}
"""Statistics of singular values that `compare_with_frozen` takes by default."""


@dataclass(frozen=True, eq=False)
class FrozenComparison:
    """Statistics of a trajectory's singular values beside those at frozen weights."""

    observed: dict[str, float]
    """Each statistic of the trajectory."""
    null: dict[str, Float64[Tensor, " D"]]
    """Each statistic of every draw of frozen-weights gradients."""
    S: Float64[Tensor, " k"]
    """Median over the draws of each singular value."""
    steps: Int64[Tensor, " T"]
    """Steps of the trajectory."""
    center: Center
    """What was subtracted, from both."""
    normalize: bool
    """Whether rows had unit norm before centring over steps, in both."""
    norms_matched: bool
    """Whether the frozen gradients were given the norms of the trajectory's."""

    @property
    def excess(self) -> dict[str, float]:
        """Each statistic minus the median of its null: what training adds or takes."""
        return {name: v - float(self.null[name].quantile(0.5)) for name, v in self.observed.items()}

    @property
    def p(self) -> dict[str, float]:
        """Two-sided p-value of each statistic among the draws, at least 2 / (D + 1).

        Draws that share frozen gradients spread too little and make it too small: take twenty
        frozen gradients per step for a right one (of two, up to a fifth of all nulls fall below
        .05, of five up to a tenth).
        """
        return {
            name: float(two_sided_p(torch.tensor([v]).double(), self.null[name][None]))
            for name, v in self.observed.items()
        }


def compare_with_frozen(
    gram: Gram,
    frozen: Gram,
    *,
    center: Center = "none",
    normalize: bool = False,
    steps: Steps | None = None,
    match_norms: bool = True,
    statistics: Mapping[str, Statistic] = STATISTICS,
    n_draws: int = 20,
    seed: int = 0,
) -> FrozenComparison:
    """Statistics of a trajectory's gradients beside equally many gradients at frozen weights.

    Gradients of other batches at weights that do not move have the same data, batch size and
    correlations between parameters, and no training. Structure that both show is that of minibatch
    noise; only what exceeds the frozen gradients' is made by training. Compare at initialisation,
    in the middle and at the end, since the noise itself changes.

    Each draw takes as many frozen gradients as there are steps, at random and without replacement.
    Draws overlap, so that their spread is too small unless there are many more frozen gradients
    than steps: twenty times as many for p-values, twice as many for the median alone. With just as
    many there is one draw.

    Args:
        gram: Of the trajectory's gradients.
        frozen: Of gradients at frozen weights, see `training.frozen_gradients`: at least as many.
        center: See `spectrum`.
        normalize: See `spectrum`.
        steps: Steps of the trajectory, by value (see `spectrum`).
        match_norms: Scale the frozen gradients to the norms of the trajectory's, so that decaying
            norms are no difference. Without effect if normalised.
        statistics: Functions of the singular values, by name.
        n_draws: Draws of frozen gradients.
        seed: Of the draws.

    Returns:
        Statistics of both, and the frozen spectrum.

    Raises:
        ValueError: The two have different parameters, there are fewer frozen gradients than steps,
            one of them is zero, or the trajectory or the frozen gradients are constant.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> noise = torch.randn(60, 400, generator=torch.Generator().manual_seed(0))
        >>> trained = torch.cat([torch.ones(20, 1) * 20, noise[:20, 1:]], dim=1)
        >>> found = compare_with_frozen(gram(trained), gram(noise))
        >>> bool(found.excess["stable rank"] < -5)
        True
    """
    whole = spectrum(gram, center=center, normalize=normalize, steps=steps, time_vectors=False)
    check_not_constant(whole)
    T, n = len(whole.steps), len(frozen.K)
    if gram.n_columns != frozen.n_columns:
        raise ValueError(
            "both Gram matrices must be of the same parameters, but the trajectory has "
            f"{gram.n_columns} and the frozen gradients have {frozen.n_columns}. Sample them from "
            "the same model, or take the same component of both."
        )
    if n < T or n_draws < 1:
        raise ValueError(
            f"at least as many frozen gradients as the {T} steps and one draw are needed, but "
            f"{n} gradients and n_draws={n_draws} arrived. Sample more, or select fewer steps."
        )
    if not bool((frozen.K.diagonal() > 0).all()):
        raise ValueError(
            "every frozen gradient needs a norm above zero, but "
            f"{int((frozen.K.diagonal() <= 0).sum())} have none. Check the loss and the batches."
        )
    energies = frozen.K.diagonal()
    apart = energies + energies[0] - 2 * frozen.K[0]  # squared distance from the first
    rounding = 4 * (frozen.eps + 2 * torch.finfo(torch.float64).eps) * float(energies.max())
    if n > 1 and not float(apart.max()) > rounding:
        raise ValueError(
            f"the frozen gradients must differ, but all {n} are alike: a full batch, or one batch "
            "again and again, has no minibatch noise. Draw another batch for each."
        )
    generator = torch.Generator().manual_seed(seed)
    spectra = []
    for _ in range(1 if n == T else n_draws):
        rows = torch.randperm(n, generator=generator)[:T]
        norms = gram.K.diagonal()[select_steps(gram.steps, whole.steps)].sqrt()
        scale = norms / frozen.K.diagonal()[rows].sqrt() if match_norms else torch.ones_like(norms)
        K = frozen.K[rows[:, None], rows] * scale * scale[:, None]
        sums = frozen.row_sums[rows] * scale
        drawn = Gram(K, whole.steps, sums, frozen.n_columns, {}, frozen.eps)
        spectra.append(spectrum(drawn, center=center, normalize=normalize, time_vectors=False).S)
    observed = {name: float(statistic(whole.S)) for name, statistic in statistics.items()}
    null = {
        name: torch.tensor([float(statistic(S)) for S in spectra], dtype=torch.float64)
        for name, statistic in statistics.items()
    }
    median = torch.stack(spectra).quantile(0.5, dim=0)
    return FrozenComparison(observed, null, median, whole.steps, center, normalize, match_norms)


def effective_dimension(spectrum: Spectrum) -> float:
    r"""Dimension of isotropic noise that is as correlated between parameters as these rows are.

    $(\operatorname{tr} \Sigma)^2 / \operatorname{tr} \Sigma^2$ of the covariance $\Sigma$ of the
    parameters, for independent rows of one distribution: gradients at frozen weights, say. From the
    participation ratio PR of n degrees of freedom (n = T, or T - 1 if centred over steps):
    $1 / d = \frac{n^2}{(n + 2)(n - 1)} (1/\mathrm{PR} - 1/n)$, unbiased in $\operatorname{tr}
    \Sigma^2$ for normal rows. The full covariance counts, not its diagonal alone: on a small
    network 162 where the diagonal says 7185.

    Rows that are not independent (steps of a training), or not centred although they have a mean,
    give something else.

    Args:
        spectrum: Of independent rows, usually centred over steps.

    Returns:
        Dimensionless; infinite if the rows are no more correlated than independent ones.

    Raises:
        ValueError: There are fewer than three steps, or they are constant.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> from phasescope.analysis.spectrum import spectrum
        >>> A = torch.randn(200, 50, generator=torch.Generator().manual_seed(0))
        >>> round(effective_dimension(spectrum(gram(A), center="steps")))
        50

    References:
        Bai & Saranadasa (1996), "Effect of high dimension: by an example of a two sample problem",
        Statistica Sinica 6, eq. (3.4).
    """
    n = len(spectrum.steps) - (spectrum.center in ("steps", "both"))
    if n < 2:
        raise ValueError(
            "an effective dimension needs at least three steps (two if not centred), but "
            f"{len(spectrum.steps)} arrived."
        )
    check_not_constant(spectrum)
    energies = spectrum.S**2
    inverse = float((energies**2).sum() / energies.sum() ** 2)
    excess = n**2 / ((n + 2) * (n - 1)) * (inverse - 1 / n)
    return 1 / excess if excess > 0 else math.inf
