"""How concentrated a spectrum is: Gini coefficient and inverse participation ratio."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from phasescope.analysis.grokking.basis import (
    FourierBasis,
    component_norms,
    frequency_power,
)


def gini(values: Float[Tensor, " m"]) -> float:
    r"""Gini coefficient of non-negative numbers: 0 if all are equal, near 1 if one has everything.

    $\sum_i (2i - m - 1)\,v_{(i)} / (m \sum_i v_i)$ over the values in ascending order, which is
    $\overline{|v_i - v_j|} / (2\bar v)$. Its largest value for m numbers is 1 − 1/m.

    Args:
        values: Non-negative numbers, any order.

    Returns:
        Dimensionless; NaN if all are zero.

    Raises:
        ValueError: A value is negative or not finite, or there are none.

    Example:
        >>> gini(torch.tensor([0.0, 0.0, 0.0, 1.0])), gini(torch.ones(4))
        (0.75, 0.0)
    """
    if (
        values.ndim != 1
        or not len(values)
        or not bool((values >= 0).all() & values.isfinite().all())
    ):
        raise ValueError(
            "the Gini coefficient is for one axis of finite, non-negative numbers, but the values "
            f"have the shape {tuple(values.shape)}"
            + (f" and the minimum {values.min().item():.3g}." if values.numel() else ".")
            + " Pass norms or powers."
        )
    v = values.double().sort().values
    m = len(v)
    ranks = torch.arange(1, m + 1, dtype=torch.float64, device=v.device)
    return ((2 * ranks - m - 1) @ v / (m * v.sum())).item()


def nanda_gini(basis: FourierBasis, values: Float[Tensor, "n *rest"]) -> float:
    """Gini coefficient of the n component norms: constant, cosines and sines all apart.

    The literal reading of Nanda et al. It calls a spectrum sparse that is flat over frequencies
    but has only sines; use `power_gini` for claims about frequencies.

    Args:
        basis: Basis of the group.
        values: Such as W_E in the order of the places.

    Returns:
        Between 0 and 1.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((7,))
        >>> round(nanda_gini(basis, basis.rows.T), 12), round(nanda_gini(basis, basis.rows[2]), 4)
        (0.0, 0.8571)

    References:
        Nanda et al. (2023), arXiv:2301.05217, section 5.1: "Gini coefficient of the norms of the
        Fourier components of W_E and W_L".
    """
    return gini(component_norms(basis, values))


def power_gini(basis: FourierBasis, values: Float[Tensor, "n *rest"]) -> float:
    """Gini coefficient of the power of the frequencies, the constant left out.

    Args:
        basis: Basis of the group.
        values: Such as W_E in the order of the places.

    Returns:
        Between 0 and 1.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((7,))
        >>> round(power_gini(basis, basis.rows[2]), 4)
        0.6667
    """
    power = frequency_power(basis, values)[1:]
    return gini(power.flatten(1).sum(1) if power.ndim > 1 else power)


def inverse_participation(
    basis: FourierBasis, values: Float[Tensor, "n m"], r: int = 2
) -> Float64[Tensor, " m"]:
    r"""Inverse participation ratio of every column's spectrum: 1 for a pure frequency.

    $\sum_k (|\hat u_k| / \lVert\hat u\rVert)^{2r}$ with $\hat u$ the characters k = 0 to ⌊n/2⌋, as
    `torch.fft.rfft` gives them for a cyclic group: every frequency counts once, so the constant and
    $(-1)^x$ count twice as much as in `frequency_power`.

    Args:
        basis: Basis of the group.
        values: One column for every neuron, in the order of the places.
        r: Half the exponent.

    Returns:
        Between about 2/n and 1 for every column; NaN for a column of zeros.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((9,))
        >>> round(inverse_participation(basis, basis.rows[1:2].T).item(), 6)
        1.0

    References:
        Gromov (2023), "Grokking modular arithmetic", arXiv:2301.02679, equation 10; Doshi et al.
        (2024), "To grok or not to grok", arXiv:2310.13061.
    """
    n_rows = torch.bincount(basis.frequency).to(values.device)
    power = frequency_power(basis, values) * (2.0 / n_rows)[:, None]
    shares = power / power.sum(0)
    return shares.pow(r).sum(0)
