"""Slow, obvious float64 versions of the spectral analysis, from the whole matrix in memory."""

import torch
from torch import Tensor


def prepared(A: Tensor, center: str = "none", normalize: bool = False) -> Tensor:
    """The matrix itself, centred over parameters, then normalised, then centred over steps."""
    A = A.double().clone()
    for t in range(len(A)):
        if center in ("parameters", "both"):
            A[t] -= A[t].mean()
        if normalize:
            A[t] /= A[t].norm()
    if center in ("steps", "both"):
        A = A - A.mean(0)
    return A


def gram_matrix(A: Tensor) -> Tensor:
    """Inner products one by one."""
    A = A.double()
    return torch.stack([torch.stack([(a * b).sum() for b in A]) for a in A])


def singular_values(A: Tensor, center: str = "none", normalize: bool = False) -> Tensor:
    """From a dense decomposition of the prepared matrix."""
    return torch.linalg.svdvals(prepared(A, center, normalize))


def parameter_directions(A: Tensor, k: int) -> Tensor:
    """The k leading right singular vectors of a prepared matrix, as rows."""
    return torch.linalg.svd(A.double(), full_matrices=False).Vh[:k]


def heldout_residual(sample: Tensor, step: Tensor, k: int, center: str = "none") -> float:
    """Share of a held-out row outside the span of the top k directions of the sampled rows."""
    sample, step = sample.double(), step.double()
    if center in ("parameters", "both"):
        sample = sample - sample.mean(1, keepdim=True)
        step = step - step.mean()
    if center in ("steps", "both"):
        step = step - sample.mean(0)
        sample = sample - sample.mean(0)
    V = parameter_directions(sample, k)
    rest = step - V.T @ (V @ step)
    return float((rest**2).sum() / (step**2).sum())


def overlap(a: Tensor, b: Tensor, k: int) -> float:
    """Mean squared length of one subspace's directions inside the other."""
    Va, Vb = parameter_directions(a, k), parameter_directions(b, k)
    return sum(float((Va @ v).norm() ** 2) for v in Vb) / k


def graded_matrix(
    n_steps: int, n_columns: int, smallest: float, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """A float64 matrix with singular values from 1 down to `smallest`, and these values."""
    generator = torch.Generator().manual_seed(seed)
    U, _ = torch.linalg.qr(torch.randn(n_steps, n_steps, dtype=torch.float64, generator=generator))
    V, _ = torch.linalg.qr(
        torch.randn(n_columns, n_steps, dtype=torch.float64, generator=generator)
    )
    S = torch.logspace(0, torch.tensor(smallest).log10().item(), n_steps, dtype=torch.float64)
    return (U * S) @ V.T, S
