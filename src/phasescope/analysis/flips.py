"""How many components of a trajectory stand above random signs: the FlipPA rank test.

Letters: T steps (rows), P parameters (columns), k = min(T, P) singular values, R surrogates,
q directions in time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from phasescope.analysis.columns import StepMatrix, source
from phasescope.analysis.gram import Gram
from phasescope.analysis.selection import Steps, select_steps
from phasescope.analysis.spectrum import (
    Center,
    Spectrum,
    check_center,
    check_not_constant,
    spectrum,
    subtract_parameter_means,
)
from phasescope.analysis.surrogates import Residual, gram_passes
from phasescope.analysis.variances import equalizing_factors

Rule = Literal["edge", "pairwise"]
_FEWEST_STEPS = 4
_SOLVER_STEPS = 200


@dataclass(frozen=True, eq=False)
class FlipRankTest:
    """Components above the singular values of sign-flipped copies."""

    rank: int
    """Number of components that stand above; a lower bound unless `converged`."""
    first_rank: int
    """The same before anything was deflated. Correlated noise has no floor at which deflation ends:
    its `rank` runs towards the number of steps, and this is the count to report."""
    observed: Float64[Tensor, " k"]
    """Singular values of the data, descending."""
    thresholds: Float64[Tensor, " k"]
    """What each of them was last compared with: it counts if it is larger."""
    S: Float64[Tensor, " k"]
    """Median over the surrogates of each singular value, before anything was deflated."""
    surrogates: Float64[Tensor, "R k"]
    """Singular values of every surrogate, before anything was deflated."""
    residual_surrogates: Float64[Tensor, "R k"]
    """The same in the last round; its first value belongs to index `n_deflated` of `observed`."""
    n_deflated: int
    """Components that the last round had removed before flipping."""
    deflated_mean: bool
    """Whether the mean over steps had been removed before flipping, too."""
    converged: bool
    """Whether the last round found nothing more; False if the rounds ran out."""
    rule: Rule
    """How values and surrogates were compared."""
    level: float
    """Nominal probability of finding a component in noise, $(R - m + 1) / (R + 1)$ if the
    threshold is the m-th smallest surrogate."""
    steps: Int64[Tensor, " T"]
    """Step of every row."""
    center: Center
    """What was subtracted."""
    normalize: bool
    """Whether rows had unit norm before centring over steps."""
    equalize: bool
    """Whether every parameter was first divided by its root mean square."""
    n_columns: int
    """Number of parameters."""
    seed: int
    """Seed of the signs."""


def flip_rank_test(
    A: StepMatrix,
    *,
    center: Center = "none",
    normalize: bool = False,
    equalize: bool = False,
    steps: Steps | None = None,
    rule: Rule = "edge",
    n_surrogates: int = 19,
    quantile: float | int = 1.0,
    max_deflations: int = 10,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    memory: int = 400_000_000,
    device: torch.device | str | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> FlipRankTest:
    r"""Number of components above those of copies in which every entry has a random sign.

    Copies keep the size of every entry, and with it the scale of every step and every parameter,
    and destroy all correlation. They go through the same centring and normalising as the data. If
    the entries are independent and symmetric around zero, data and copies are exchangeable: at any
    size a component is then found with probability `level` at most.

    * "edge": a value counts if it exceeds the quantile of the surrogates' *largest* values.
      Preferred.
    * "pairwise": the i-th value is compared with the surrogates' i-th; the rank ends at the first
      that does not exceed it. More powerful, but after the first component its error is not
      controlled.

    Strong components inflate the copies, since flipping spreads their energy over the noise. So
    whatever was found is projected out in time, as is a mean over steps that the centring subtracts
    and that stands out in turn, and the residual is flipped; until nothing more is found. There the
    copies are projected like the residual, and their rows scaled to its norms. Where the noise is
    correlated, as that of minibatches is, every round finds more of it: the rounds run out
    (`converged` is False) at a rank near the number of steps that says nothing. Report
    `first_rank` there, the count before deflation, beside that of frozen weights.

    Normalise the steps unless you have a reason: with unequal norms the copies' edge is that of the
    loudest steps, and everything in the quieter ones is missed. The test says that there is linear
    structure, not that training made it: minibatch noise is correlated between parameters, and that
    counts as structure (compare with gradients at frozen weights). Parameters with skewed gradients
    break the symmetry.

    Equalise the parameters if the question is whether there is any structure at all: with unequal
    variances the edge is that of the loudest parameters, where a single one makes a component of
    its own, and what many quiet ones share is missed. A root mean square does not change under
    flips, so the level holds as before. It is then another matrix, in which quiet parameters weigh
    as much as loud ones: `observed` is no longer the spectrum of the trajectory.

    Args:
        A: Steps × parameters, as for `gram`.
        center: See `spectrum`.
        normalize: See `spectrum`.
        equalize: Divide every parameter by its root mean square over the steps (which are
            normalised before, if at all, and once more after), in two further readings.
        steps: Steps to use, by value (see `spectrum`).
        rule: "edge" or "pairwise".
        n_surrogates: Number of copies R. Each costs a little more than a Gram matrix.
        quantile: Share of the surrogates that the threshold is not below; 1 is their maximum. The
            level is 1 / (R + 1) then, hence .05 by default.
        max_deflations: Rounds of projecting out and flipping again; 0 for none. Each reads the
            matrix anew.
        seed: Seed of the signs.
        dtype: Of the products, as for `gram`.
        memory: Bytes for the buffers of a pass and the Gram matrices that it sums; a few T × T
            float64 matrices come on top. Copies that do not fit are made in further passes.
        device: Where the products run; by default where a tensor lies, else the CPU.
        progress: Called after every block with the round (from 0) and the fraction of it done.

    Returns:
        The rank, thresholds and surrogate spectra, with the settings they belong to.

    Raises:
        TypeError: The values are not real floating point numbers.
        ValueError: As for `gram` and `spectrum`; there are fewer than four steps, nothing is left
            after centring, or the quantile or a number is out of range.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> noise = torch.randn(20, 500, generator=generator)
        >>> signal = torch.outer(torch.ones(20), torch.randn(500, generator=generator))
        >>> flip_rank_test(noise).rank, flip_rank_test(noise + signal).rank
        (0, 1)

    References:
        Hong, Sheng & Dobriban (2020), "Selecting the number of components in PCA via random
        signflips", arXiv:2012.02985 (edge and pairwise comparison, theorem on type-I error).
        Dobriban & Owen (2019), "Deterministic parallel analysis", JRSS B 81, section 5 (deflation).
    """
    order = _check_options(center, rule, n_surrogates, quantile, max_deflations)
    matrix = source(A, device, dtype)
    rows = select_steps(matrix.steps, steps).sort().values
    if len(rows) < _FEWEST_STEPS:
        raise ValueError(
            f"a rank test needs at least {_FEWEST_STEPS} steps, but {len(rows)} arrived. Record or "
            "select more of them."
        )

    equalizers = None
    if equalize:
        equalizers = equalizing_factors(matrix, rows, normalize=normalize, memory=memory)

    def grams(
        numbers: list[int | None], round_: int, residual: Residual | None = None
    ) -> Iterator[Gram]:
        def report(fraction: float) -> None:
            if progress is not None:
                progress(round_, fraction)

        return gram_passes(
            matrix, rows, numbers, seed=seed, memory=memory, residual=residual,
            factors=equalizers,
            progress=report,
        )  # fmt: skip

    numbers: list[int | None] = list(range(n_surrogates))
    passes = grams([None, *numbers], 0)
    data = next(passes)
    whole = spectrum(data, center=center, normalize=normalize)
    check_not_constant(whole)
    K = _prepared(data, whole)
    own_share, shares, spectra = _mean_share(K), [], []
    for copy in passes:
        found = spectrum(copy, center=center, normalize=normalize, time_vectors=False)
        spectra.append(found.S)
        shares.append(_mean_share(_prepared(copy, found)))
    surrogates = torch.stack(spectra)
    thresholds = _thresholds(surrogates, order, rule)
    rank = first_rank = _count(whole, thresholds, 0, rule)
    mean = center in ("steps", "both") and own_share > sorted(shares)[order - 1]
    residual_surrogates, deflated, converged = surrogates, 0, rank == 0 and not mean
    for round_ in range(1, max_deflations + 1):
        if converged or rank >= len(rows) - 2:
            break
        deflated = rank
        residual = _residual(data, whole, rank)
        W = residual.directions
        factors = _row_factors(K, W)
        spectra = [_matched(copy.K, factors, W) for copy in grams(numbers, round_, residual)]
        residual_surrogates = torch.stack(spectra)[:, : len(whole.S)]
        new = _thresholds(residual_surrogates, order, rule)
        thresholds = torch.cat([thresholds[:deflated], new[: len(new) - deflated]])
        rank = _count(whole, thresholds, deflated, rule)
        converged = rank == deflated
    deflated_mean = residual_surrogates is not surrogates and center in ("steps", "both")
    level = (n_surrogates - order + 1) / (n_surrogates + 1)
    return FlipRankTest(
        rank, first_rank, whole.S, thresholds, surrogates.quantile(0.5, dim=0), surrogates,
        residual_surrogates, deflated, deflated_mean, converged, rule, level, whole.steps, center,
        normalize, equalize, whole.n_columns, seed,
    )  # fmt: skip


def _prepared(gram: Gram, found: Spectrum) -> Float64[Tensor, "T T"]:
    """Inner products of the rows as they are before centring over steps."""
    K = subtract_parameter_means(gram, found.center)
    if not found.normalize:
        return K
    return K / found.centered_norms / found.centered_norms[:, None]


def _mean_share(K: Float64[Tensor, "T T"]) -> float:
    """Share of the energy that lies along the mean over steps."""
    return float(K.mean() / K.diagonal().mean())


def _residual(data: Gram, whole: Spectrum, n_components: int) -> Residual:
    """The rows without the leading components, and without their mean if it is subtracted."""
    T = len(whole.steps)
    directions = whole.time_vectors[:, :n_components]
    if whole.center in ("steps", "both"):
        ones = torch.full((T, 1), T**-0.5, dtype=torch.float64)
        directions = torch.cat([ones, directions], dim=1)
    scale = 1 / whole.centered_norms if whole.normalize else torch.ones_like(whole.norms)
    means = torch.zeros_like(scale)
    if whole.center in ("parameters", "both"):
        means = data.row_sums / data.n_columns
    return Residual(scale, means, directions)


def _row_factors(
    K: Float64[Tensor, "T T"], directions: Float64[Tensor, "T q"]
) -> Float64[Tensor, " T"]:
    """Factors of the rows of a flipped residual that give it, once projected, the data's norms.

    Flipping fills the removed directions again, so a copy is projected like the residual.
    """
    wanted = _projected(K, directions).diagonal()
    x = row_variances(K, directions)
    return (x / wanted.clamp(min=1e-14 * float(K.diagonal().max()))).sqrt()


def row_variances(
    K: Float64[Tensor, "T T"], directions: Float64[Tensor, "T q"]
) -> Float64[Tensor, " T"]:
    """Squared norms of the rows of noise that has, after projecting, the norms of the data.

    Noise whose rows have the squared norms x before projecting has (Q∘Q) x after it, with Q the
    projection: this is solved for x, in steps that keep it positive.

    Args:
        K: Inner products of the data's rows.
        directions: Orthonormal directions in time that are projected out.

    Returns:
        Squared norms x.

    Example:
        >>> K = torch.diag(torch.tensor([4.0, 1.0])).double()
        >>> row_variances(K, torch.zeros(2, 0).double())
        tensor([4., 1.], dtype=torch.float64)
    """
    T = len(K)
    Q = torch.eye(T, dtype=torch.float64) - directions @ directions.T
    wanted = _projected(K, directions).diagonal().clamp(min=1e-14 * float(K.diagonal().max()))
    x = wanted
    for _ in range(_SOLVER_STEPS):
        x = x * wanted / (Q**2 @ x)
    return x


def _matched(
    copy: Float64[Tensor, "T T"], factors: Float64[Tensor, " T"], directions: Float64[Tensor, "T q"]
) -> Float64[Tensor, " T"]:
    """Singular values of a flipped residual after scaling its rows and projecting it."""
    copy = _projected(copy * factors * factors[:, None], directions)
    return torch.linalg.eigvalsh((copy + copy.T) / 2).flip(0).clamp(min=0).sqrt()


def _projected(
    K: Float64[Tensor, "T T"], directions: Float64[Tensor, "T q"]
) -> Float64[Tensor, "T T"]:
    K = K - directions @ (directions.T @ K)
    return K - (K @ directions) @ directions.T


def _thresholds(
    surrogates: Float64[Tensor, "R k"], order: int, rule: Rule
) -> Float64[Tensor, " k"]:
    quantiles = surrogates.sort(0).values[order - 1]
    return quantiles if rule == "pairwise" else quantiles[:1].expand(len(quantiles))


def _count(whole: Spectrum, thresholds: Float64[Tensor, " k"], known: int, rule: Rule) -> int:
    """Values above their thresholds; those that are known already count."""
    above = thresholds.clamp(min=whole.resolution) < whole.S
    above[:known] = True
    return int(above.int().cumprod(0).sum()) if rule == "pairwise" else int(above.sum())


def _check_options(
    center: str, rule: str, n_surrogates: int, quantile: float | int, max_deflations: int
) -> int:
    """Which of the sorted surrogates is the threshold, counted from 1."""
    check_center(center)
    if rule not in get_args(Rule):
        raise ValueError(
            f"rule must be one of {get_args(Rule)}, but {rule!r} arrived. 'edge' compares with the "
            "surrogates' largest values, 'pairwise' with those of the same index."
        )
    if n_surrogates < 1 or max_deflations < 0:
        raise ValueError(
            "n_surrogates must be at least 1 and max_deflations at least 0, but "
            f"n_surrogates={n_surrogates} and max_deflations={max_deflations} arrived. 19 "
            "surrogates give level .05."
        )
    if not 0 < quantile <= 1:
        raise ValueError(
            f"quantile must be a share in (0, 1] of the surrogates, but {quantile} arrived. 1 "
            "takes their maximum."
        )
    return max(1, math.ceil(round(quantile * n_surrogates, 9)))
