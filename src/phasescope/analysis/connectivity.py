"""Loss along paths between the weights of two models.

Axes: n points of a path, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

State = Mapping[str, Tensor]
Measure = Callable[[dict[str, Tensor]], Mapping[str, float]]
Path = Callable[[float], dict[str, Tensor]]


@dataclass(frozen=True, eq=False)
class PathValues:
    """What was measured along a path."""

    t: Float64[Tensor, " n"]
    """Places on the path, from 0 to 1."""
    values: dict[str, Float64[Tensor, " n"]]
    """Every number at every place."""
    distance: Float64[Tensor, " n"]
    """Euclidean length of the path up to each place, through all places before it."""

    def barrier(self, name: str | None = None, *, over: str = "line") -> float:
        r"""How far a path rises above its ends.

        Of losses, over the ``"line"``: $\max_t [L(t) - ((1-t) L(0) + t L(1))]$, which is 0 where
        the loss only goes down from one end to the other; over the ``"mean"``: $\max_t L(t) -
        \tfrac12 (L(0) + L(1))$, which is more than 0 whenever the ends are unequal. Of a number
        whose name ends in ``accuracy``, how far it falls below.

        Args:
            name: Of the number; it may be left out where there is one loss.
            over: ``"line"`` or ``"mean"``.

        Returns:
            In the unit of the number; not negative over the line.

        Raises:
            ValueError: There is no such number, or another `over`.
        """
        name = self._named(name)
        if over not in ("line", "mean"):
            raise ValueError(
                f"a barrier over 'line' or 'mean' can be given, but over={over!r} arrived."
            )
        y = self.values[name]
        y = -y if name.endswith("accuracy") else y
        # torch.lerp meets both ends exactly: a path that never rises has a barrier of 0.
        line = torch.lerp(y[0], y[-1], self.t) if over == "line" else (y[0] + y[-1]) / 2
        return (y - line).max().item()

    def average(self, name: str | None = None) -> float:
        """The mean over the path's length, by the trapezoid rule."""
        y = self.values[self._named(name)]
        length = self.distance[-1]
        if length == 0:
            return y.mean().item()
        return (torch.trapezoid(y, self.distance) / length).item()

    def _named(self, name: str | None) -> str:
        """A number that was measured; the only loss by default."""
        if name is None:
            losses = [n for n in self.values if n.endswith("loss")]
            name = losses[0] if len(losses) == 1 else None
        if name not in self.values:
            raise ValueError(
                f"the name of a number is required, one of {', '.join(map(repr, self.values))}, "
                f"but {name!r} arrived."
            )
        return name


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
    """Euclidean distance of all floating-point tensors of two states; tied ones count once.

    Example:
        >>> state_distance({"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 4.0])})
        5.0
    """
    copies = _copies(first, second)
    total = sum(
        (a.detach().double() - second[n].detach().double()).square().sum().item()
        for n, a in first.items()
        if a.is_floating_point() and n not in copies
    )
    return total**0.5


def random_target(first: State, second: State, generator: torch.Generator) -> dict[str, Tensor]:
    """A state as far from the first as the second is, tensor by tensor, in random directions.

    The null of a barrier between two models: what a path of this length does to the loss where
    nothing is at its end. What does not differ between the two stays, and so do ties: tensors that
    are equal in both states get one direction.

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
    result: dict[str, Tensor] = {}
    copies = _copies(first, second)
    for name, a in first.items():
        result[name] = a.detach()
        if name in copies:
            result[name] = result[copies[name]]
        elif a.is_floating_point() and a.numel():
            step = torch.randn(a.shape, generator=generator).to(a.device, a.dtype)
            length = (second[name].detach() - a.detach()).norm()
            result[name] = a.detach() + step * (length / step.norm())
    return result


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


def _copies(first: State, second: State) -> dict[str, str]:
    """Names of tensors that are another one in both states, such as tied ones, and of that one.

    Constant tensors, such as biases that begin at zero, are equal by chance.
    """
    known: dict[tuple[int, ...], list[str]] = {}
    copies: dict[str, str] = {}
    for name, a in first.items():
        if name not in second or not a.is_floating_point() or a.numel() < 2:
            continue
        same = known.setdefault(tuple(a.shape), [])
        for other in same:
            if (
                torch.equal(a, first[other])
                and torch.equal(second[name], second[other])
                and bool((a != a.flatten()[0]).any())
            ):
                copies[name] = other
                break
        else:
            same.append(name)
    return copies
