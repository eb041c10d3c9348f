"""Whether two models lie in one basin of the loss: one call, and what it found."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from phasescope.analysis.connectivity import (
    PathValues,
    State,
    StateMeasure,
    check_alike,
    linear_path,
    path_values,
    random_target,
    state_distance,
)
from phasescope.analysis.permutations import (
    PermutationSymmetry,
    match_activations,
    match_weights,
    permutation_symmetry,
)
from phasescope.interventions.curves import CurveTraining, train_curve

AS_THEY_ARE = "as they are"
WEIGHTS, ACTIVATIONS, CURVE = "weights matched", "activations matched", "curve"
SHARE_OF_RANDOM = 0.1
"""The tolerance where none is given: this share of the rise half-way to random targets."""
BY_RANDOM = "a tenth of the median rise half-way to random targets"


@dataclass(frozen=True, eq=False)
class BasinReport:
    """What lies between two models; printed, it says whether they share a basin."""

    name: str
    """The number that decides, such as ``"test loss"``."""
    paths: dict[str, PathValues]
    """Straight lines to the second model as it is and permuted, and a curve if one was trained."""
    random: tuple[PathValues, ...]
    """Straight lines from the first model to random targets as far away as the second: the null."""
    distances: dict[str, float]
    """Euclidean distance to the second model as it is and permuted."""
    tolerance: float
    """The largest barrier within a basin."""
    tolerance_source: str
    """Where the tolerance comes from."""
    symmetry: PermutationSymmetry | None
    """What was permuted."""
    permutations: dict[str, dict[str, Tensor]]
    """Of the second model, by the name of the path."""
    curve: CurveTraining | None
    """The trained curve."""

    @property
    def barriers(self) -> dict[str, float]:
        """Of every path, over the line between its ends' values."""
        return {name: path.barrier(self.name) for name, path in self.paths.items()}

    @property
    def random_barriers(self) -> list[float]:
        """How far the first halves of the paths to random targets rise over the models' line.

        The middle of a line between two models is half their distance from both: so far the random
        paths are followed, too.
        """
        ends = next(iter(self.paths.values())).values[self.name][[0, -1]]
        return [rise_in_first_half(path, self.name, ends) for path in self.random]

    @property
    def same_basin(self) -> bool:
        """Whether a straight line, after permutation if need be, stays within the tolerance."""
        straight = {k: b for k, b in self.barriers.items() if k != CURVE}
        return min(straight.values()) <= self.tolerance

    @property
    def how(self) -> str:
        """The first path within the tolerance; empty if there is none."""
        inside = [name for name, b in self.barriers.items() if b <= self.tolerance]
        return inside[0] if inside else ""

    def __str__(self) -> str:
        first = next(iter(self.paths.values())).values[self.name]
        within = "one basin" if self.same_basin else "different basins"
        how = f" ({self.how})" if self.same_basin else ""
        if not self.same_basin and self.how == CURVE:
            how = " of straight lines, but a curve connects them"
        if self.tolerance_source == BY_RANDOM:
            how += ", beside random targets alone: no forks were given"
        null = self.random_barriers
        lines = [
            f"{within}{how}",
            f"{self.name}: {first[0].item():.4g} and {first[-1].item():.4g}",
            *(
                f"barrier, {name}: {b:.4g}"
                + (f" at distance {self.distances[name]:.4g}" if name in self.distances else "")
                for name, b in self.barriers.items()
            ),
            f"rise half-way to {len(null)} random targets as far away: "
            f"{min(null):.4g} to {max(null):.4g}",
            f"tolerance: {self.tolerance:.4g}, {self.tolerance_source}",
        ]
        return "\n".join(lines)


