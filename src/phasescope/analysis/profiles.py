"""When a component acts: time profiles beside those of permuted steps.

Letters: T steps, n components, R permutations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from phasescope.analysis.p_values import two_sided_p
from phasescope.analysis.spectrum import Spectrum, check_resolved, check_time_vectors

_FEWEST_STEPS = 4
# Permuted energies held at once: 32 MB.
_ENTRIES = 4_000_000


@dataclass(frozen=True, eq=False)
class ProfileStatistic:
    """One statistic of every component's time profile, beside its permutation null."""

    observed: Float64[Tensor, " n"]
    """Of the recorded order of steps."""
    null_mean: Float64[Tensor, " n"]
    """Mean over the permutations."""
    null_sd: Float64[Tensor, " n"]
    """Standard deviation over the permutations."""
    p: Float64[Tensor, " n"]
    """Two-sided permutation p-value, at least 2 / (R + 1)."""

    @property
    def z(self) -> Float64[Tensor, " n"]:
        """Standard deviations between the observed value and the mean of the null."""
        return (self.observed - self.null_mean) / self.null_sd


@dataclass(frozen=True, eq=False)
class TimeProfiles:
    """Where in time components have their energy, and whether that is more than chance."""

    groups: tuple[tuple[int, ...], ...]
    """Indices of the components, from 0; several in a group share one profile."""
    energy: Float64[Tensor, "n T"]
    """Share of each step in the energy of each profile; rows sum to one."""
    center: ProfileStatistic
    """Centre of mass, in steps."""
    spread: ProfileStatistic
    """Standard deviation around the centre of mass, in steps."""
    early: ProfileStatistic
    """Share of the energy in the first `share` of the steps."""
    late: ProfileStatistic
    """Share of the energy in the last `share` of the steps."""
    autocorrelation: ProfileStatistic
    """Correlation of the time vector with itself one row later, mean over a group; near 0 for
    noise, near 1 for a slow course."""
    share: float
    """Share of the steps that counts as early, and as late."""
    steps: Int64[Tensor, " T"]
    """Step of every row."""


