"""Subspaces of the parameters to train in, to project on or to leave out.

Letters: T steps, k directions, P parameters.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from phasescope.analysis.columns import StepMatrix
from phasescope.analysis.gram import gram
from phasescope.analysis.selection import Steps
from phasescope.analysis.spectrum import Center, parameter_vectors, spectrum
from phasescope.components.subspace import Subspace

# Beyond this share of all directions a random matrix is too ill-conditioned for its Gram matrix.
_WELL_CONDITIONED = 0.25


def leading_subspace(
    A: StepMatrix,
    k: int,
    *,
    center: Center = "none",
    normalize: bool = False,
    steps: Steps | None = None,
    name: str = "leading",
    memory: int = 400_000_000,
) -> Subspace:
    """The span of the k leading parameter directions of a trajectory: the U_k of low-rank replay.

    Two passes over the matrix, out of core: its Gram matrix, then the directions. The first j rows
    of the basis are the subspace of the j leading directions, so one call serves every smaller k.

    Directions above the noise in time may still be mostly noise in parameter space; whether a
    subspace matters is seen beside `random_subspace` and the subspace of another run only.

    Args:
        A: Steps × parameters: a run's gradients or updates, or any matrix.
        k: How many directions.
        center: What to subtract, see `spectrum`.
        normalize: Scale every row to unit norm first.
        steps: Steps to use, by value (see `spectrum`); all by default.
        name: What the subspace is called.
        memory: Bytes for the buffers of each pass. The basis, 4 k P bytes, comes on top.

    Returns:
        Orthonormal rows in order of decreasing singular value, in float32.

    Raises:
        ValueError: k exceeds the singular values that can be resolved, at most the number of steps.

    Example:
        >>> A = torch.tensor([[0.0, 3.0, 0.0], [2.0, 0.0, 0.0]])
        >>> leading_subspace(A, 1).basis.abs()
        tensor([[0., 1., 0.]])
    """
    found = spectrum(gram(A, memory=memory), center=center, normalize=normalize, steps=steps)
    vectors = parameter_vectors(A, found, k, memory=memory)
    return Subspace(name, _orthonormalised(vectors))  # they are up to the rounding of the Gram


def random_subspace(
    n_parameters: int,
    k: int,
    *,
    seed: int,
    name: str = "random",
    dtype: torch.dtype = torch.float32,
) -> Subspace:
    """A uniformly random k-dimensional subspace, with an orthonormal basis.

    Rows of independent normal numbers, orthonormalised. The first j rows are a uniformly random
    j-dimensional subspace too, so one basis serves every smaller dimension; those subspaces are
    nested, not independent.

    Args:
        n_parameters: P, the size of the parameter table.
        k: How many directions.
        seed: Of the numbers; the global random state is neither read nor changed.
        name: What the subspace is called.
        dtype: Of the basis.

    Returns:
        The subspace, on the CPU; 4 k P bytes in float32.

    Raises:
        ValueError: k is not between 1 and the number of parameters.

    Example:
        >>> random_subspace(1000, 3, seed=0).basis.shape
        torch.Size([3, 1000])

    References:
        Li et al. (2018), "Measuring the intrinsic dimension of objective landscapes",
        arXiv:1804.08838, section 2, whose columns are orthonormal approximately.
    """
    if not 1 <= k <= n_parameters:
        raise ValueError(
            f"a random subspace has between 1 and {n_parameters} directions, as many as there are "
            f"parameters, but k={k} arrived. Ask for fewer."
        )
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(k, n_parameters, generator=generator, dtype=dtype)
    if k > _WELL_CONDITIONED * n_parameters:
        return Subspace.spanned_by(name, basis)
    return Subspace(name, _orthonormalised(basis))


def _orthonormalised(rows: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
    """Orthonormal rows, of which row j spans rows 0 … j, as QR gives in several times the time.

    By the Cholesky factor of the rows' Gram matrix, so they must be well-conditioned; twice, since
    the first factor rounds as they do. The second works in float64, block by block.
    """
    for dtype in (rows.dtype, torch.float64):
        inner = torch.zeros(len(rows), len(rows), dtype=torch.float64)
        for columns in rows.split(4096, dim=1):
            wide = columns.to(dtype)
            inner += (wide @ wide.T).double()
        factor = torch.linalg.cholesky(inner).to(dtype)
        solved = torch.empty_like(rows)
        for first, columns in enumerate(rows.split(4096, dim=1)):
            part = torch.linalg.solve_triangular(factor, columns.to(dtype), upper=False)
            solved[:, first * 4096 : first * 4096 + columns.shape[1]] = part
        rows = solved
    return rows
