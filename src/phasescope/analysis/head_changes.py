"""Changes of attention heads that do not depend on the basis inside the head.

Letters: n heads, T checkpoints, d width of the model, h width of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from phasescope.analysis.columns import StepMatrix, source
from phasescope.components.factors import HeadFactors


def product_norm(
    A: Float[Tensor, "*batch d h"], B: Float[Tensor, "*batch e h"]
) -> Float64[Tensor, "*batch"]:
    r"""Frobenius norm of $A B^\top$, from factors of h columns, in O((d + e) h²).

    The d × e product is not formed: with $A = Q_A R_A$, $B = Q_B R_B$ it is $\|R_A R_B^\top\|$.

    Args:
        A: Left factor.
        B: Right factor.

    Returns:
        The norm in float64.

    Example:
        >>> product_norm(torch.tensor([[3.0], [0.0]]), torch.tensor([[0.0], [2.0]])).item()
        6.0
    """
    R = [torch.linalg.qr(X.double(), mode="r").R for X in (A, B)]
    return torch.linalg.matrix_norm(R[0] @ R[1].mT)


def product_distance(
    A: Float[Tensor, "*batch d h"],
    B: Float[Tensor, "*batch e h"],
    C: Float[Tensor, "*batch d h"],
    D: Float[Tensor, "*batch e h"],
) -> Float64[Tensor, "*batch"]:
    r"""Frobenius norm of $A B^\top - C D^\top$, in O((d + e) h²).

    Written as $(A - C) B^\top + C (B - D)^\top$, a product of factors of 2 h columns, so that
    small changes keep their digits; the usual formula by traces,
    $\operatorname{tr}(A^\top A B^\top B) + \operatorname{tr}(C^\top C D^\top D) - 2
    \operatorname{tr}(A^\top C D^\top B)$, loses all of them below 1e-8 of the norm. It does not
    change under $A \to A M$, $B \to B M^{-\top}$ with any invertible M, nor the same of C and D.

    Args:
        A: Left factor of the first product.
        B: Right factor of the first product.
        C: Left factor of the second product.
        D: Right factor of the second product.

    Returns:
        The distance in float64.

    Example:
        >>> A, B = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [1.0]])
        >>> product_distance(A, B, 2 * A, B / 2).item() < 1e-15
        True
        >>> round(product_distance(A, B, 2 * A, B).item() ** 2, 12)
        10.0
    """
    A, B, C, D = (X.double() for X in (A, B, C, D))
    return product_norm(torch.cat([A - C, C], -1), torch.cat([B, B - D], -1))


@dataclass(frozen=True, eq=False)
class HeadChanges:
    """Movement of what heads compute: W_Q W_Kᵀ, which is where they look, and W_V W_O.

    The four matrices of a head are defined up to an invertible matrix each for (Q, K) and (V, O);
    these products are not. With rotary positions only part of that freedom exists, and the product
    is still the same under it, though it no longer says everything. A layer norm before the
    attention has a gain that belongs to both: fold it into the weights first if it matters.
    """

    names: tuple[str, ...]
    """The heads, in the order of the rows."""
    steps: Int64[Tensor, " T"]
    """Step of every checkpoint."""
    qk_norm: Float64[Tensor, "n T"]
    """‖W_Q W_Kᵀ‖_F, biases as a further row of each."""
    ov_norm: Float64[Tensor, "n T"]
    """‖W_V W_O‖_F."""
    qk_change: Float64[Tensor, "n changes"]
    """‖Δ(W_Q W_Kᵀ)‖_F from each checkpoint to the next."""
    ov_change: Float64[Tensor, "n changes"]
    """‖Δ(W_V W_O)‖_F likewise."""

    @property
    def qk_relative(self) -> Float64[Tensor, "n changes"]:
        """Change over the norm that it starts from."""
        return self.qk_change / self.qk_norm[:, :-1]

    @property
    def ov_relative(self) -> Float64[Tensor, "n changes"]:
        """Change over the norm that it starts from."""
        return self.ov_change / self.ov_norm[:, :-1]


def head_changes(weights: StepMatrix, heads: Mapping[str, HeadFactors]) -> HeadChanges:
    """Changes of W_Q W_Kᵀ and W_V W_O of every head between successive checkpoints.

    Two rows are held in memory at a time, and no d × d matrix.

    Args:
        weights: Checkpoints × parameters; ``run.weights`` or any matrix with rows.
        heads: From `phasescope.components.head_factors` of the model.

    Returns:
        Norms and changes in float64.

    Raises:
        ValueError: There are fewer than two checkpoints, or a head has columns beyond the matrix.

    Example:
        >>> from phasescope.components import head_factors
        >>> model = torch.nn.TransformerEncoderLayer(d_model=8, nhead=2, dim_feedforward=16)
        >>> w = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        >>> found = head_changes(torch.stack([w, w, 2 * w]), head_factors(model))
        >>> found.qk_relative[0].round(decimals=6)
        tensor([0., 3.], dtype=torch.float64)
    """
    matrix = source(weights, "cpu", torch.float64)
    if matrix.n_steps < 2 or not heads:
        raise ValueError(
            f"changes of heads need at least two checkpoints and one head, but {matrix.n_steps} "
            f"and {len(heads)} arrived."
        )
    last = max(int(x.max()) for f in heads.values() for x in (f.q, f.k, f.v, f.o))
    if last >= matrix.n_columns:
        raise ValueError(
            f"the heads reach to column {last}, but the matrix has {matrix.n_columns} columns. "
            "Take both from the same model."
        )
    rows: list[list[list[Tensor]]] = []
    before: list[list[Tensor]] | None = None
    for t in range(matrix.n_steps):
        row = matrix.A[t : t + 1]
        row = torch.from_numpy(np.asarray(row)) if not isinstance(row, Tensor) else row
        vector = row.detach().cpu().double()[0]
        now = [[vector[x] for x in (f.q, f.k, f.v, f.o)] for f in heads.values()]
        rows.append(_products(now, before))
        before = now
    table = [torch.stack([torch.stack(x) for x in zip(*r, strict=True)]) for r in rows]
    norms = torch.stack([x[:2] for x in table], -1)
    changes = torch.stack([x[2:] for x in table[1:]], -1)
    return HeadChanges(tuple(heads), matrix.steps, norms[0], norms[1], changes[0], changes[1])


def _products(now: list[list[Tensor]], before: list[list[Tensor]] | None) -> list[list[Tensor]]:
    """For every head: norms of QK and OV, then their distances from the checkpoint before."""
    found = []
    for i, (q, k, v, o) in enumerate(now):
        values = [product_norm(q, k), product_norm(v, o)]
        if before is not None:
            a, b, c, d = before[i]
            values += [product_distance(q, k, a, b), product_distance(v, o, c, d)]
        found.append(values)
    return found
