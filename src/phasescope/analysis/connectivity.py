"""Loss along paths between the weights of two models, and on planes through three.

Axes: n points of a path, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.nn import functional

from phasescope.analysis.permutations import reestimate_batch_norm
from phasescope.models.evaluation import evaluating

State = Mapping[str, Tensor]
Measure = Callable[[dict[str, Tensor]], Mapping[str, float]]
Path = Callable[[float], dict[str, Tensor]]


class StateMeasure:
    """Loss and accuracy of a module at any state, in evaluation mode.

    Of every set of data the mean loss comes as ``"NAME loss"``, and, where targets are class
    numbers and outputs one row of scores each, the share of largest outputs at their targets as
    ``"NAME accuracy"``.

    Args:
        model: The module; it is not changed.
        data: Name to inputs and targets, such as ``{"train": (x, y), "test": (x2, y2)}``.
        loss: Mean loss of (outputs, targets).
        batch_size: Samples at once; changes memory, not the result beyond rounding.
        statistics: Tuples of inputs from which the running statistics of batch norms are counted
            anew at every state, see `reestimate_batch_norm`; by default they are the state's own.

    Raises:
        ValueError: There are no data, or as many inputs as targets are not given.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> measure = StateMeasure(model, {"test": (torch.eye(2), torch.tensor([0, 1]))})
        >>> state = {"weight": 5 * torch.eye(2), "bias": torch.zeros(2)}
        >>> {name: round(value, 4) for name, value in measure(state).items()}
        {'test loss': 0.0067, 'test accuracy': 1.0}
    """

    def __init__(
        self,
        model: nn.Module,
        data: Mapping[str, tuple[Tensor, Tensor]],
        *,
        loss: Callable[[Any, Tensor], Tensor] = functional.cross_entropy,
        batch_size: int = 1000,
        statistics: Sequence[tuple[Any, ...]] | None = None,
    ) -> None:
        lengths = {name: (len(x), len(y)) for name, (x, y) in data.items()}
        if not data or any(n != m or not n for n, m in lengths.values()):
            raise ValueError(
                "at least one set with as many targets as inputs is required, but "
                f"{lengths or 'none'} arrived."
            )
        self.model, self._data, self._loss = model, dict(data), loss
        self._batch_size, self._statistics = batch_size, statistics

    def __call__(self, state: State) -> dict[str, float]:
        """The numbers at a state."""
        if self._statistics is not None:
            state = reestimate_batch_norm(self.model, state, self._statistics)
        result: dict[str, float] = {}
        with evaluating(self.model):
            for name, (inputs, targets) in self._data.items():
                total, correct = 0.0, 0
                labels = not targets.is_floating_point() and targets.ndim == 1
                batches = zip(
                    inputs.split(self._batch_size), targets.split(self._batch_size), strict=True
                )
                for x, y in batches:
                    out = torch.func.functional_call(
                        self.model, dict(state), (x,), tie_weights=False
                    )
                    total += self._mean_loss(out, y) * len(x)
                    labels = labels and isinstance(out, Tensor) and out.ndim == 2
                    if labels:
                        correct += int((out.argmax(1) == y).sum())
                result[f"{name} loss"] = total / len(inputs)
                if labels:
                    result[f"{name} accuracy"] = correct / len(inputs)
        return result

    def _mean_loss(self, out: Any, y: Tensor) -> float:
        try:
            return self._loss(out, y).item()
        except (TypeError, AttributeError) as error:
            raise TypeError(
                "a loss that takes what the model returns is required, but "
                f"{getattr(self._loss, '__name__', 'the loss')} does not take "
                f"{type(out).__name__}: {error}. Pass loss=, a function of (outputs, targets) such "
                "as lambda out, y: cross_entropy(out.logits, y)."
            ) from error


@dataclass(frozen=True, eq=False)
class PathValues:
    """What was measured along a path."""

    t: Float64[Tensor, " n"]
    """Places on the path, from 0 to 1."""
    values: dict[str, Float64[Tensor, " n"]]
    """Every number at every place."""
    distance: Float64[Tensor, " n"]
    """Euclidean length of the path up to each place, through all places before it."""

    def barrier(self, name: str = "loss", *, over: str = "line") -> float:
        r"""How far a path rises above its ends.

        Of losses, over the ``"line"``: $\max_t [L(t) - ((1-t) L(0) + t L(1))]$, which is 0 where
        the loss only goes down from one end to the other; over the ``"mean"``: $\max_t L(t) -
        \tfrac12 (L(0) + L(1))$, which is more than 0 whenever the ends are unequal. Of a number
        whose name ends in ``accuracy``, how far it falls below.

        Args:
            name: Of the number.
            over: ``"line"`` or ``"mean"``.

        Returns:
            In the unit of the number; not negative over the line.

        Raises:
            ValueError: There is no such number, or another `over`.
        """
        if name not in self.values or over not in ("line", "mean"):
            raise ValueError(
                f"a barrier of one of {', '.join(self.values)} over 'line' or 'mean' can be given, "
                f"but name={name!r} and over={over!r} arrived."
            )
        y = self.values[name]
        y = -y if name.endswith("accuracy") else y
        # torch.lerp meets both ends exactly: a path that never rises has a barrier of 0.
        line = torch.lerp(y[0], y[-1], self.t) if over == "line" else (y[0] + y[-1]) / 2
        return (y - line).max().item()

    def average(self, name: str = "loss") -> float:
        """The mean over the path's length, by the trapezoid rule."""
        y = self.values[name]
        length = self.distance[-1]
        if length == 0:
            return y.mean().item()
        return (torch.trapezoid(y, self.distance) / length).item()


