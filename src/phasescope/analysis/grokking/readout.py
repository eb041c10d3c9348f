"""How neurons write frequencies into the logits, and how well the neurons can be read off.

Letters: i, j places of the operands, c of the results, n of each; m neurons, f rows of the basis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from phasescope.analysis.grokking.basis import FourierBasis, check_axes, fourier_components


@dataclass(frozen=True, eq=False)
class ReadOff:
    """How well each direction of W_L reads cos(w(a + b)) or sin(w(a + b)) off the neurons."""

    rows: Int64[Tensor, " f"]
    """Row of the basis of each direction."""
    fve: Float64[Tensor, " f"]
    """Share of the variance of what it reads, over pairs, that lies along its own wave in a + b."""
    fve_pair: Float64[Tensor, " f"]
    """The same for cosine and sine of its frequency together."""


@dataclass(frozen=True, eq=False)
class PairComponents:
    """Principal components of pairs' values about their mean."""

    S: Float64[Tensor, " c"]
    """All singular values, decreasing."""
    scores: Float64[Tensor, "n n q"]
    """Unit vectors over the pairs, of the leading components."""


def logit_map_residual(
    basis: FourierBasis, W_L: Float[Tensor, "m n"], keys: Sequence[int]
) -> float:
    """Norm of W_L outside the key frequencies, over its norm.

    Norms, not squares of norms. The mean over results is outside too: it moves no probability, but
    it is part of the norm.

    Args:
        basis: Basis of the group.
        W_L: Neuron-to-logit map W_out W_U, results in the order of the places.
        keys: The key frequencies.

    Returns:
        Between 0 and 1; "under .0055" in the source's main run.

    Raises:
        ValueError: A frequency does not exist.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((5,))
        >>> round(logit_map_residual(basis, 3 * basis.rows[1:2] + 4 * basis.rows[3:4], [1]), 6)
        0.8

    References:
        Nanda et al. (2023), arXiv:2301.05217, section 4.2.
    """
    components = fourier_components(basis, W_L.T)
    outside = components.clone()
    outside[basis.rows_of(keys).to(components.device)] = 0.0
    return (outside.norm() / components.norm()).item()


def read_off(
    basis: FourierBasis,
    activations: Float[Tensor, "n n m"],
    W_L: Float[Tensor, "m n"],
    keys: Sequence[int],
) -> ReadOff:
    """How well the directions of W_L read waves in a + b off the neurons.

    Args:
        basis: Basis of the group.
        activations: Behind the nonlinearity, in the order of the places.
        W_L: Neuron-to-logit map W_out W_U, results in the order of the places.
        keys: The key frequencies.

    Returns:
        Explained shares, two directions for every frequency.

    Raises:
        ValueError: A frequency does not exist.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((5,))
        >>> neurons = basis.rows[1:3].T[basis.sums]
        >>> [round(x, 6) + 0.0 for x in read_off(basis, neurons, basis.rows[1:3], [1]).fve.tolist()]
        [1.0, 1.0]

    References:
        Nanda et al. (2023), arXiv:2301.05217, section 4.3 and table 1.
    """
    check_axes(basis, activations, 2)
    rows = basis.rows_of(keys)
    directions = fourier_components(basis, W_L.T)[rows.to(W_L.device)]
    read = torch.einsum("ijm,fm->fij", activations.double(), directions)
    read = read - read.mean((1, 2), keepdim=True)
    waves = basis.rows[rows].to(read.device)[:, basis.sums.to(read.device)]
    waves = waves / len(basis) ** 0.5
    products = torch.einsum("fij,gij->fg", read, waves).square()
    same = basis.frequency[rows][:, None] == basis.frequency[rows]
    variance = read.square().sum((1, 2))
    pair = (products * same.to(products.device)).sum(1)
    return ReadOff(rows, products.diagonal() / variance, pair / variance)


def pair_components(values: Float[Tensor, "n n c"], n_components: int = 10) -> PairComponents:
    """Principal components of logits or activations over all pairs.

    Args:
        values: Logits or activations of every pair.
        n_components: How many scores; at most the number of columns.

    Returns:
        Singular values and scores; the Fourier content of a score follows from `direction_energy`
        and `neuron_purity`.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((5,))
        >>> found = pair_components(3 * basis.rows[1][basis.sums][..., None], 1)
        >>> round(found.S[0].item(), 4), found.scores.shape
        (6.7082, torch.Size([5, 5, 1]))
    """
    n, c = values.shape[0], values.shape[2]
    centred = values.double().flatten(0, 1)
    centred = centred - centred.mean(0)
    eigenvalues, vectors = torch.linalg.eigh(centred.T @ centred)
    S = eigenvalues.clamp(min=0).sqrt().flip(0)
    q = min(n_components, c)
    scores = centred @ vectors.flip(1)[:, :q]
    scores = scores / scores.norm(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
    return PairComponents(S, scores.unflatten(0, (n, n)))
