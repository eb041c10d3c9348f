"""Subspaces: parts of the parameter vector that are no sets of coordinates.

Letters: k directions, P parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Subspace:
    """A named subspace of the flat parameter vector, by an orthonormal basis.

    The part of a vector x in it is ``basis.T @ basis @ x``; its norm is that of ``basis @ x``. Use
    it where a part of the network is a direction or a plane: a singular vector of the gradients,
    the difference of two runs. `project` gives a trajectory's coordinates in it.

    Raises:
        ValueError: The rows are not orthonormal; `spanned_by` makes them so.

    Example:
        >>> plane = Subspace("plane", torch.eye(2, 5))
        >>> plane.basis.shape
        torch.Size([2, 5])
    """

    name: str
    """What the subspace is called in tables and figures."""
    basis: Float[Tensor, "k P"]
    """Orthonormal rows."""

    def __post_init__(self) -> None:
        k, P = self.basis.shape
        if k < 1 or k > P:
            raise ValueError(
                f"a basis of 1 to {P} rows over {P} parameters is required for {self.name!r}, but "
                f"shape {(k, P)} arrived. Rows are directions, columns are parameters."
            )
        basis = self.basis.detach()
        wide = basis if basis.device.type == "mps" else basis.double()
        gap = (
            (wide @ wide.T - torch.eye(k, dtype=wide.dtype, device=wide.device)).abs().max().item()
        )
        # Rounding P entries to this precision moves an inner product of unit vectors by about eps.
        allowed = 8 * torch.finfo(basis.dtype).eps
        if not gap <= allowed:
            raise ValueError(
                f"the rows of a basis must be orthonormal, but in {self.name!r} an inner product "
                f"is off by {gap:.2g}, more than {allowed:.2g} for {basis.dtype}. "
                "Subspace.spanned_by orthonormalises any vectors."
            )

    @classmethod
    def spanned_by(cls, name: str, vectors: Float[Tensor, "k P"]) -> Subspace:
        """The subspace that contains the given vectors and nothing else.

        Args:
            name: What the subspace is called.
            vectors: Linearly independent rows, of any lengths.

        Returns:
            The subspace. Its first j directions span the first j vectors.

        Raises:
            ValueError: The vectors are linearly dependent in their precision, or not finite.

        Example:
            >>> Subspace.spanned_by("line", torch.tensor([[3.0, 4.0]])).basis
            tensor([[0.6000, 0.8000]])
        """
        k, P = vectors.shape
        wide = vectors.detach().to(torch.float64 if vectors.device.type != "mps" else torch.float32)
        lengths = wide.norm(dim=1, keepdim=True)
        if not bool((lengths.isfinite() & (lengths > 0)).all()) or k > P:
            raise ValueError(
                f"finite vectors other than zero, at most {P} of them, are required for {name!r}, "
                f"but {k} of lengths {lengths.flatten().tolist()[:5]} arrived."
            )
        Q, R = torch.linalg.qr((wide / lengths).T)
        independent = R.diagonal().abs()
        if float(independent.min()) < 8 * torch.finfo(vectors.dtype).eps:
            dependent = int(independent.argmin())
            raise ValueError(
                f"linearly independent vectors are required for {name!r}, but number {dependent} "
                "lies in the span of those before it. Leave it out."
            )
        basis = (Q * R.diagonal().sign()).T
        return cls(name, basis.to(vectors.dtype).contiguous())