def linear_path(first: State, second: State) -> Path:
    """The straight line between two states; what is no floating-point number is the first's.

    Args:
        first: At t = 0.
        second: At t = 1.

    Returns:
        A function of t; at 0 and 1 exactly the ends.

    Raises:
        ValueError: The states do not have the same names and shapes.

    Example:
        >>> path = linear_path({"w": torch.zeros(2)}, {"w": torch.ones(2)})
        >>> path(0.25)["w"]
        tensor([0.2500, 0.2500])
    """
    check_alike(first, second)

    def at(t: float) -> dict[str, Tensor]:
        return {
            n: (1 - t) * a.detach() + t * second[n].detach() if a.is_floating_point() else a
            for n, a in first.items()
        }

    return at


def path_values(measure: Measure, path: Path, *, n_points: int = 25) -> PathValues:
    """Measure at evenly spaced places of a path.

    Args:
        measure: Numbers of a state; such as a `StateMeasure`, or any function.
        path: From `linear_path`, or a trained `Curve`.
        n_points: Places, both ends included; the barrier is that of these places.

    Returns:
        The numbers.

    Raises:
        ValueError: There are fewer than three places, or a number at an end is not finite.

    Example:
        >>> path = linear_path({"w": torch.tensor([-1.0])}, {"w": torch.tensor([1.0])})
        >>> double_well = lambda state: {"loss": (state["w"].square() - 1).square().item()}
        >>> path_values(double_well, path).barrier()
        1.0
    """
    if n_points < 3:
        raise ValueError(f"at least 3 places of a path are required, but n_points is {n_points}.")
    places = torch.linspace(0, 1, n_points, dtype=torch.float64)
    found: dict[str, list[float]] = {}
    lengths, before = [0.0], None
    for t in places.tolist():
        state = path(t)
        for name, value in measure(state).items():
            found.setdefault(name, []).append(float(value))
        if before is not None:
            lengths.append(lengths[-1] + state_distance(before, state))
        before = state
    values = {name: torch.tensor(v, dtype=torch.float64) for name, v in found.items()}
    for name, v in values.items():
        if not bool(v[[0, -1]].isfinite().all()):
            raise ValueError(
                f"finite numbers at both ends are required, but {name!r} is {v[0].item()} and "
                f"{v[-1].item()}. Did one of the trainings diverge?"
            )
    return PathValues(places, values, torch.tensor(lengths, dtype=torch.float64))


def state_distance(first: State, second: State) -> float:
    """Euclidean distance of all floating-point tensors of two states.

    Example:
        >>> state_distance({"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 4.0])})
        5.0
    """
    total = sum(
        (a.detach().double() - second[n].detach().double()).square().sum().item()
        for n, a in first.items()
        if a.is_floating_point()
    )
    return total**0.5


def random_target(first: State, second: State, generator: torch.Generator) -> dict[str, Tensor]:
    """A state as far from the first as the second is, tensor by tensor, in random directions.

    The null of a barrier between two models: what a path of this length does to the loss where
    nothing is at its end. What does not differ between the two stays.

    Args:
        first: Where the path begins.
        second: Whose distance counts.
        generator: Source of the directions, on the CPU.

    Returns:
        The state.

    Raises:
        ValueError: The states are of different models.

    Example:
        >>> a, b = {"w": torch.zeros(3)}, {"w": torch.tensor([0.0, 3.0, 4.0])}
        >>> round(state_distance(a, random_target(a, b, torch.Generator().manual_seed(0))), 4)
        5.0
    """
    check_alike(first, second)
    result = {}
    for name, a in first.items():
        result[name] = a.detach()
        if a.is_floating_point() and a.numel():
            step = torch.randn(a.shape, generator=generator).to(a.device, a.dtype)
            length = (second[name].detach() - a.detach()).norm()
            result[name] = a.detach() + step * (length / step.norm())
    return result


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

    origin: dict[str, Tensor]
    basis: tuple[dict[str, Tensor], dict[str, Tensor]]
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
        if not length or height <= 1e-9 * _dot(v, v) ** 0.5:
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


def check_alike(first: State, second: State) -> None:
    """Raise unless two states have the same names and shapes."""
    for name in {**first, **second}:
        shapes = [tuple(s[name].shape) if name in s else None for s in (first, second)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                "two states of one architecture are required, but "
                f"{name!r} has shape {shapes[0]} in the first and {shapes[1]} in the second "
                "(None: it is missing)."
            )


def _dot(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    return sum(torch.dot(a[n].flatten(), b[n].flatten()).item() for n in a)
