"""Which frequencies a network uses, by the rules of the literature, harmonics told apart.

Letters: n places of a group, f rows of its basis, k frequencies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from phasescope.analysis.grokking.basis import FourierBasis, component_norms
from phasescope.analysis.grokking.cubes import CubeFit
from phasescope.analysis.grokking.neurons import PURE, NeuronPurity

_ROUNDING = 1e-24  # share of the logits' energy; less is the rounding of their constant


@dataclass(frozen=True)
class KeyFrequencies:
    """The frequencies that one rule finds, and which of them are harmonics of others."""

    rule: str
    """Name of the rule."""
    threshold: float
    """Its threshold; what it means is the rule's."""
    found: tuple[int, ...]
    """All frequencies that satisfy the rule, increasing."""
    harmonics: tuple[int, ...]
    """Those that are twice a stronger one, folded."""

    @property
    def base(self) -> tuple[int, ...]:
        """The frequencies found that are no harmonics of others."""
        return tuple(k for k in self.found if k not in self.harmonics)


def keys_by_neuron_argmax(basis: FourierBasis, purity: NeuronPurity) -> KeyFrequencies:
    """Every frequency that is the best one of some neuron (rule R1, the released code's).

    Without a threshold on how good it is: weak neurons pollute it.

    Args:
        basis: Basis of the group.
        purity: Of the activations.

    Returns:
        The frequencies.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis, neuron_purity
        >>> basis = fourier_basis((7,))
        >>> purity = neuron_purity(basis, basis.rows[3][basis.sums][..., None])
        >>> keys_by_neuron_argmax(basis, purity).found
        (2,)
    """
    strength = torch.zeros(basis.n_frequencies + 1, dtype=torch.float64)
    counts = torch.bincount(purity.frequency[purity.alive].cpu(), minlength=len(strength))
    strength += counts
    return _keys(basis, "neuron_argmax", 0.0, counts.nonzero().flatten().tolist(), strength)


def keys_by_neuron_clusters(
    basis: FourierBasis, purity: NeuronPurity, *, threshold: float = PURE, min_share: float = 0.0
) -> KeyFrequencies:
    """Every frequency with neurons that it explains well (rule R2, recommended).

    Args:
        basis: Basis of the group.
        purity: Of the activations.
        threshold: Share of a neuron's variance above which it belongs to its best frequency.
        min_share: Least share of all neurons that a frequency must have; at 0, one neuron.

    Returns:
        The frequencies.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis, neuron_purity
        >>> basis = fourier_basis((7,))
        >>> purity = neuron_purity(basis, basis.rows[3][basis.sums][..., None])
        >>> keys_by_neuron_clusters(basis, purity).found
        (2,)
    """
    strength = torch.zeros(basis.n_frequencies + 1, dtype=torch.float64)
    for k, count in purity.counts(threshold).items():
        strength[k] = count
    least = max(1, min_share * purity.shares.shape[1])
    found = [k for k, count in enumerate(strength.tolist()) if count >= least]
    return _keys(basis, "neuron_clusters", threshold, found, strength)


def keys_by_norms(
    basis: FourierBasis,
    values: Float[Tensor, "n *rest"],
    *,
    rule: str = "norms",
    threshold: float = 0.25,
) -> KeyFrequencies:
    """Every frequency with a component whose norm exceeds a share of the largest.

    Of the neuron-to-logit map along the results this is rule R3 (Nanda et al., appendix C.2); of
    W_E it is rule R4 (TransformerLens's demonstration), which finds second harmonics as well: an
    embedding of cos(wa) squared by an activation has them. The constant is left out.

    Args:
        basis: Basis of the group.
        values: W_L transposed or W_E, in the order of the places.
        rule: What the result calls it, such as ``"W_L"``.
        threshold: Share of the largest norm.

    Returns:
        The frequencies.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((7,))
        >>> keys_by_norms(basis, basis.rows[1] + 0.3 * basis.rows[3]).found
        (1, 2)
    """
    norms = component_norms(basis, values).cpu()
    norms[0] = 0.0
    strength = torch.zeros(basis.n_frequencies + 1, dtype=torch.float64)
    strength = strength.scatter_reduce(0, basis.frequency, norms, "amax")
    found = (strength > threshold * strength.max()).nonzero().flatten().tolist()
    return _keys(basis, rule, threshold, found, strength)


def keys_by_similarity(
    basis: FourierBasis, fit: CubeFit, *, threshold: float = 0.005
) -> KeyFrequencies:
    """Every frequency whose cos(w(a + b − c)) is similar enough to the logits (rule R5).

    Chughtai et al.'s rule for irreducible representations, in a commutative group: .005 in the
    final network, .05 for the order in which frequencies are learned.

    Args:
        basis: Basis of the group.
        fit: From `cube_fit`, of logits from which the mean over results was taken, if the rule is
            to be literally theirs.
        threshold: Cosine similarity.

    Returns:
        The frequencies.

    Example:
        >>> from phasescope.analysis.grokking import cube_fit, fourier_basis
        >>> basis = fourier_basis((5,))
        >>> wave = basis.rows[1][basis.differences[basis.sums]]
        >>> keys_by_similarity(basis, cube_fit(basis, wave)).found
        (1,)
    """
    strength = fit.cosine_similarity.cpu().clone()
    strength[0] = 0.0
    found = (strength > threshold).nonzero().flatten().tolist()
    return _keys(basis, "similarity", threshold, found, strength)


def keys_by_energy(basis: FourierBasis, fit: CubeFit, *, threshold: float = 0.95) -> KeyFrequencies:
    """Fewest frequencies that hold a share of what all cos(w(a + b − c)) explain (rule R6).

    Args:
        basis: Basis of the group.
        fit: From `cube_fit`.
        threshold: Share of the explained energy.

    Returns:
        The frequencies.

    Example:
        >>> from phasescope.analysis.grokking import cube_fit, fourier_basis
        >>> basis = fourier_basis((5,))
        >>> wave = basis.rows[1][basis.differences[basis.sums]]
        >>> keys_by_energy(basis, cube_fit(basis, wave)).found
        (1,)
    """
    strength = fit.cosine_similarity.cpu().square()
    strength[0] = 0.0
    values, order = strength.sort(descending=True)
    reached = (values.cumsum(0) >= threshold * values.sum() * (1 - 1e-12)).nonzero()
    explains = values.sum().item() > _ROUNDING
    found = order[: int(reached[0]) + 1].tolist() if explains else []
    return _keys(basis, "energy", threshold, found, strength)


def _keys(
    basis: FourierBasis, rule: str, threshold: float, found: Iterable[int], strength: Tensor
) -> KeyFrequencies:
    found = tuple(sorted(found))
    harmonics = tuple(
        k
        for k in found
        if any(
            basis.multiple(other, 2) == k and bool(strength[k] < strength[other])
            for other in found
            if other != k
        )
    )
    return KeyFrequencies(rule, threshold, found, harmonics)
