"""P-values of an observed number among draws of its null.

Letters: n numbers, R draws.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor


def two_sided_p(
    observed: Float64[Tensor, " n"], null: Float64[Tensor, "n R"]
) -> Float64[Tensor, " n"]:
    r"""Two-sided p-values of numbers among draws of their null, from ranks.

    $\min(1,\; 2\,(1 + \min(\#\text{as large}, \#\text{as small})) / (R + 1))$. If the observed
    number and the draws are exchangeable, it is below p with probability p at most, whatever the
    distribution. Ties count for the null.

    Args:
        observed: The numbers.
        null: Draws of each.

    Returns:
        At least 2 / (R + 1).

    Example:
        >>> two_sided_p(torch.tensor([9.0]).double(), torch.arange(0.0, 8.0).double()[None, :7])
        tensor([0.2500], dtype=torch.float64)
    """
    # Of equal values (a flat profile) rounding must not decide.
    margin = 1e-9 * (observed.abs() + null.abs().amax(1))
    above = (null >= (observed - margin)[:, None]).sum(1)
    below = (null <= (observed + margin)[:, None]).sum(1)
    p = 2 * (1 + torch.minimum(above, below)).double() / (null.shape[1] + 1)
    return p.clamp(max=1)
