"""Taking directions out of trained weights, beside random directions of equal length.

Letters: k directions, P parameters, m strengths, n controls, c measured numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from phasescope.components.subspace import Subspace
from phasescope.interventions.subspace_training import check_subspace
from phasescope.interventions.weights import AtWeights, check_length, flat_weights
from phasescope.parameters import ParameterTable

ALPHAS = (0.0, 0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True, eq=False)
class Ablation:
    """A measure of a model at growing strengths of an ablation, beside its controls."""

    alphas: tuple[float, ...]
    """Strengths: 0 is the trained model, 1 takes the part out, 2 reverses it."""
    values: Float64[Tensor, "m c"]
    """The measure without the part, a row for each strength."""
    controls: Float64[Tensor, "n m c"]
    """The same after as long a step along random directions of the parameters."""
    controls_within: Float64[Tensor, "n2 m c"]
    """The same along random directions of the subspace `within`; no rows if there is none."""
    removed: float
    """Length of the part: Euclidean norm of the step at strength 1."""
    displacement: float
    """Length of the whole displacement since the start."""


def ablated(
    start: Float[Tensor, " P"], end: Float[Tensor, " P"], part: Subspace, alpha: float = 1.0
) -> Float[Tensor, " P"]:
    r"""Weights with a part of what training changed taken out: $w - \alpha B^\top B (w - w_0)$.

    Relative to the initialisation, never to the origin: the part of the initial weights in the
    subspace stays. Strength 1 undoes the training there, 2 does the opposite of it.

    Args:
        start: Weights $w_0$ before the training.
        end: Weights w after it.
        part: What to take out; a component number i of a spectrum is the subspace of its row i.
        alpha: Strength, dimensionless.

    Returns:
        The weights; `AtWeights` puts a model there.

    Raises:
        ValueError: The two do not have the subspace's number of parameters.

    Example:
        >>> x_axis = Subspace("x", torch.tensor([[1.0, 0.0]]))
        >>> ablated(torch.tensor([1.0, 1.0]), torch.tensor([3.0, 4.0]), x_axis)
        tensor([1., 4.])
    """
    P = part.basis.shape[1]
    if start.shape != (P,) or end.shape != (P,):
        raise ValueError(
            f"weights of the {P} parameters of {part.name!r} are required, but shapes "
            f"{tuple(start.shape)} and {tuple(end.shape)} arrived. Take all three from one model."
        )
    basis = part.basis.to(end.device, end.dtype)
    return end - alpha * ((basis @ (end - start)) @ basis)


def ablate(
    model: nn.Module,
    start: Float[Tensor, " P"],
    part: Subspace,
    measure: Callable[[nn.Module], float | Float[Tensor, " c"]],
    *,
    alphas: Sequence[float] = ALPHAS,
    n_controls: int = 20,
    within: Subspace | None = None,
    seed: int = 0,
) -> Ablation:
    """A measure of a trained model as a part of its displacement is taken out, beside controls.

    Any step of that length may hurt, or help: what the part means shows beside random directions
    along which the weights are moved as far, both in the whole space and, with `within`, in the
    subspace that the part belongs to (random directions of the whole space are nearly orthogonal to
    everything that training does, those of the subspace are not).

    Args:
        model: The trained model; it is not changed.
        start: Weights before the training, see `flat_weights`.
        part: What to take out.
        measure: Takes the model's place at other weights, and returns a number or several: losses
            of classes (`class_losses`), phases or tasks.
        alphas: Strengths.
        n_controls: Random directions of each kind.
        within: The subspace of the second kind of controls, such as all leading directions.
        seed: Of the directions.

    Returns:
        The measures.

    Raises:
        ValueError: A subspace or the start belong to another model, or nothing of the displacement
            lies in the part.

    Example:
        >>> line = nn.Linear(2, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = line.weight.copy_(torch.tensor([[3.0, 4.0]]))
        >>> x_axis = Subspace("x", torch.tensor([[1.0, 0.0]]))
        >>> at_ones = lambda m: m(torch.ones(1, 2)).item()
        >>> ablate(line, torch.zeros(2), x_axis, at_ones, n_controls=1).values.flatten()
        tensor([7.0000, 5.5000, 4.0000, 2.5000, 1.0000], dtype=torch.float64)
    """
    table = ParameterTable.from_module(model)
    check_length(table, start)
    for subspace in (part,) if within is None else (part, within):
        check_subspace(table, subspace)
    end = flat_weights(model)
    step = end - ablated(start, end, part)
    removed, displacement = float(step.norm()), float((end - start).norm())
    if not math.isfinite(displacement):
        raise ValueError(
            "finite weights are required at both ends of the training, but their difference has "
            f"length {displacement}. Check start= and the model's weights for NaN and infinity."
        )
    if not removed > 0:
        raise ValueError(
            f"a part in which the training moved is required, but the displacement (length "
            f"{displacement:.3g}) has nothing in {part.name!r}."
        )

    def along(direction: Tensor) -> Float64[Tensor, "m c"]:
        rows = [measure(AtWeights(model, end - alpha * direction)) for alpha in alphas]
        return torch.stack(
            [torch.as_tensor(r, dtype=torch.float64).reshape(-1).cpu() for r in rows]
        )

    generator = torch.Generator().manual_seed(seed)
    values = along(step)
    none = torch.zeros(0, *values.shape, dtype=torch.float64)

    def controls(subspace: Subspace | None) -> Float64[Tensor, "n m c"]:
        found = []
        for _ in range(n_controls):
            size = len(end) if subspace is None else len(subspace.basis)
            drawn = torch.randn(size, generator=generator).to(end.device, end.dtype)
            if subspace is not None:
                drawn = drawn @ subspace.basis.to(end.device, end.dtype)
            found.append(along(removed * drawn / drawn.norm()))
        return torch.stack(found) if found else none

    return Ablation(
        tuple(alphas),
        values,
        controls(None),
        none if within is None else controls(within),
        removed,
        displacement,
    )
