"""Attention of grokked networks: patterns as waves in the operands, and spectra of its circuits.

Letters: i, j places of the operands, n of each; h heads, d d_model, e d_head; k frequencies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from phasescope.analysis.grokking.basis import FourierBasis, check_axes, fourier_components


@dataclass(frozen=True, eq=False)
class PatternFit:
    """Attention to one operand as a wave in the difference of the operands' cosines and sines."""

    frequency: Int64[Tensor, " h"]
    """Frequency that explains most of each head's pattern."""
    fve: Float64[Tensor, " h"]
    """Share of the pattern's variance over pairs that it explains; NaN for a constant pattern."""
    intercept: Float64[Tensor, " h"]
    """Mean attention: one half if it is shared by the two operands."""
    cosine: Float64[Tensor, " h"]
    """Factor of cos(w i) − cos(w j)."""
    sine: Float64[Tensor, " h"]
    """Factor of sin(w i) − sin(w j)."""
    fve_by_frequency: Float64[Tensor, "k h"]
    """The same share for every frequency from 1 up, in row k − 1."""


def fit_patterns(basis: FourierBasis, patterns: Float[Tensor, "n n h"]) -> PatternFit:
    r"""Attention fitted by the difference of the operands' cosines, and of their sines.

    Least squares fit of
    $\beta_0 + \beta_1(\cos w_k i - \cos w_k j) + \beta_2(\sin w_k i - \sin w_k j)$
    for every head and every frequency; the best frequency of each head is reported beside all.

    Args:
        basis: Basis of the group.
        patterns: Attention of the last position to the left operand, for every pair in the order
            of the places.

    Returns:
        Best frequencies, shares of the variance and coefficients.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((5,))
        >>> wave = 5**0.5 * basis.rows[1]
        >>> fit = fit_patterns(basis, (0.5 + 0.1 * (wave[:, None] - wave))[..., None])
        >>> fit.frequency.tolist(), round(fit.fve.item(), 6), round(fit.intercept.item(), 6)
        ([1], 1.0, 0.5)

    References:
        Nanda et al. (2023), arXiv:2301.05217, section 4.2 and table 2.
    """
    check_axes(basis, patterns, 2)
    n = len(basis)
    values = patterns.double()
    mean = values.mean((0, 1))
    variance = (values - mean).square().sum((0, 1))
    # Inner products with the rows of i and of j; each difference has the squared norm 2n.
    left = fourier_components(basis, values.sum(1))
    right = fourier_components(basis, values.sum(0))
    products = (left - right)[1:]
    frequency = basis.frequency[1:].to(values.device)
    explained = torch.zeros(basis.n_frequencies, values.shape[2], dtype=torch.float64)
    explained = explained.to(values.device).index_add_(
        0, frequency - 1, products.square() / (2 * n)
    )
    floor = torch.finfo(torch.float64).eps * values.square().sum((0, 1))
    shares = explained / torch.where(variance > floor, variance, torch.nan)
    best = shares.nan_to_num(0.0).argmax(0) + 1
    cosine = torch.zeros_like(mean)
    sine = torch.zeros_like(mean)
    for head, k in enumerate(best.tolist()):
        rows = (frequency == k).nonzero().flatten()
        # A row is the wave over its norm, √(n/2), or √n where there is no sine.
        norm = (n / len(rows)) ** 0.5
        cosine[head] = products[rows[0], head] / (2 * n * norm)
        sine[head] = products[rows[1], head] / (2 * n * norm) if len(rows) > 1 else 0.0
    return PatternFit(best, shares.amax(0), mean, cosine, sine, shares)


def attention_components(
    basis: FourierBasis,
    W_E: Float[Tensor, "n d"],
    query: Float[Tensor, " d"],
    W_Q: Float[Tensor, "h d e"],
    W_K: Float[Tensor, "h d e"],
) -> Float64[Tensor, "n h"]:
    r"""Fourier components over tokens of the attention scores that "=" gives them.

    The components of $x W_K W_Q^T q$ along the tokens' embeddings x, before the division by
    $\sqrt{d_{head}}$ and without the positional part of the keys, which is the same for all tokens.

    Args:
        basis: Basis of the group.
        W_E: Embeddings in the order of the places.
        query: Residual stream of the last position: ``W_E["="] + W_pos[2]``.
        W_Q: Query weights in TransformerLens's layout.
        W_K: Key weights.

    Returns:
        One component for every row of the basis and every head.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((5,))
        >>> W_Q = W_K = torch.eye(2)[None]
        >>> attention_components(basis, basis.rows[1:3].T, torch.ones(2), W_Q, W_K)[1:3].shape
        torch.Size([2, 1])

    References:
        Nanda et al. (2023), arXiv:2301.05217, appendix C.1.
    """
    keys = torch.einsum(
        "hde,he->dh", W_K.double(), torch.einsum("d,hde->he", query.double(), W_Q.double())
    )
    return fourier_components(basis, W_E.double() @ keys)


def value_components(
    basis: FourierBasis,
    W_E: Float[Tensor, "n d"],
    W_V: Float[Tensor, "h d e"],
    W_O: Float[Tensor, "h e d"],
    W_in: Float[Tensor, "d m"],
) -> Float64[Tensor, "n h m"]:
    """Fourier components over tokens of what every head passes on to every neuron.

    The transform of W_E W_V W_O W_in along the tokens.

    Args:
        basis: Basis of the group.
        W_E: Embeddings in the order of the places.
        W_V: Value weights in TransformerLens's layout.
        W_O: Output weights.
        W_in: Input weights of the neurons.

    Returns:
        One component for every row of the basis, head and neuron.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((5,))
        >>> one = torch.eye(2).double()
        >>> passed = value_components(basis, basis.rows[1:3].T, one[None], one[None], one)
        >>> torch.allclose(passed[1:3, 0], one)
        True
    """
    inner = torch.einsum("hde,hef,fm->hdm", W_V.double(), W_O.double(), W_in.double())
    return fourier_components(basis, torch.einsum("nd,hdm->nhm", W_E.double(), inner))
