"""Products X Xᵀ of blocks of columns, in full precision and without the upper triangle.

Letters: T steps (rows), b columns of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

# Columns per product: float32 sums stay short and accurate, and the slice fits the caches.
SUB_BLOCK = 4096
# Rows per stripe of the lower triangle: thin enough to skip most of the upper half.
_STRIPE = 200


def product_buffer(n_steps: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, " n"]:
    """Room for the stripe of products that `add_products` works on.

    Example:
        >>> len(product_buffer(2000, torch.float32, torch.device("cpu")))
        400000
    """
    return torch.empty(min(_STRIPE, n_steps) * n_steps, dtype=dtype, device=device)


def add_products(
    X: Float[Tensor, "T b"], totals: Sequence[Float64[Tensor, "T T"]], buffer: Float[Tensor, " n"]
) -> None:
    """Add the lower triangle of ``X @ X.T`` to every total, in place.

    Row stripes of the lower triangle do little more than half of the whole product's work. Above
    the diagonal the totals hold nothing of meaning until `symmetric` mirrors them.

    Args:
        X: Columns of the matrix.
        totals: Float64 sums, on any device.
        buffer: From `product_buffer`.

    Example:
        >>> total, X = torch.zeros(2, 2, dtype=torch.float64), torch.tensor([[1.0], [2.0]])
        >>> add_products(X, [total], product_buffer(2, X.dtype, X.device))
        >>> symmetric(total)
        tensor([[1., 2.],
                [2., 4.]], dtype=torch.float64)
    """
    T = X.shape[0]
    for start in range(0, T, _STRIPE):
        stop = min(start + _STRIPE, T)
        stripe = buffer[: (stop - start) * stop].view(stop - start, stop)
        torch.mm(X[start:stop], X[:stop].T, out=stripe)
        for total in totals:
            total[start:stop, :stop].add_(stripe.to(total.device))


def symmetric(lower: Float64[Tensor, "T T"]) -> Float64[Tensor, "T T"]:
    """The symmetric matrix whose lower triangle is given; what lies above it is ignored.

    Example:
        >>> symmetric(torch.tensor([[1.0, 9.0], [2.0, 3.0]], dtype=torch.float64))
        tensor([[1., 2.],
                [2., 3.]], dtype=torch.float64)
    """
    K = lower.tril()
    return K + K.tril(-1).T


@contextmanager
def full_precision() -> Iterator[None]:
    """Float32 products in true float32, whatever the training allowed; restored on leaving.

    `torch.set_float32_matmul_precision("medium")` turns them into bfloat16 products even on a CPU,
    with errors of 0.4 % that would fill the small end of every spectrum.

    Example:
        >>> with full_precision():
        ...     product = torch.ones(1, 2) @ torch.ones(2, 1)
    """
    matmuls: list[Any] = [
        torch.backends.cuda.matmul,
        getattr(torch.backends.mkldnn, "matmul", None),
    ]
    if not all(hasattr(m, "fp32_precision") for m in matmuls):  # before torch 2.9
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    precisions = [m.fp32_precision for m in matmuls]
    for m in matmuls:
        m.fp32_precision = "ieee"
    try:
        yield
    finally:
        for m, precision in zip(matmuls, precisions, strict=True):
            m.fp32_precision = precision
