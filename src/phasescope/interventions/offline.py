"""Offline replay: where a recorded training would have gone with its updates projected.

Letters: T updates, n chosen steps, k directions, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from phasescope.analysis.columns import Source, StepMatrix, source
from phasescope.components.subspace import Subspace
from phasescope.interventions.weights import AtWeights, check_length
from phasescope.parameters import ParameterTable


@dataclass(frozen=True, eq=False)
class Replay:
    """Displacements of a training since its first step, and their coordinates in a subspace."""

    subspace: Subspace
    """The subspace."""
    steps: Int64[Tensor, " n"]
    """Steps of the rows: weights before update t are at step t."""
    displacement: Float[Tensor, "n P"]
    """All that the weights have moved since the first step."""
    coordinates: Float64[Tensor, "n k"]
    """Coordinates of the displacement in the basis."""

    def inside(self, k: int | None = None) -> Float[Tensor, "n P"]:
        """The part of the displacement in the first k directions; in all of them by default.

        Raises:
            ValueError: The subspace has fewer directions.
        """
        basis = self.subspace.basis[: self._checked(k)]
        part = self.coordinates[:, : len(basis)] @ basis.double()
        return part.to(self.displacement.dtype)

    def outside(self, k: int | None = None) -> Float[Tensor, "n P"]:
        """The rest: the displacement without its part in the first k directions."""
        return self.displacement - self.inside(k)

    def captured(self, k: int | None = None) -> Float64[Tensor, " n"]:
        """Share of the squared displacement in the first k directions; 0 where nothing moved."""
        k = self._checked(k)
        part = self.coordinates[:, :k].square().sum(1)
        whole = self.displacement.double().square().sum(1)
        return torch.where(whole > 0, part / whole.clamp(min=1e-300), 0.0)

    def _checked(self, k: int | None) -> int:
        held = len(self.subspace.basis)
        if k is not None and not 1 <= k <= held:
            raise ValueError(
                f"k must be between 1 and {held}, the directions of {self.subspace.name!r}, but "
                f"k={k} arrived. Ask for fewer, or replay with a larger subspace."
            )
        return held if k is None else k


@dataclass(frozen=True, eq=False)
class ReplayCurves:
    """A measure along the original training and along its projections."""

    steps: Int64[Tensor, " n"]
    """Steps at which it was measured."""
    ks: tuple[int, ...]
    """Directions kept, or left out."""
    full: Float64[Tensor, " n"]
    """At the original weights."""
    inside: Float64[Tensor, "m n"]
    """With the first k directions only, a row for each k."""
    outside: Float64[Tensor, "m n"]
    """Without the first k directions."""


def replay(
    updates: StepMatrix,
    subspace: Subspace,
    *,
    steps: Sequence[int] | Int64[Tensor, " n"] | None = None,
    factors: float | Float[Tensor, " T"] = 1.0,
    memory: int = 400_000_000,
) -> Replay:
    r"""The displacement of a recorded training, and its part in a subspace, at chosen steps.

    $w_t - w_0 = \sum_{s<t} u_s$ and its coordinates $B (w_t - w_0)$, in one pass over the columns,
    out of core, added in float64. Because a projection is linear, projecting the displacement is
    projecting every update. For SGD, with or without momentum, that is projecting every gradient as
    it was recorded; under Adam or weight decay it is not: there the updates are what is projected.

    A replay is no training: the gradients stay those of the original weights. What happens to the
    loss when each gradient is projected as it arises shows `keep` in a new training.

    Args:
        updates: Steps × parameters, every update from the first to the last that is needed.
        subspace: Directions in the same parameters.
        steps: Steps at which the displacement is wanted: after all updates before that step. By
            default after the last update alone.
        factors: Multiplies the rows: minus the learning rate of each step turns the gradients of
            plain SGD into its updates.
        memory: Bytes for the buffers of the pass. The result, 4 n P bytes, comes on top.

    Returns:
        Displacements and coordinates.

    Raises:
        ValueError: An update is missing, a step lies outside the recording, the columns are not
            those of the subspace, or a value is not finite.

    Example:
        >>> updates = torch.tensor([[3.0, 1.0], [3.0, -4.0]])
        >>> x_axis = Subspace("x", torch.tensor([[1.0, 0.0]]))
        >>> replay(updates, x_axis, steps=[1, 2]).inside()
        tensor([[3., 0.],
                [6., 0.]])
    """
    matrix = source(updates, "cpu")
    basis = subspace.basis
    if matrix.n_columns != basis.shape[1]:
        raise ValueError(
            f"the updates must have the {basis.shape[1]} columns of the subspace "
            f"{subspace.name!r}, but they have {matrix.n_columns}. Take both from the same model."
        )
    wanted = _wanted(matrix, steps)
    ends = (wanted - matrix.steps[0]).tolist()
    scale = torch.as_tensor(factors, dtype=torch.float64).expand(matrix.n_steps)
    n = len(wanted)
    displacement = torch.empty(n, matrix.n_columns, dtype=matrix.dtype)
    coordinates = torch.zeros(n, len(basis), dtype=torch.float64)
    for first, block in matrix.blocks(matrix.width(memory, copies=2)):
        columns = slice(first, first + block.shape[1])
        rows = scale[:, None] * block.double()
        sums = torch.zeros(n, block.shape[1], dtype=torch.float64)
        for i, end in enumerate(ends):
            begin, before = (ends[i - 1], sums[i - 1]) if i else (0, 0.0)
            sums[i] = before + rows[begin:end].sum(0)
        displacement[:, columns] = sums
        coordinates += sums @ basis[:, columns].double().cpu().T
    _check_finite(coordinates, displacement, wanted)
    return Replay(subspace, wanted, displacement, coordinates)


def replay_curves(
    model: nn.Module,
    start: Float[Tensor, " P"],
    replayed: Replay,
    measure: Callable[[nn.Module], float],
    ks: Sequence[int],
) -> ReplayCurves:
    """A measure along a training, along its part in k directions, and along the rest.

    Show it beside the same for a `random_subspace` and for the subspace of another run: that k
    directions suffice says little where any k would, or where the rest suffices as well.

    Args:
        model: Any model of the kind that was trained; it is not changed.
        start: Weights at the first recorded step.
        replayed: From `replay`.
        measure: Takes the place of the model at other weights, such as
            ``lambda m: accuracy(m, x, y)``.
        ks: Numbers of directions.

    Returns:
        The measure at every step of the replay.

    Raises:
        ValueError: The model is another one, or a k exceeds the directions of the subspace.

    Example:
        >>> line = nn.Linear(1, 1, bias=False)
        >>> moved = replay(torch.tensor([[2.0], [1.0]]), Subspace("all", torch.ones(1, 1)))
        >>> at_1 = lambda m: float(m(torch.ones(1, 1)))
        >>> curves = replay_curves(line, torch.zeros(1), moved, at_1, [1])
        >>> curves.full, curves.outside
        (tensor([3.], dtype=torch.float64), tensor([[0.]], dtype=torch.float64))
    """
    table = ParameterTable.from_module(model)
    check_length(table, start)
    check_length(table, replayed.displacement[0])

    def along(displacements: Tensor) -> Tensor:
        rows = displacements.to(start.device, start.dtype)
        values = [measure(AtWeights(model, start + row)) for row in rows]
        return torch.tensor(values, dtype=torch.float64)

    return ReplayCurves(
        replayed.steps,
        tuple(ks),
        along(replayed.displacement),
        torch.stack([along(replayed.inside(k)) for k in ks]),
        torch.stack([along(replayed.outside(k)) for k in ks]),
    )


def _wanted(matrix: Source, steps: Sequence[int] | Tensor | None) -> Int64[Tensor, " n"]:
    first, last = int(matrix.steps[0]), int(matrix.steps[-1])
    gaps = (matrix.steps.diff() != 1).nonzero()
    wanted = torch.as_tensor([last + 1] if steps is None else steps, dtype=torch.int64)
    if len(wanted) == 0 or bool((wanted.diff() <= 0).any()) or not _within(wanted, first, last + 1):
        raise ValueError(
            f"steps must increase from {first} on and end by {last + 1}, one beyond the last "
            f"recorded update, but {wanted.tolist()[:5]} arrived."
        )
    if len(gaps) and int(wanted[-1]) > int(matrix.steps[gaps[0]]) + 1:
        raise ValueError(
            f"every update before step {int(wanted[-1])} is needed for a replay, but the recording "
            f"has a gap after step {int(matrix.steps[gaps[0]])}. Record them with "
            'save={"updates": phasescope.every(1)}.'
        )
    return wanted


def _within(wanted: Tensor, first: int, last: int) -> bool:
    return first <= int(wanted[0]) and int(wanted[-1]) <= last


def _check_finite(coordinates: Tensor, displacement: Tensor, steps: Tensor) -> None:
    bad = ~(coordinates.isfinite().all(1) & displacement.isfinite().all(1))
    if bool(bad.any()):
        raise ValueError(
            "every update must be finite, but an update before step "
            f"{int(steps[bad][0])} is not. Replay the steps before it only."
        )
