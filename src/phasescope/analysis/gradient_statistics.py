"""Gradients, updates and weights of every part of a network at the same steps.

Letters: n components, T steps, P parameters, w columns of a block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from phasescope.analysis.column_sums import ColumnSums
from phasescope.analysis.columns import Source, StepMatrix, source
from phasescope.analysis.parts import split_parts
from phasescope.analysis.updates import check_sums, matrix_zeros
from phasescope.components.subspace import Subspace
from phasescope.parameters import Component


@dataclass(frozen=True, eq=False)
class GradientStatistics:
    """Norms and directions of every component at the steps that all matrices share.

    What belongs to a matrix that was not given is None. Norms are L2.
    """

    names: tuple[str, ...]
    """The components, in the order of the rows."""
    sizes: Int64[Tensor, " n"]
    """Parameters of each; of a subspace its dimension."""
    steps: Int64[Tensor, " T"]
    """The steps that all matrices have."""
    gradient_norm: Float64[Tensor, "n T"]
    """‖g‖."""
    gradient_turn: Float64[Tensor, "n changes"]
    """Cosine of each gradient with the next of these steps."""
    weight_norm: Float64[Tensor, "n T"] | None
    """‖w‖ before the update."""
    gradient_weight_cosine: Float64[Tensor, "n T"] | None
    """cos(g, w): zero where the loss does not change with the scale of the component."""
    update_norm: Float64[Tensor, "n T"] | None
    """‖Δw‖, decay included."""
    descent: Float64[Tensor, "n T"] | None
    """cos(Δw, −g): 1 for plain gradient descent."""
    decay_norm: Float64[Tensor, "n T"] | None
    """Norm of the part of the update that decoupled weight decay made."""
    optimizer_norm: Float64[Tensor, "n T"] | None
    """Norm of the rest, which is the optimizer's; needs updates and decay."""

    @property
    def angular_gradient(self) -> Float64[Tensor, "n T"]:
        """‖g‖‖w‖: what stays when a component that the loss is scale-invariant to is rescaled.

        Of such a component the gradient grows as its weights shrink, which weight decay makes them
        do: ∇L(c w) = ∇L(w) / c. The product is the gradient with respect to the direction alone.
        """
        return self.gradient_norm * self._weights()

    @property
    def relative_gradient(self) -> Float64[Tensor, "n T"]:
        """‖g‖/‖w‖; times the learning rate, how far plain gradient descent turns the weights."""
        return self.gradient_norm / self._weights()

    @property
    def gradient_per_parameter(self) -> Float64[Tensor, "n T"]:
        """‖g‖/√n: root mean square of the entries."""
        return self.gradient_norm / self.sizes[:, None].double().sqrt()

    def _weights(self) -> Tensor:
        if self.weight_norm is None:
            raise ValueError(
                "this statistic needs the weights at the steps of the gradients. Pass weights=..., "
                "recorded at the same steps."
            )
        return self.weight_norm


