"""Low-rank matrices to be learned, one per seed.

Axes: seed, rows and columns (both of length d), rank.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_TARGETS = 0  # the random stream of targets; initial values draw from others


@dataclass(frozen=True, eq=False)
class LowRankTargets:
    """The matrices C = A Bᵀ of several seeds; column j of A and of B is component j.

    Example:
        >>> targets = low_rank_targets([0, 1, 2], d=6, rank=2)
        >>> tuple(targets.matrices.shape)
        (3, 6, 6)
        >>> torch.allclose(targets.matrices, targets.A @ targets.B.mT)
        True
        >>> U, S, Vh = targets.svd
        >>> torch.allclose(U @ torch.diag_embed(S) @ Vh, targets.matrices, atol=1e-6)
        True
    """

    A: Float[Tensor, "seed rows rank"]
    """Left factors."""
    B: Float[Tensor, "seed columns rank"]
    """Right factors."""

    @property
    def matrices(self) -> Float[Tensor, "seed rows columns"]:
        """The targets C = A Bᵀ."""
        return self.A @ self.B.mT

    @functools.cached_property
    def svd(
        self,
    ) -> tuple[
        Float[Tensor, "seed rows rank"],
        Float[Tensor, "seed rank"],
        Float[Tensor, "seed rank columns"],
    ]:
        """Thin singular value decomposition U, S, Vh with as many values as the rank."""
        # Of the small product R_A R_Bᵀ, in float64: a d x d one would cost d / rank times as much.
        Q_A, R_A = torch.linalg.qr(self.A.double())
        Q_B, R_B = torch.linalg.qr(self.B.double())
        U, S, Vh = torch.linalg.svd(R_A @ R_B.mT)
        return (
            (Q_A @ U).to(self.A.dtype),
            S.to(self.A.dtype),
            (Vh @ Q_B.mT).to(self.A.dtype),
        )

    def to(self, device: torch.device | str, dtype: torch.dtype) -> LowRankTargets:
        """The same targets on another device and in another precision."""
        return LowRankTargets(self.A.to(device, dtype), self.B.to(device, dtype))


def low_rank_targets(
    seeds: Sequence[int], *, d: int, rank: int, scale: float = 1.0
) -> LowRankTargets:
    r"""Random targets: every entry of A and B is drawn from $N(0, \mathrm{scale}^2 / d)$.

    With scale 1 the columns of A and B have length about 1 and C has about `rank` singular values
    near 1; scale $\sqrt d$ gives entries $N(0, 1)$. A seed gives the same target whatever other
    seeds there are; another rank gives other columns throughout.

    Args:
        seeds: One target each.
        d: Rows and columns.
        rank: Columns of A and B, between 1 and d.
        scale: Length of a column of A or B, about.

    Returns:
        The targets, in float64 on the CPU.

    Raises:
        ValueError: There is no seed, the rank is not between 1 and d, or the scale not positive.

    Example:
        >>> pair = low_rank_targets([4, 7], d=5, rank=1)
        >>> torch.equal(pair.A[1], low_rank_targets([7], d=5, rank=1).A[0])
        True
    """
    if not seeds:
        raise ValueError("at least one seed is needed, but there is none. Pass seeds=[0, 1, ...].")
    if not 1 <= rank <= d:
        raise ValueError(
            f"the rank of a {d} x {d} target must be between 1 and {d}, but it is {rank}."
        )
    if not scale > 0:
        raise ValueError(f"scale must be positive, but it is {scale}.")
    drawn = [
        np.random.default_rng([seed, _TARGETS]).standard_normal((2, d, rank)) for seed in seeds
    ]
    factors = torch.from_numpy(np.stack(drawn)) * (scale / d**0.5)
    return LowRankTargets(factors[:, 0].contiguous(), factors[:, 1].contiguous())