def time_profiles(
    spectrum: Spectrum,
    groups: int | Sequence[Sequence[int]],
    *,
    share: float = 0.25,
    n_permutations: int = 999,
    seed: int = 0,
) -> TimeProfiles:
    r"""Centre of mass, spread, early and late mass of time vectors, against permuted steps.

    With $w_t$ the squared time vector (for a group, its mean over the group): $c = \sum_t t w_t$,
    spread $\sqrt{\sum_t (t - c)^2 w_t}$, masses $\sum w_t$ over the first and the last quarter, all
    in step values; and the lag-one autocorrelation $\sum_t v_t v_{t+1}$.

    The null permutes the steps: it keeps the whole spectrum and all parameter directions and
    destroys the order in time. For a vector uniform on the sphere the centre of mass has mean
    $(T + 1)/2$ and standard deviation $\sqrt{(T^2 - 1)/(6(T + 2))} \approx \sqrt{T/6}$.

    Steps must be normalised. With unequal norms each component of pure noise sits on the loudest
    steps, so that norms which decay make every component early-heavy by construction; no
    permutation undoes that.

    Components with nearly equal singular values are arbitrary rotations of each other: name them as
    one group (`degenerate_groups` finds them). An order in time is no sign of training by itself:
    slow drift of a norm within a component shows, too.

    Args:
        spectrum: With time vectors.
        groups: How many of the first components, each by itself; or groups of component indices.
        share: What share of the steps counts as early, and as late.
        n_permutations: Permutations R.
        seed: Of the permutations.

    Returns:
        The profiles, and each statistic beside its null.

    Raises:
        ValueError: The spectrum is not of normalised steps, has no time vectors or fewer than four
            steps, a component is not resolved, a group is empty, or a number is out of range.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> from phasescope.analysis.spectrum import spectrum
        >>> A = torch.randn(40, 900, generator=torch.Generator().manual_seed(0))
        >>> A[:8, 0] += 60  # one parameter moves in the first eight steps
        >>> early = time_profiles(spectrum(gram(A), normalize=True), 1).early
        >>> round(float(early.observed[0]), 1), round(float(early.p[0]), 3)
        (1.0, 0.002)
    """
    check_time_vectors(spectrum)
    members = _check_groups(spectrum, groups, share, n_permutations)
    T = len(spectrum.steps)
    n_ends = max(1, round(share * T))
    generator = torch.Generator().manual_seed(seed)
    orders = torch.stack([torch.randperm(T, generator=generator) for _ in range(n_permutations)])
    energies, rows = [], []
    for group in members:
        V = spectrum.time_vectors[:, list(group)]
        batch = max(1, _ENTRIES // V.numel())
        null = [_statistics(V[chosen], spectrum.steps, n_ends) for chosen in orders.split(batch)]
        energies.append(_energy(V[None])[0])
        rows.append((_statistics(V[None], spectrum.steps, n_ends)[:, 0], torch.cat(null, 1)))
    observed = torch.stack([row[0] for row in rows])
    nulls = torch.stack([row[1] for row in rows])
    center, spread, early, late, lag = (
        _beside_null(observed[:, i], nulls[:, i]) for i in range(observed.shape[1])
    )
    energy = torch.stack(energies)
    return TimeProfiles(
        members, energy, center, spread, early, late, lag, share, spectrum.steps
    )  # fmt: skip


def degenerate_groups(spectrum: Spectrum, k: int, width: float) -> tuple[tuple[int, ...], ...]:
    r"""The first k components, those with nearly equal singular values together.

    Neighbours whose squared singular values differ by less than `width` times the larger one are in
    one group: noise rotates them into each other, so that only the group has a profile. A
    fluctuation of a squared value is a share of about $\sqrt{2/P_\text{eff}}$ of it; take a few.

    Args:
        spectrum: From `spectrum`.
        k: Number of components.
        width: Relative difference of squared values.

    Returns:
        Groups of component indices, for `time_profiles`.

    Raises:
        ValueError: k exceeds the resolved values, or the width is negative.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> from phasescope.analysis.spectrum import spectrum
        >>> degenerate_groups(spectrum(gram(torch.diag(torch.tensor([3.0, 2.0, 1.99])))), 3, 0.05)
        ((0,), (1, 2))
    """
    check_resolved(spectrum, k)
    if not width >= 0:
        raise ValueError(f"width must be a relative difference >= 0, but {width} arrived.")
    energies = spectrum.S[:k] ** 2
    groups = [[0]]
    for i in range(1, k):
        if float(energies[i - 1] - energies[i]) < width * float(energies[i - 1]):
            groups[-1].append(i)
        else:
            groups.append([i])
    return tuple(tuple(group) for group in groups)


def _energy(V: Float64[Tensor, "R T m"]) -> Float64[Tensor, "R T"]:
    energies = (V**2).sum(2)
    return energies / energies.sum(1, keepdim=True)


def _statistics(
    V: Float64[Tensor, "R T m"], steps: Int64[Tensor, " T"], n_ends: int
) -> Float64[Tensor, "5 R"]:
    """The five statistics of every profile."""
    w, t = _energy(V), steps.double()
    c = w @ t
    spread = ((t - c[:, None]) ** 2 * w).sum(1).sqrt()
    lag = (V[:, :-1] * V[:, 1:]).sum((1, 2)) / (V**2).sum((1, 2))
    return torch.stack([c, spread, w[:, :n_ends].sum(1), w[:, -n_ends:].sum(1), lag])


def _beside_null(observed: Float64[Tensor, " n"], null: Float64[Tensor, "n R"]) -> ProfileStatistic:
    p = two_sided_p(observed, null)
    return ProfileStatistic(observed, null.mean(1), null.std(1), p)


def _check_groups(
    spectrum: Spectrum, groups: int | Sequence[Sequence[int]], share: float, n_permutations: int
) -> tuple[tuple[int, ...], ...]:
    if not spectrum.normalize:
        raise ValueError(
            "a time profile needs a spectrum of normalised steps, but this one was computed with "
            "normalize=False: its components sit where the norms are large, structure or not. "
            "Compute it with normalize=True."
        )
    if len(spectrum.steps) < _FEWEST_STEPS:
        raise ValueError(
            f"a time profile needs at least {_FEWEST_STEPS} steps, but the spectrum has "
            f"{len(spectrum.steps)}. Record or select more of them."
        )
    if not 0 < share <= 0.5 or n_permutations < 19:
        raise ValueError(
            "share must lie in (0, .5] and n_permutations be at least 19 (level .1, two-sided), "
            f"but share={share} and n_permutations={n_permutations} arrived."
        )
    members = groups
    if isinstance(members, int):
        check_resolved(spectrum, members)
        members = [(i,) for i in range(members)]
    chosen = tuple(tuple(group) for group in members)
    if not chosen or not all(chosen) or min(min(group) for group in chosen) < 0:
        raise ValueError(
            "groups must be a number of components or non-empty groups of their indices from 0, "
            f"but {groups} arrived."
        )
    check_resolved(spectrum, max(max(group) for group in chosen) + 1)
    return chosen
