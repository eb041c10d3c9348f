"""Whether two models lie in one basin of the loss: one call for any two states of a module."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from phasescope.analysis.connectivity import (
    State,
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
from phasescope.analysis.state_measure import StateMeasure, check_sets
from phasescope.interventions.basin_report import (
    ACTIVATIONS,
    AS_THEY_ARE,
    BY_RANDOM,
    CURVE,
    ROUNDING,
    SHARE_OF_RANDOM,
    WEIGHTS,
    BasinReport,
    rise_in_first_half,
)
from phasescope.interventions.curves import CurveTraining, train_curve
from phasescope.models.calling import call_at, tied_names, with_ties


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
    targets as far away, and at most a tenth of what the better model has learned (its distance to
    the loss of one answer to every input), which only says that a line is much better than nothing.
    Rounding is allowed for in each case: a model and its permuted copy are in one basin.

    A basin is where trainings end. Where neither model has learned anything, or one half of what
    the other has, the report says that the question is undecided.

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
    between = _checked(data, match, forks, tolerance, n_random)
    sets = list(data)
    on = f"{sets[-1]} loss" if on is None else on
    first, second = (
        _of_module(model, state, what) for state, what in ((first, "first"), (second, "second"))
    )
    check_alike(first, second)
    x, y = data[sets[0]]
    norms = any(isinstance(m, _BatchNorm) and m.track_running_stats for m in model.modules())
    statistics = [(part,) for part in x[: 4 * batch_size].split(batch_size)] if norms else None
    measure = StateMeasure(model, data, loss=loss, statistics=statistics)
    known = measure(first)
    if on not in known:
        raise ValueError(f"on must be one of {', '.join(known)}, but {on!r} arrived.")
    generator = torch.Generator().manual_seed(seed)

    symmetry = _symmetry(model, x, first, seed) if match else None
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
    learned = _learned(measure, (first, second), on, ends_values)
    eps = max(torch.finfo(v.dtype).eps for v in first.values() if v.is_floating_point())
    rounding = ROUNDING * eps * ends_values.abs().max().item()
    tolerance, source = _tolerance(between, tolerance, null, learned)
    return BasinReport(
        on,
        paths,
        random,
        distances,
        max(tolerance, rounding),
        source,
        symmetry,
        permutations,
        trained,
        _undecided(learned, rounding),
        "running statistics counted anew" if norms else "",
    )


def _checked(
    data: Mapping[str, tuple[Tensor, Tensor]],
    match: Sequence[str],
    forks: Sequence[float] | None,
    tolerance: float | None,
    n_random: int,
) -> list[float] | None:
    """The barriers between forks as numbers; raises where an argument is not what it should be."""
    if isinstance(match, str) or any(m not in (WEIGHTS, ACTIVATIONS) for m in match):
        raise ValueError(
            f"match must be a sequence that may hold {WEIGHTS!r} and {ACTIVATIONS!r}, such as "
            f"({WEIGHTS!r},), but {match!r} arrived."
        )
    if forks is not None and tolerance is not None:
        raise ValueError(
            "either forks or a tolerance can be given, but both arrived: the tolerance is the 95th "
            "percentile of the forks."
        )
    between = None if forks is None else torch.as_tensor(forks, dtype=torch.float64)
    if between is not None and (between.ndim != 1 or not len(between)):
        raise ValueError(
            "forks must be one barrier or more in a row, but something of shape "
            f"{tuple(between.shape)} arrived. Of the matrix of pairwise_barriers take each pair "
            "once: matrix[*torch.triu_indices(n, n, 1)]."
        )
    numbers = [] if between is None else between.tolist()
    if not all(map(math.isfinite, [*numbers, tolerance or 0])) or (tolerance or 0) < 0:
        raise ValueError(
            "a tolerance of 0 or more and finite barriers of forks are required, but "
            f"tolerance={tolerance} and forks={forks} arrived."
        )
    if n_random < 1:
        raise ValueError(f"at least one random target is required, but n_random is {n_random}.")
    if not isinstance(data, Mapping) or not data:
        raise ValueError(
            "data must be a dictionary of at least one set, such as {'train': (x, y)}, but "
            f"{'an empty one' if isinstance(data, Mapping) else type(data).__name__} arrived."
        )
    check_sets(data)
    return None if between is None else numbers


def _of_module(model: nn.Module, state: State, what: str) -> dict[str, Tensor]:
    """A state of the module, tied weights once; raises where it is none."""
    if not isinstance(state, Mapping):
        hint = "Pass its state_dict()" if isinstance(state, nn.Module) else "Load files first"
        raise TypeError(
            f"two state dicts are required, but the {what} one is a {type(state).__name__}. {hint}."
        )
    state = with_ties(state, tied_names(model), f"the {what} state")
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
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
    return state


def _symmetry(model: nn.Module, x: Tensor, state: State, seed: int) -> PermutationSymmetry:
    try:
        return permutation_symmetry(model, (x[:2],), state=state, seed=seed)
    except ValueError as error:
        raise ValueError(f"{error} To compare the models as they are, pass match=().") from error


def _learned(
    measure: StateMeasure, states: tuple[State, State], on: str, ends: Tensor
) -> list[float] | None:
    """How much better each end is than one answer to all inputs; None if that is not known."""
    sign = -1.0 if on.endswith("accuracy") else 1.0
    better = int(sign * ends[1] < sign * ends[0])
    nothing = measure.uninformed(states[better]).get(on)
    return None if nothing is None else [sign * (nothing - end) for end in ends.tolist()]


def _undecided(learned: list[float] | None, rounding: float) -> str:
    if learned is None:
        return ""
    if max(learned) <= rounding:
        return "neither model is better than one answer to all inputs, so neither lies in a basin"
    if min(learned) < max(learned) / 2:
        share = max(min(learned), 0.0) / max(learned)
        return f"one model has learned {share:.0%} of what the other has"
    return ""


def _tolerance(
    forks: Sequence[float] | None,
    tolerance: float | None,
    random: Sequence[float],
    learned: list[float] | None,
) -> tuple[float, str]:
    if forks is not None:
        level = torch.quantile(torch.tensor(list(forks), dtype=torch.float64), 0.95).item()
        return max(level, 0.0), f"95th percentile of {len(forks)} barriers between forks"
    if tolerance is not None:
        return tolerance, "as given"
    scale = sorted(random)[len(random) // 2]
    if learned is not None:
        scale = min(scale, max(learned))
    return SHARE_OF_RANDOM * max(scale, 0.0), BY_RANDOM


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
    generator, tied = torch.Generator().manual_seed(seed), tied_names(model)
    names = [n for n, _ in model.named_parameters()]
    buffers = {n for n, _ in model.named_buffers()}

    def batch_loss(state: dict[str, Tensor], rows: Tensor) -> Tensor:
        state = {n: v.clone() if n in buffers else v for n, v in state.items()}
        return loss(call_at(model, state, tied, (x[rows],)), y[rows])

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