def same_basin(
    model: nn.Module,
    first: State,
    second: State,
    data: Mapping[str, tuple[Tensor, Tensor]],
    *,
    loss: Callable[[Any, Tensor], Tensor] = functional.cross_entropy,
    on: str | None = None,
    forks: Sequence[float] | None = None,
    tolerance: float | None = None,
    match: Sequence[str] = (WEIGHTS, ACTIVATIONS),
    curve_steps: int = 0,
    curve_lr: float = 0.01,
    n_points: int = 25,
    n_random: int = 3,
    n_matched: int = 1000,
    batch_size: int = 500,
    seed: int = 0,
) -> BasinReport:
    """Are these two models in one basin?

    The loss is measured along straight lines from the first model to the second one: as it is, and
    with its hidden units permuted so that weights or activations match. A line whose barrier (the
    rise over the line between the ends' losses) stays within the tolerance shows one basin. What
    counts as flat is best measured: train the first model a second time from halfway with other
    batches, a few times, and give the barriers between such `forks`; the tolerance is then their
    95th percentile. Without forks or a `tolerance` it is a tenth of the rise half-way to random
    targets as far away, which only says that a line is much better than nothing.

    After alignment, much depends on how the models were trained: small multilayer perceptrons on
    MNIST are connected after SGD with large and Adam with small learning rates, not the other way
    round. Running statistics of batch norms are counted anew at every point.

    Args:
        model: The module, for its architecture; not changed.
        first: A state dict of it.
        second: Another one.
        data: Name to inputs and targets. The first set, the training data, is used for matching,
            batch norms and curves; the last one decides.
        loss: Mean loss of (outputs, targets).
        on: The number that decides; by default the loss on the last set.
        forks: Barriers of `on` between forks of one run.
        tolerance: Instead of forks, the largest barrier within a basin.
        match: ``"weights matched"``, ``"activations matched"``, both or nothing.
        curve_steps: Updates of a quadratic Bezier curve towards the best permuted model; none by
            default.
        curve_lr: Its learning rate.
        n_points: Places on each path.
        n_random: Random targets.
        n_matched: Samples whose activations are compared.
        batch_size: Of the training of curves and of batch norms' statistics.
        seed: Of matching, random targets and curves.

    Returns:
        The report; print it, or draw it with `phasescope.figures.basin_paths`.

    Raises:
        ValueError: The states are of different architectures or not finite, nothing may be permuted
            though a matching is wanted, or an argument is unknown.
        TypeError: A module stands where a state dict is required, or the loss does not take what
            the model returns.

    Example:
        >>> import phasescope as ps
        >>> from phasescope.models import MLP, seeded
        >>> x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        >>> model = seeded(lambda: MLP((4, 8, 2)), 0)
        >>> symmetry = ps.permutation_symmetry(model, (x[:2],))
        >>> state = {name: 5 * value for name, value in model.state_dict().items()}
        >>> other = symmetry.permuted(state, symmetry.random(torch.Generator().manual_seed(1)))
        >>> data = {"train": (x, torch.func.functional_call(model, state, x).argmax(1))}
        >>> found = same_basin(model, state, other, data, tolerance=1e-6)
        >>> found.same_basin, found.how
        (True, 'weights matched')

    References:
        Frankle et al. (2020), arXiv:1912.05671 (linear mode connectivity). Ainsworth et al. (2022),
        arXiv:2209.04836.
    """
    unknown = [m for m in match if m not in (WEIGHTS, ACTIVATIONS)]
    if unknown or (forks is not None and (tolerance is not None or not len(forks))):
        raise ValueError(
            f"match may hold {WEIGHTS!r} and {ACTIVATIONS!r}, and forks (one barrier or more) or a "
            f"tolerance may be given, but match={list(match)}, forks={forks} and "
            f"tolerance={tolerance} arrived."
        )
    given = [tolerance] if tolerance is not None else list(forks or [])
    if not all(math.isfinite(barrier) for barrier in given) or (tolerance or 0) < 0 or n_random < 1:
        raise ValueError(
            "a tolerance of 0 or more, finite barriers of forks and at least one random target are "
            f"required, but tolerance={tolerance}, forks={forks} and n_random={n_random} arrived."
        )
    if not isinstance(data, Mapping) or not data:
        raise ValueError(
            "data must be a dictionary of at least one set, such as {'train': (x, y)}, but "
            f"{'an empty one' if isinstance(data, Mapping) else type(data).__name__} arrived."
        )
    sets = list(data)
    on = f"{sets[-1]} loss" if on is None else on
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for state, what in ((first, "first"), (second, "second")):
        _check_architecture(own, state, what)
    check_alike(first, second)
    x, y = data[sets[0]]
    norms = any(isinstance(m, _BatchNorm) and m.track_running_stats for m in model.modules())
    statistics = [(part,) for part in x[: 4 * batch_size].split(batch_size)] if norms else None
    measure = StateMeasure(model, data, loss=loss, statistics=statistics)
    known = measure(first)
    if on not in known:
        raise ValueError(f"on must be one of {', '.join(known)}, but {on!r} arrived.")
    generator = torch.Generator().manual_seed(seed)

    symmetry = permutation_symmetry(model, (x[:2],), state=first, seed=seed) if match else None
    permutations, ends = {}, {AS_THEY_ARE: {n: v.detach() for n, v in second.items()}}
    for name in match:
        assert symmetry is not None
        if name == WEIGHTS:
            found = match_weights(symmetry, first, second, seed=seed).permutations
        else:
            batches = [(part,) for part in x[:n_matched].split(batch_size)]
            found = match_activations(symmetry, model, first, second, batches)
        permutations[name] = found
        ends[name] = symmetry.permuted(second, found)
    paths = {
        name: path_values(measure, linear_path(first, end), n_points=n_points)
        for name, end in ends.items()
    }
    random = tuple(
        path_values(
            measure, linear_path(first, random_target(first, second, generator)), n_points=n_points
        )
        for _ in range(n_random)
    )
    trained = None
    if curve_steps:
        best = min(paths, key=lambda name: paths[name].barrier(on))
        trained = _curve(
            model, first, ends[best], (x, y), loss, curve_steps, curve_lr, batch_size, seed
        )
        paths[CURVE] = path_values(measure, trained.curve, n_points=n_points)
    distances = {name: state_distance(first, end) for name, end in ends.items()}
    ends_values = paths[AS_THEY_ARE].values[on][[0, -1]]
    null = [rise_in_first_half(path, on, ends_values) for path in random]
    tolerance, source = _tolerance(forks, tolerance, null)
    return BasinReport(
        on, paths, random, distances, tolerance, source, symmetry, permutations, trained
    )


