"""Which neurons compute which frequency, and how purely.

Letters: i, j places of the operands, n places of a group; m neurons, k frequencies.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from phasescope.analysis.grokking.basis import FourierBasis, check_axes

PURE = 0.85  # Nanda et al.'s threshold
NEURONS_AT_ONCE = 64  # their values fit the cache: 6.5 MB at n = 113


@dataclass(frozen=True, eq=False)
class NeuronPurity:
    """Share of every neuron's variance over pairs that single frequencies hold."""

    shares: Float64[Tensor, "k m"]
    """Share of frequencies 1, 2, ... in row k − 1; NaN for constant neurons."""
    sum_shares: Float64[Tensor, "k m"]
    """The part of `shares` that is a wave in i + j, of the two such waves of a frequency."""

    @functools.cached_property
    def alive(self) -> Bool[Tensor, " m"]:
        """Neurons that vary over the pairs; the others have no frequency."""
        return self.shares[0].isfinite()

    @functools.cached_property
    def frequency(self) -> Int64[Tensor, " m"]:
        """Best frequency of every neuron; −1 for constant ones."""
        best = self.shares.nan_to_num(0.0).argmax(0) + 1
        return torch.where(self.alive, best, -1)

    @functools.cached_property
    def fve(self) -> Float64[Tensor, " m"]:
        """Share of its best frequency for every neuron; NaN for constant ones."""
        return self.shares.amax(0)

    @property
    def n_constant(self) -> int:
        """Number of neurons that do not vary over the pairs."""
        return int((~self.alive).sum())

    def clusters(self, threshold: float = PURE) -> Int64[Tensor, " m"]:
        """Frequency of every neuron whose best share exceeds a threshold; −1 for the others.

        Args:
            threshold: Share of the variance.
        """
        return torch.where(self.fve.nan_to_num(0.0) > threshold, self.frequency, -1)

    def counts(self, threshold: float = PURE) -> dict[int, int]:
        """Number of pure neurons of every frequency that has some.

        Args:
            threshold: Share of the variance.
        """
        clusters = self.clusters(threshold)
        found, counts = clusters[clusters > 0].unique(return_counts=True)
        return dict(zip(found.tolist(), counts.tolist(), strict=True))

    def n_pure(self, threshold: float = PURE) -> int:
        """Number of neurons whose best share exceeds a threshold.

        Args:
            threshold: Share of the variance.
        """
        return int((self.clusters(threshold) > 0).sum())


def neuron_purity(basis: FourierBasis, activations: Float[Tensor, "n n m"]) -> NeuronPurity:
    r"""Share of every neuron's variance in each frequency's 3×3 block of the Fourier transform.

    With activations centred over the pairs and transformed along both operands, the block of
    frequency k is (constant, cos k, sin k) × (constant, cos k, sin k); a frequency that is its own
    conjugate has 2×2. All frequencies up to n/2 are looked at. The blocks have nothing in common
    but the mean, which is taken out, so the shares of a neuron sum to at most 1.

    Neurons that are constant up to rounding, such as dead ones, have no frequency: NaN and −1.

    Args:
        basis: Basis of the group.
        activations: Of every pair, in the order of the places (`Coordinates.on_pairs`), before or
            behind the nonlinearity.

    Returns:
        Shares by frequency and neuron.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((7,))
        >>> purity = neuron_purity(basis, basis.rows[3][basis.sums][..., None])
        >>> purity.frequency.tolist(), purity.n_pure()
        ([2], 1)

    References:
        Nanda et al. (2023), arXiv:2301.05217, section 4.3 and appendix C.3.
    """
    check_axes(basis, activations, 2)
    partners = _partners(basis)
    parts = activations.split(NEURONS_AT_ONCE, dim=2)
    chunks = [_shares(basis, partners, part) for part in parts]
    shares, in_sum = (torch.cat(parts, 1) for parts in zip(*chunks, strict=True))
    return NeuronPurity(shares, in_sum)


def _shares(basis: FourierBasis, partners: Tensor, activations: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of some neurons in every frequency, and the part of them in waves of i + j."""
    n = len(basis)
    eps = torch.finfo(activations.dtype).eps
    values = activations.to(torch.float64, memory_format=torch.contiguous_format)
    floor = (16 * eps) ** 2 * values.square().sum((0, 1))
    values = values - values.mean((0, 1))
    total = values.square().sum((0, 1))
    rows = basis.rows[1:].to(values.device)
    frequency = (basis.frequency[1:] - 1).to(values.device)
    partners = partners.to(values.device)  # [n - 1, 2]: rows of the same frequency
    # What depends on one operand alone: the constant of the other one times cosine and sine.
    single = (rows @ values.sum(0)).square() + (rows @ values.sum(1)).square()
    half = (rows @ values.flatten(1)).unflatten(1, values.shape[1:])
    # [f, 2, m]: the row's transform along j into the cosine and the sine of its frequency.
    pairs = torch.bmm(torch.where(partners[..., None] >= 0, rows[partners], 0.0), half)
    power = total.new_zeros(basis.n_frequencies, len(total))
    power.index_add_(0, frequency, single / n + pairs.square().sum(1))
    is_sine = torch.zeros(n - 1, dtype=torch.bool, device=values.device)
    is_sine[1:] = frequency[1:] == frequency[:-1]
    signs = torch.where(is_sine, -1.0, 1.0)[:, None]
    # cos cos − sin sin and cos sin + sin cos, over √2 where there is a sine at all.
    cosine_part = power.new_zeros(power.shape).index_add_(
        0, frequency, signs * torch.where(is_sine[:, None], pairs[:, 1], pairs[:, 0])
    )
    sine_part = power.new_zeros(power.shape).index_add_(
        0, frequency, torch.where(is_sine[:, None], pairs[:, 0], pairs[:, 1])
    )
    n_waves = torch.bincount(frequency)[:, None]
    in_sum = (cosine_part.square() + sine_part.square()) / n_waves
    scale = torch.where(total > floor, total, torch.nan)
    return power / scale, in_sum / scale


def _partners(basis: FourierBasis) -> Int64[Tensor, "f 2"]:
    """Rows of the frequency of every row but the constant, less one; −1 where there is no sine."""
    rows = torch.arange(len(basis) - 1)
    frequency = torch.cat([torch.tensor([0]), basis.frequency[1:], torch.tensor([0])])
    before, own, after = frequency[:-2], frequency[1:-1], frequency[2:]
    cosine = torch.where(before == own, rows - 1, rows)
    sine = torch.where(before == own, rows, torch.where(after == own, rows + 1, -1))
    return torch.stack([cosine, sine], 1)
