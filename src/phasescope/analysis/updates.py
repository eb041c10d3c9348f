"""How far every part of a network moved between checkpoints, and how straight.

Letters: n components, T checkpoints, P parameters, w columns of a block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from phasescope.analysis.column_sums import ColumnSums
from phasescope.analysis.columns import StepMatrix, source
from phasescope.analysis.parts import split_parts
from phasescope.components.subspace import Subspace
from phasescope.parameters import Component


@dataclass(frozen=True, eq=False)
class UpdateStatistics:
    """Movement of every component between successive checkpoints.

    Change i leads from ``steps[i]`` to ``steps[i + 1]``. The raw squared change mixes how far apart
    the checkpoints are, the learning rate, weight decay and what the part does: a part that
    diffuses changes in proportion to the number of steps, one that drifts to its square. So every
    normalisation has its own property, and none is the right one.
    """

    names: tuple[str, ...]
    """The components, in the order of the rows."""
    sizes: Int64[Tensor, " n"]
    """Parameters of each; of a subspace its dimension."""
    steps: Int64[Tensor, " T"]
    """Step of every checkpoint."""
    norm: Float64[Tensor, "n T"]
    """‖w_t‖₂."""
    change: Float64[Tensor, "n changes"]
    """‖w_{t+1} − w_t‖₂."""
    displacement: Float64[Tensor, "n T"]
    """‖w_t − w_0‖₂ from the first checkpoint on."""
    cosine: Float64[Tensor, "n turns"]
    """Cosine of each change with the next one; NaN where one of them is zero."""
    radial: Float64[Tensor, "n changes"]
    """Cosine of each change with the weights it starts from: negative where the norm shrinks."""
    rates: Float64[Tensor, " changes"] | None
    """Σ lr over the updates of each interval; None if the learning rates were not given."""
    squared_rates: Float64[Tensor, " changes"] | None
    """Σ lr² likewise."""

    def __repr__(self) -> str:
        """What it is of."""
        return (
            f"UpdateStatistics({len(self.names)} components, {len(self.steps)} checkpoints from "
            f"step {int(self.steps[0])} to {int(self.steps[-1])})"
        )

    def row(self, name: str) -> int:
        """The row of a component.

        Raises:
            KeyError: There is none of this name.
        """
        if name not in self.names:
            raise KeyError(
                f"no component is called {name!r}; there are {', '.join(self.names[:8])}"
                f"{', ...' if len(self.names) > 8 else ''}."
            )
        return self.names.index(name)

    @property
    def path_length(self) -> Float64[Tensor, "n T"]:
        """Sum of the changes up to each checkpoint."""
        start = self.change.new_zeros(len(self.change), 1)
        return torch.cat([start, self.change.cumsum(1)], 1)

    @property
    def efficiency(self) -> Float64[Tensor, " n"]:
        """Displacement over path length at the end: 1 for a straight line, NaN without movement.

        A walk of k equal steps in many dimensions has 1/√k, so compare only like with like.
        """
        return self.displacement[:, -1] / self.path_length[:, -1]

    @property
    def per_parameter(self) -> Float64[Tensor, "n changes"]:
        """Squared change over the number of parameters, as the per-component post plots it."""
        return self.change.square() / self.sizes[:, None]

    @property
    def per_step(self) -> Float64[Tensor, "n changes"]:
        """Squared change per parameter and step: constant for a part that diffuses."""
        return self.per_parameter / self.steps.diff()

    @property
    def per_squared_step(self) -> Float64[Tensor, "n changes"]:
        """Squared change per parameter over squared steps: constant for a part that drifts."""
        return self.per_parameter / self.steps.diff().square()

    @property
    def relative(self) -> Float64[Tensor, "n changes"]:
        """Change over the norm of the weights it starts from."""
        return self.change / self.norm[:, :-1]

    @property
    def per_squared_rates(self) -> Float64[Tensor, "n changes"]:
        """Squared change per parameter over Σ lr²: what independent steps of SGD leave constant."""
        return self.per_parameter / self._given(self.squared_rates)

    @property
    def per_rates(self) -> Float64[Tensor, "n changes"]:
        """Squared change per parameter over (Σ lr)².

        At most about 1 under Adam, which is reached where every update goes the same way.
        """
        return self.per_parameter / self._given(self.rates).square()

    @staticmethod
    def _given(rates: Tensor | None) -> Tensor:
        if rates is None:
            raise ValueError(
                "this normalisation needs the learning rate of every update. Pass "
                "learning_rates=..., entry t of update t, to update_statistics."
            )
        return rates


def update_statistics(
    weights: StepMatrix,
    *,
    components: Mapping[str, Component | Subspace] | None = None,
    learning_rates: Float[Tensor, " n_updates"] | None = None,
    memory: int = 400_000_000,
    device: torch.device | str | None = None,
) -> UpdateStatistics:
    r"""Norms, changes, displacements and directions of every component over a series of weights.

    One pass in float64 over the columns, whatever the number of components. Differences are formed
    before they are squared, so small changes of large weights keep their digits.

    Args:
        weights: Checkpoints × parameters; ``run.weights``, an imported series or any matrix. Its
            `steps` are used if it has them.
        components: Parts of the parameter vector, subspaces included; they may overlap. By default
            every tensor if the matrix knows its parameters, else all columns as ``full``.
        learning_rates: Rate of every update, entry t of the update from step t to t + 1, at least
            up to the last checkpoint.
        memory: Bytes for the buffers of the pass.
        device: Where it runs; by default where a tensor lies, else the CPU.

    Returns:
        The statistics, on the CPU.

    Raises:
        ValueError: There are fewer than two checkpoints, values are not finite, a component does
            not fit the columns, or learning rates are missing.

    Example:
        >>> line = torch.arange(4.0)[:, None] * torch.tensor([3.0, 4.0])
        >>> found = update_statistics(line)
        >>> found.change, found.efficiency
        (tensor([[5., 5., 5.]], dtype=torch.float64), tensor([1.], dtype=torch.float64))
        >>> found.per_parameter[0, 0].item(), found.cosine[0].tolist()
        (12.5, [1.0, 1.0])

    References:
        "What's going on with Per-Component Weight Updates?" (LessWrong): squared change over number
        of parameters. Everything else is there to take it apart.
    """
    matrix = source(weights, device, torch.float64)
    T = matrix.n_steps
    if T < 2:
        raise ValueError(
            f"changes need at least two checkpoints, but {T} arrived. Record more of them: "
            "save={'weights': ps.log_spaced(200)}."
        )
    parts = split_parts(components, weights, matrix.n_columns)
    sums = ColumnSums(parts.sets, matrix.n_columns)
    totals = torch.zeros(sums.n_components, 5 * T - 4, dtype=torch.float64, device=matrix.device)
    projected = {name: matrix_zeros(T, s, matrix.device) for name, s in parts.subspaces.items()}
    width = matrix.width(memory, reserved=totals.nbytes, copies=12)
    for start, X in matrix.blocks(width):
        totals += sums(_movements(X), start)
        for name, subspace in parts.subspaces.items():
            basis = subspace.basis[:, start : start + width].to(X)
            projected[name] += X @ basis.T
    rows = dict(zip(parts.sets, totals.cpu(), strict=True))
    rows |= {name: _movements(x).sum(1).cpu() for name, x in projected.items()}
    found = torch.stack([rows[name] for name in parts.names])
    check_sums(found[:, :T], matrix.steps, parts.names)
    norms, change, away, turns, out = found.split([T, T - 1, T, T - 2, T - 1], 1)
    norms, change, away = norms.sqrt(), change.sqrt(), away.sqrt()
    rates = interval_sums(learning_rates, matrix.steps)
    return UpdateStatistics(
        names=parts.names,
        sizes=parts.sizes,
        steps=matrix.steps,
        norm=norms,
        change=change,
        displacement=away,
        cosine=turns / (change[:, :-1] * change[:, 1:]),
        radial=out / (norms[:, :-1] * change),
        rates=rates[0],
        squared_rates=rates[1],
    )


def _movements(X: Tensor) -> Tensor:
    """Everything that is added up over columns: [5 T − 4, w]."""
    D = X.diff(dim=0)
    return torch.cat(
        [X.square(), D.square(), (X - X[:1]).square(), D[:-1] * D[1:], X[:-1] * D], dim=0
    )


def matrix_zeros(n_rows: int, subspace: Subspace, device: torch.device) -> Float64[Tensor, "T k"]:
    """Where coordinates in a subspace are added up."""
    return torch.zeros(n_rows, len(subspace.basis), dtype=torch.float64, device=device)


def check_sums(squares: Float64[Tensor, "n T"], steps: Tensor, names: tuple[str, ...]) -> None:
    """Raise where a component's sums of squares are not finite.

    Raises:
        ValueError: Naming component and step.
    """
    bad = (~squares.isfinite()).nonzero()
    if len(bad):
        i, t = bad[0].tolist()
        raise ValueError(
            f"every value must be finite, but {names[i]!r} holds others at step {int(steps[t])}. "
            "Leave this step out, or find why training produced it."
        )


def interval_sums(
    rates: Float[Tensor, " n_updates"] | None, steps: Int64[Tensor, " T"]
) -> tuple[Float64[Tensor, " changes"] | None, Float64[Tensor, " changes"] | None]:
    """Sums of learning rates and of their squares between successive checkpoints."""
    if rates is None:
        return None, None
    last = int(steps[-1])
    if len(rates) < last:
        raise ValueError(
            f"learning_rates must hold the rate of every update up to the last checkpoint, of step "
            f"{last}, but it has {len(rates)} entries. Entry t is the rate of update t."
        )
    kept = rates.detach().double().cpu()[:last]
    sums = []
    for values in (kept, kept.square()):
        total = torch.cat([values.new_zeros(1), values.cumsum(0)])
        sums.append(total[steps].diff())
    return sums[0], sums[1]
