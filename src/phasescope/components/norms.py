"""L2 norms of many components at once, at every step of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from phasescope.components.grids import MAX_RUN, MIN_RUN, Grid, cells
from phasescope.components.subspace import Subspace
from phasescope.parameters import Component, ParameterTable

# Float32 squares that add up to less may have lost digits: they are added up again in float64.
_TINY = 1e-30


@dataclass(frozen=True)
class _Placed:
    """What a call needs, on the device of the tensors."""

    runs: Tensor
    """First run of every cell, and the number of runs."""
    members: Tensor
    """Cells of the first component, then of the second, and so on."""
    bounds: Tensor
    """First member of every component, and the number of members."""
    directions: dict[int, Tensor]
    """The bases of all subspaces, one below the other, by tensor."""


class ComponentNorms:
    """The L2 norm of every component of a list of tensors, with one call per step.

    Every tensor is read once (or once along each axis that is cut), whatever the number of
    components: it is seen as a grid whose cells no component divides, the squares of every cell are
    added up, and components are sums of cells. Each call is a few small operations per tensor and
    no synchronisation with a GPU.

    On the CPU, squares of float32 and narrower entries are formed in float32, added up in runs of
    at most 256 and then in float64; the relative error of a norm is below 1e-6. Where squares
    overflow (entries above 1e19 in size) or where a component's squares add up to less than 1e-30,
    all sums are formed again in float64, which takes about six times as long; only a component
    whose entries all lie below 2e-23 comes out as 0. Float64 tensors, and all tensors on a CUDA
    device, are squared in float64. Norms above 3.4e38 come out as infinite, those of components
    with entries that are not finite as infinite or NaN.

    The norm of a subspace is that of the projection; its rounding error is about 1e-7 of the norm
    of the whole vector. It costs a product with the basis, k P multiplications.

    Args:
        components: Parts of the flat vector; they may overlap.
        table: The tensors of the flat vector.

    Raises:
        ValueError: A component has columns beyond the table, or a subspace another number of them.

    Example:
        >>> table = ParameterTable(("weight", "bias"), ((2, 2), (2,)))
        >>> first = Component("first unit", ((0, 2), (4, 5)))
        >>> norms = ComponentNorms({"first unit": first}, table)
        >>> norms([torch.tensor([[3.0, 4.0], [7.0, 7.0]]), torch.tensor([12.0, 7.0])])
        tensor([13.])
    """

    def __init__(
        self, components: Mapping[str, Component | Subspace], table: ParameterTable
    ) -> None:
        self.names = tuple(components)
        """What the entries of every result belong to."""
        self._sizes = list(table.sizes)
        n_columns = sum(self._sizes)
        parts = {n: c for n, c in components.items() if isinstance(c, Component)}
        self._subspaces = {n: c for n, c in components.items() if isinstance(c, Subspace)}
        for name, component in parts.items():
            if not component.fits(n_columns):
                found = (
                    f"reaches to column {component.stop - 1}"
                    if component.stop > n_columns
                    else f"was made from a mask over {component.n_columns}"
                )
                raise ValueError(
                    f"components must lie within the {n_columns} columns of the parameter "
                    f"table, but {name!r} {found}. Take it from the same model."
                )
        for name, subspace in self._subspaces.items():
            if subspace.basis.shape[1] != n_columns:
                raise ValueError(
                    f"the basis of a subspace must have the {n_columns} columns of the "
                    f"parameter table, but that of {name!r} has {subspace.basis.shape[1]}. Take it "
                    "from the same model."
                )
        self._cells = cells(list(parts.values()), table)
        place = {name: i for i, name in enumerate((*parts, *self._subspaces))}
        self._order = [place[name] for name in self.names]
        self._is_ordered = self._order == list(range(len(self._order)))
        self._placed: dict[torch.device, _Placed] = {}

    def __call__(self, tensors: Sequence[Tensor]) -> Float32[Tensor, " n_components"]:
        """Norms of all components.

        Args:
            tensors: One for each tensor of the table and with as many entries, of any shape, layout
                in memory and floating point dtype. Not changed.

        Returns:
            Norms in the order of `names`, on the device of the first tensor.

        Raises:
            ValueError: Tensors are missing, or one has another size.
        """
        sizes = [tensor.numel() for tensor in tensors]
        if sizes != self._sizes:
            raise ValueError(
                f"one tensor for each of the {len(self._sizes)} of the parameter table is "
                f"required, of sizes {self._sizes[:6]}, ..., but {len(sizes)} of sizes "
                f"{sizes[:6]}, ... arrived. Pass them in the order of the table, zeros for a "
                "missing gradient."
            )
        device = tensors[0].device if tensors else torch.device("cpu")
        placed = self._on(device)
        squares = self._squares(tensors, placed, exact=False)
        # Only on the CPU, where looking at a result costs no synchronisation.
        if device.type == "cpu" and _is_doubtful(squares):
            squares = self._squares(tensors, placed, exact=True)
        if self._subspaces:
            squares = torch.cat([squares, self._projected(tensors, placed, device)])
        norms = squares.sqrt().float()
        return norms if self._is_ordered else norms[self._order]

    def _squares(self, tensors: Sequence[Tensor], placed: _Placed, *, exact: bool) -> Tensor:
        """Sums of squares of all components that are sets of coordinates."""
        device = placed.runs.device
        if not self._cells.grids:
            return torch.zeros(len(self._cells.n_members), device=device, dtype=_wide(device))
        runs = [
            _runs(tensors[grid.tensor], grid, exact=exact).to(device) for grid in self._cells.grids
        ]
        squares = torch.cat(runs).to(_wide(device)).square_()
        by_cell = _sums(squares, placed.runs)
        return _sums(by_cell.index_select(0, placed.members), placed.bounds)

    def _projected(
        self, tensors: Sequence[Tensor], placed: _Placed, device: torch.device
    ) -> Tensor:
        """Squared norms of the projections onto all subspaces."""
        ks = [len(subspace.basis) for subspace in self._subspaces.values()]
        coordinates = torch.zeros(sum(ks), dtype=_wide(device), device=device)
        for i, basis in placed.directions.items():
            coordinates += basis @ tensors[i].detach().reshape(-1).to(device, basis.dtype)
        return torch.stack([part.square().sum() for part in coordinates.split(ks)])

    def _on(self, device: torch.device) -> _Placed:
        if device not in self._placed:
            bounds = (_bounds(self._cells.runs_per_cell), _bounds(self._cells.n_members))
            self._placed[device] = _Placed(
                bounds[0].to(device),
                torch.from_numpy(self._cells.members).to(device),
                bounds[1].to(device),
                self._directions(device),
            )
        return self._placed[device]

    def _directions(self, device: torch.device) -> dict[int, Tensor]:
        if not self._subspaces:
            return {}
        basis = torch.cat(
            [subspace.basis.detach().to(device) for subspace in self._subspaces.values()]
        )
        parts = basis.split(self._sizes, dim=1)
        # A subspace often lies in a few tensors only.
        return {i: part.contiguous() for i, part in enumerate(parts) if bool(part.any())}


def _runs(x: Tensor, grid: Grid, *, exact: bool) -> Tensor:
    """The norm of every run of a tensor."""
    # Entries side by side: sums over strided ones would be slower and, on the CPU, less accurate.
    x = x.detach().contiguous().view(-1)
    on_cpu = x.device.type == "cpu"
    wide = _wide(x.device) if exact or not on_cpu or x.dtype == torch.float64 else torch.float32
    if grid.edges is not None:
        edges = torch.from_numpy(grid.edges).to(x.device)
        return _sums(x.to(_wide(x.device)).square(), edges).sqrt_()
    A, N, R = grid.shape
    if not on_cpu or wide == torch.float64:
        return torch.linalg.vector_norm(x.view(A, N, R), dim=(0, 2), dtype=wide)
    x = x.float()
    # On the CPU the fastest of three ways: a fused sum along runs, of which there is one per row...
    if A == 1 and R <= MAX_RUN:
        return torch.linalg.vector_norm(x.view(N, R), dim=1)
    # ... or many, which float64 adds up ...
    if MIN_RUN <= R <= MAX_RUN:
        by_row = torch.linalg.vector_norm(x.view(A * N, R), dim=1).view(A, N)
        return by_row.double().square_().sum(0).sqrt_()
    # ... or squares, which PyTorch adds up in pairs.
    return x.square().view(A, N, R).sum((0, 2)).sqrt_()


def _is_doubtful(squares: Tensor) -> bool:
    """Whether float32 squares overflowed or may have lost digits."""
    is_sound = ((squares > _TINY) & (squares < torch.inf)) | (squares == 0)
    return not bool(is_sound.all())


def _sums(values: Tensor, bounds: Tensor) -> Tensor:
    """Sums of successive values; each begins at one bound and ends at the next."""
    return torch.segment_reduce(values, "sum", offsets=bounds, unsafe=True)


def _bounds(counts: np.ndarray) -> Tensor:
    return torch.from_numpy(np.append(0, counts.cumsum()).astype(np.int64))


def _wide(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
