"""Irreducible representations of a group given by its table, and how much of them logits hold.

Letters: n elements x, y, z of a group; d dimension of a representation; r representations.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from phasescope.datasets import FiniteGroup

# Of a matrix of norm one equal eigenvalues differ by about 1e-15, others hardly ever by less than
# the second; a matrix with a difference in between is drawn again.
_SAME, _APART = 1e-12, 1e-9


@dataclass(frozen=True, eq=False)
class Irrep:
    """A real irreducible representation: one orthogonal matrix for each element."""

    matrices: Float64[Tensor, "n d d"]
    """ρ(x), with ρ(x) ρ(y) = ρ(xy)."""

    @property
    def dimension(self) -> int:
        """Its dimension over the reals."""
        return self.matrices.shape[1]

    @property
    def character(self) -> Float64[Tensor, " n"]:
        """The trace of every matrix."""
        return self.matrices.diagonal(dim1=1, dim2=2).sum(1)


def real_irreps(group: FiniteGroup, *, seed: int = 0) -> list[Irrep]:
    r"""All real irreducible representations of a finite group, the trivial one first.

    Every one is in the regular representation. A random symmetric matrix that commutes with it has
    them as its eigenspaces, with probability one; copies of one are told by their characters. A
    pair of conjugate complex representations is one real one of twice the dimension.

    Costs a symmetric eigendecomposition of n × n and n³ products: a second at n = 120.

    Args:
        group: The group.
        seed: Of the random matrix; another one gives other bases of the same representations.

    Returns:
        Representations by dimension, then by character.

    Example:
        >>> from phasescope.datasets import cyclic_group, symmetric_group
        >>> [rho.dimension for rho in real_irreps(symmetric_group(3))]
        [1, 1, 2]
        >>> [rho.dimension for rho in real_irreps(cyclic_group(5))]
        [1, 2, 2]

    References:
        Serre (1977), "Linear Representations of Finite Groups", sections 2.4 and 13.2. Chughtai et
        al. (2023), "A toy model of universality", arXiv:2302.03025.
    """
    n, table = len(group), group.table
    generator = torch.Generator().manual_seed(seed)
    while True:
        values = torch.randn(n, generator=generator, dtype=torch.float64)
        # Right multiplications commute with left ones: M[x, y] = v(x⁻¹ y), made symmetric.
        M = values[table[group.inverses]]
        M = M + M.T
        eigenvalues, vectors = torch.linalg.eigh(M / M.norm())
        gaps = eigenvalues.diff()
        if not ((gaps > _SAME) & (gaps < _APART)).any():
            break
    ends = [0, *((gaps > _SAME).nonzero().flatten() + 1).tolist(), n]
    found: list[Irrep] = []
    for start, stop in itertools.pairwise(ends):
        B = vectors[:, start:stop]
        # (L(g) B)[x] = B[g⁻¹ x]
        matrices = torch.einsum("xa,gxb->gab", B, B[table[group.inverses]])
        rho = Irrep(matrices)
        if all((rho.character - other.character).abs().max() > 1e-4 for other in found):
            found.append(rho)
    return sorted(
        found, key=lambda rho: (rho.dimension, (-rho.character).round(decimals=6).tolist())
    )


def trace_cube(group: FiniteGroup, irrep: Irrep) -> Float64[Tensor, "n n n"]:
    """What logits are that compute a group by one representation: tr ρ(x y z⁻¹).

    Args:
        group: The group.
        irrep: One of its representations.

    Returns:
        For every pair and result; largest where z = xy.

    Example:
        >>> from phasescope.datasets import cyclic_group
        >>> group = cyclic_group(4)
        >>> cube = trace_cube(group, real_irreps(group)[-1])
        >>> cube[1, 2].argmax().item()
        3
    """
    quotients = group.table[group.table][..., group.inverses]  # [x, y, z]: (xy) z⁻¹
    return irrep.character[quotients]


def irrep_similarities(
    group: FiniteGroup, logits: Float[Tensor, "n n n"], irreps: list[Irrep] | None = None
) -> Float64[Tensor, " r"]:
    r"""Cosine similarity of logits, centred over results, with the trace cube of every irrep.

    Squares of the non-trivial ones sum to the share of the logits that is explained. Rule R5 for
    keys: above .005 in the final network, above .05 for the order in which they are learned.

    Args:
        group: The group.
        logits: For every pair of elements and result.
        irreps: From `real_irreps`, if they are known already.

    Returns:
        One similarity for each; 0 for the trivial representation, whose cube is constant.

    Raises:
        ValueError: The logits are not those of the group's elements.

    Example:
        >>> from phasescope.datasets import symmetric_group
        >>> group = symmetric_group(3)
        >>> found = real_irreps(group)
        >>> similar = irrep_similarities(group, trace_cube(group, found[2]), found)
        >>> [round(x, 6) + 0.0 for x in similar.tolist()]
        [0.0, 0.0, 1.0]

    References:
        Chughtai et al. (2023), "A toy model of universality: reverse engineering how networks learn
        group operations", arXiv:2302.03025, section 5 (logit similarity).
    """
    n = len(group)
    if tuple(logits.shape) != (n, n, n):
        raise ValueError(
            f"logits of all pairs and results of the {n} elements are required, but their shape is "
            f"{tuple(logits.shape)}. Leave out the logit of '='."
        )
    values = logits.double()
    values = values - values.mean(-1, keepdim=True)
    found = []
    for irrep in real_irreps(group) if irreps is None else irreps:
        cube = trace_cube(group, irrep)
        trivial = bool((cube == cube.flatten()[0]).all()) or float(cube.std()) < 1e-9
        similar = (values * cube).sum() / (values.norm() * cube.norm())
        found.append(torch.zeros_like(similar) if trivial else similar)
    return torch.stack(found)
