"""Loss on planes through the weights of three models.

Axes: n rows and m columns of a grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float64
from torch import Tensor

from phasescope.analysis.connectivity import Measure, State, check_alike


@dataclass(frozen=True, eq=False)
class Plane:
    """The plane through three states, with an orthonormal basis; the first is the origin.

    Example:
        >>> o, x, y = ({"w": torch.tensor(v)} for v in ([0.0, 0.0], [2.0, 0.0], [1.0, 3.0]))
        >>> plane = Plane.through(o, x, y)
        >>> plane.coordinates(y)
        tensor([1., 3.], dtype=torch.float64)
        >>> plane.state(2.0, 0.0)["w"]
        tensor([2., 0.])
    """

    origin: dict[str, Tensor] = field(repr=False)
    basis: tuple[dict[str, Tensor], dict[str, Tensor]] = field(repr=False)
    corners: Float64[Tensor, "3 2"]
    """Coordinates of the three states."""

    @classmethod
    def through(cls, first: State, second: State, third: State) -> Plane:
        """The plane.

        Raises:
            ValueError: The states are of different models, or lie on one line.
        """
        check_alike(first, second)
        check_alike(first, third)
        names = [n for n, a in first.items() if a.is_floating_point()]
        u, v = (
            {n: s[n].detach().double() - first[n].detach().double() for n in names}
            for s in (second, third)
        )
        length = _dot(u, u) ** 0.5
        u = {n: x / max(length, 1e-300) for n, x in u.items()}
        along = _dot(u, v)
        w = {n: v[n] - along * u[n] for n in names}
        height = _dot(w, w) ** 0.5
        # What stands off the line by the rounding of the weights alone spans no plane.
        eps = max((torch.finfo(first[n].dtype).eps for n in names), default=0.0)
        size = sum(first[n].detach().double().square().sum().item() for n in names) ** 0.5
        if not length or height <= max(1e-9 * _dot(v, v) ** 0.5, 4 * eps * size):
            raise ValueError(
                "three states that do not lie on one line are required for a plane, but the second "
                f"is {length:.3g} from the first and the third {height:.3g} off their line."
            )
        basis = u, {n: x / height for n, x in w.items()}
        corners = torch.tensor([[0, 0], [length, 0], [along, height]], dtype=torch.float64)
        return cls({n: a.detach() for n, a in first.items()}, basis, corners)

    def state(self, x: float, y: float) -> dict[str, Tensor]:
        """The state at a place of the plane."""
        result = dict(self.origin)
        for name, u in self.basis[0].items():
            moved = self.origin[name].double() + x * u + y * self.basis[1][name]
            result[name] = moved.to(self.origin[name].dtype)
        return result

    def coordinates(self, state: State) -> Float64[Tensor, " 2"]:
        """Where a state falls when it is projected on the plane; a trajectory's points, say."""
        offset = {n: state[n].detach().double() - self.origin[n].double() for n in self.basis[0]}
        return torch.tensor([_dot(offset, b) for b in self.basis], dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class PlaneValues:
    """What was measured on a grid of a plane."""

    x: Float64[Tensor, " m"]
    y: Float64[Tensor, " n"]
    values: dict[str, Float64[Tensor, "n m"]]
    corners: Float64[Tensor, "3 2"]


def plane_values(
    measure: Measure, plane: Plane, *, n_points: int = 21, margin: float = 0.3
) -> PlaneValues:
    """Measure on a square grid that holds the plane's three states.

    Args:
        measure: Numbers of a state.
        plane: From `Plane.through`.
        n_points: Places along each side.
        margin: How far the grid goes beyond the states, in widths of their bounding box.

    Returns:
        The numbers; rows are y.

    Example:
        >>> o, x, y = ({"w": torch.tensor(v)} for v in ([0.0, 0.0], [2.0, 0.0], [1.0, 2.0]))
        >>> norm = lambda state: {"loss": state["w"].norm().item()}
        >>> values = plane_values(norm, Plane.through(o, x, y), n_points=3, margin=0.0)
        >>> values.values["loss"][0]
        tensor([0., 1., 2.], dtype=torch.float64)
    """
    low, high = plane.corners.amin(0), plane.corners.amax(0)
    room = margin * (high - low)
    x, y = (
        torch.linspace((low - room)[i].item(), (high + room)[i].item(), n_points).double()
        for i in range(2)
    )
    found: dict[str, list[float]] = {}
    for b in y.tolist():
        for a in x.tolist():
            for name, value in measure(plane.state(a, b)).items():
                found.setdefault(name, []).append(float(value))
    values = {
        n: torch.tensor(v, dtype=torch.float64).view(n_points, n_points) for n, v in found.items()
    }
    return PlaneValues(x, y, values, plane.corners)


def _dot(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    return sum(torch.dot(a[n].flatten(), b[n].flatten()).item() for n in a)