def gradient_statistics(
    gradients: StepMatrix,
    *,
    weights: StepMatrix | None = None,
    updates: StepMatrix | None = None,
    decay: StepMatrix | None = None,
    components: Mapping[str, Component | Subspace] | None = None,
    memory: int = 400_000_000,
    device: torch.device | str | None = None,
) -> GradientStatistics:
    r"""Norms of gradients, weights, updates and decay of every component, and their directions.

    One pass in float64 over the columns of all matrices together, over the steps that all of them
    have. Of a run that recorded norms only, ``run["component_norms/gradients"]`` holds the norms;
    angles need the vectors.

    Args:
        gradients: Steps × parameters; ``run.gradients`` or any matrix.
        weights: Before each update, for angular gradients.
        updates: Changes of the weights, ``run.updates``.
        decay: The part of each update that decoupled weight decay made, ``run.decay``.
        components: Parts of the parameter vector, subspaces included; they may overlap. By default
            every tensor if the gradients know their parameters, else all columns as ``full``.
        memory: Bytes for the buffers of the pass.
        device: Where it runs; by default where the gradients lie, else the CPU.

    Returns:
        The statistics, on the CPU.

    Raises:
        ValueError: The matrices have different columns or no step in common, values are not finite,
            decay comes without updates, or a component does not fit.

    Example:
        >>> g, w = torch.tensor([[0.0, 2.0]]), torch.tensor([[3.0, 0.0]])
        >>> found = gradient_statistics(g, weights=w)
        >>> found.angular_gradient.item(), found.gradient_weight_cosine.item()
        (6.0, 0.0)

    References:
        van Laarhoven (2017), "L2 regularization versus batch and weight normalization",
        arXiv:1706.05350, section 2 (scale invariance, effective learning rate).
    """
    if decay is not None and updates is None:
        raise ValueError(
            "decay is a part of the updates and is told apart from the optimizer's part only "
            "beside them, but updates= is missing. Pass both."
        )
    given = {"gradients": gradients, "weights": weights, "updates": updates, "decay": decay}
    matrices = {
        name: source(A, device, torch.float64) for name, A in given.items() if A is not None
    }
    first = matrices["gradients"]
    steps, rows = _common(matrices)
    parts = split_parts(components, gradients, first.n_columns)
    sums = ColumnSums(parts.sets, first.n_columns)
    shares = {name: max(1, memory // len(matrices)) for name in matrices}
    width = min(m.width(shares[name], copies=8) for name, m in matrices.items())
    totals: Tensor | None = None
    inside = {
        part: {name: matrix_zeros(len(steps), s, first.device) for name in matrices}
        for part, s in parts.subspaces.items()
    }
    for blocks in zip(*(m.blocks(width) for m in matrices.values()), strict=True):
        start = blocks[0][0]
        X = {n: x[rows[n]].to(first.device) for n, (_, x) in zip(matrices, blocks, strict=True)}
        found = sums(torch.cat(list(_products(X).values())), start)
        totals = found if totals is None else totals + found
        for part, s in parts.subspaces.items():
            basis = s.basis[:, start : start + width].to(X["gradients"])
            for name, x in X.items():
                inside[part][name] += x @ basis.T
    assert totals is not None
    lengths = {name: len(x) for name, x in _products(_empty(matrices, len(steps))).items()}
    by_part = dict(zip(parts.sets, totals.cpu(), strict=True))
    for part, coordinates in inside.items():
        by_part[part] = torch.cat([x.sum(1) for x in _products(coordinates).values()]).cpu()
    table = torch.stack([by_part[name] for name in parts.names])
    S = dict(zip(lengths, table.split(list(lengths.values()), 1), strict=True))
    for name in matrices:
        check_sums(S[name], steps, parts.names)
    return _statistics(parts.names, parts.sizes, steps, S)


def _statistics(
    names: tuple[str, ...], sizes: Tensor, steps: Tensor, S: dict[str, Tensor]
) -> GradientStatistics:
    def norm(name: str) -> Tensor | None:
        return S[name].sqrt() if name in S else None

    g, w, u = S["gradients"].sqrt(), norm("weights"), norm("updates")
    return GradientStatistics(
        names=names,
        sizes=sizes,
        steps=steps,
        gradient_norm=g,
        gradient_turn=S["turn"] / (g[:, :-1] * g[:, 1:]),
        weight_norm=w,
        gradient_weight_cosine=None if w is None else S["along"] / (g * w),
        update_norm=u,
        descent=None if u is None else -S["down"] / (g * u),
        decay_norm=norm("decay"),
        optimizer_norm=norm("optimizer"),
    )


def _products(X: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Everything that is added up over columns, by name."""
    g = X["gradients"]
    found = {name: x.square() for name, x in X.items()} | {"turn": g[:-1] * g[1:]}
    if "weights" in X:
        found["along"] = g * X["weights"]
    if "updates" in X:
        found["down"] = g * X["updates"]
    if "decay" in X:
        found["optimizer"] = (X["updates"] - X["decay"]).square()
    return found


def _empty(matrices: Mapping[str, Source], n_rows: int) -> dict[str, Tensor]:
    return {name: torch.zeros(n_rows, 0) for name in matrices}


def _common(matrices: Mapping[str, Source]) -> tuple[Int64[Tensor, " T"], dict[str, Tensor]]:
    """Steps that all matrices have, and where they are in each."""
    widths = {name: m.n_columns for name, m in matrices.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(
            f"all matrices must have the same columns, but they have {widths}. Take them from the "
            "same run."
        )
    steps = matrices["gradients"].steps.numpy()
    for m in matrices.values():
        steps = np.intersect1d(steps, m.steps.numpy())
    if not len(steps):
        spans = {n: f"{int(m.steps[0])} ... {int(m.steps[-1])}" for n, m in matrices.items()}
        raise ValueError(
            f"the matrices must have steps in common, but there is none: {spans}. Record them with "
            "the same schedule."
        )
    rows = {
        name: torch.from_numpy(np.searchsorted(m.steps.numpy(), steps))
        for name, m in matrices.items()
    }
    return torch.from_numpy(steps), rows
