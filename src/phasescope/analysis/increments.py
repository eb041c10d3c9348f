"""What a trajectory does between its points: differences of neighbouring rows.

Letters: n points (rows), n - 1 differences.
"""

from __future__ import annotations

from phasescope.analysis.gram import Gram


def increments(gram: Gram) -> Gram:
    r"""The Gram matrix of the differences of neighbouring rows, $x_{t+1} - x_t$.

    A trajectory of weights, logits or losses looks low-dimensional whatever it does, since its
    points are sums: noise summed up has five singular values above a tenth of the largest. Its
    increments do not, and can be decomposed like gradients.

    Rows that are large beside their differences (weights far from the origin) lose digits: of
    float32 products about as many as $\|x\|^2 / \|\Delta x\|^2$ has. Subtract the first row, or
    compute the Gram matrix from float64 values.

    Args:
        gram: Of the trajectory, at least two points.

    Returns:
        Inner products of the differences, each under the step at which it begins.

    Raises:
        ValueError: There is one point only.

    Example:
        >>> import torch
        >>> from phasescope.analysis.gram import gram
        >>> increments(gram(torch.tensor([[0.0, 1.0], [3.0, 1.0], [3.0, 5.0]]))).K
        tensor([[ 9.,  0.],
                [ 0., 16.]], dtype=torch.float64)
    """
    if len(gram.steps) < 2:
        raise ValueError(
            f"increments need at least two points, but {len(gram.steps)} arrived. Record the "
            "trajectory at more steps."
        )
    K = gram.K.diff(dim=0).diff(dim=1)
    K = (K + K.T) / 2
    K.diagonal().clamp_(min=0)  # rounding of far points may leave less than nothing
    # eps is relative to the squared norms of the rows: here to those of the differences.
    before, after = float(gram.K.diagonal().max()), float(K.diagonal().max())
    eps = gram.eps * (4 * before / after if after > 0 else 1.0)
    sums = gram.row_sums.diff()
    return Gram(K, gram.steps[:-1], sums, gram.n_columns, {}, max(gram.eps, eps))