def rise_in_first_half(path: PathValues, name: str, ends: Tensor) -> float:
    """How far the first half of a path rises over the line between two values."""
    half = path.t <= 0.5
    sign = -1.0 if name.endswith("accuracy") else 1.0
    line = ends[0] + path.t * (ends[1] - ends[0])
    return (sign * (path.values[name] - line))[half].max().item()


def _check_architecture(own: Mapping[str, Tensor], state: State, what: str) -> None:
    if isinstance(state, nn.Module):
        raise TypeError(
            f"two state dicts are required, but the {what} one is a {type(state).__name__}. Pass "
            "its state_dict()."
        )
    for name, value in own.items():
        shape = tuple(state[name].shape) if name in state else None
        if name in state and shape != tuple(value.shape):
            raise ValueError(
                f"state dicts of the module are required, where {name!r} has shape "
                f"{tuple(value.shape)}, but in the {what} one it has {shape}. Build the module as "
                "both were built; models of different architectures lie in different spaces."
            )
        if name not in state and isinstance(value, nn.Parameter):
            raise ValueError(
                f"state dicts of the module are required, but {name!r} is missing in the {what} "
                "one. Is it of another architecture, or do its names carry a prefix of a wrapper?"
            )
        if name in state and not bool(state[name].isfinite().all()):
            raise ValueError(
                f"finite weights are required, but {name!r} of the {what} model has some that are "
                "not. Did its training diverge?"
            )


def _tolerance(
    forks: Sequence[float] | None, tolerance: float | None, random: Sequence[float]
) -> tuple[float, str]:
    if forks is not None:
        level = torch.quantile(torch.tensor(list(forks), dtype=torch.float64), 0.95).item()
        return max(level, 0.0), f"95th percentile of {len(forks)} barriers between forks"
    if tolerance is not None:
        return tolerance, "as given"
    middle = sorted(random)[len(random) // 2]
    return SHARE_OF_RANDOM * middle, BY_RANDOM


def _curve(
    model: nn.Module,
    first: State,
    second: State,
    data: tuple[Tensor, Tensor],
    loss: Callable[[Any, Tensor], Tensor],
    n_steps: int,
    lr: float,
    batch_size: int,
    seed: int,
) -> CurveTraining:
    x, y = data
    generator = torch.Generator().manual_seed(seed)
    names = [n for n, _ in model.named_parameters() if n in first]
    buffers = {n for n, _ in model.named_buffers()}

    def batch_loss(state: dict[str, Tensor], rows: Tensor) -> Tensor:
        state = {n: v.clone() if n in buffers else v for n, v in state.items()}
        out = torch.func.functional_call(model, state, (x[rows],), tie_weights=False)
        return loss(out, y[rows])

    batches = [
        torch.randint(0, len(x), (min(batch_size, len(x)),), generator=generator)
        for _ in range(n_steps)
    ]
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    for module, _ in modes:
        if isinstance(module, _BatchNorm):
            module.training = True
    try:
        return train_curve(
            batch_loss, first, second, batches, n_steps=n_steps, trained=names, lr=lr, seed=seed
        )
    finally:
        for module, mode in modes:
            module.training = mode
