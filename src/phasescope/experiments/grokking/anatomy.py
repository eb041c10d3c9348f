"""What the claims about heads, neurons, singular values and logits are decided on, of one network.

Letters: i, j places or tokens of the operands; h heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from phasescope.analysis.grokking import (
    Observation,
    fit_patterns,
    fourier_basis,
    fourier_components,
    gini,
    measure,
    power_gini,
)
from phasescope.datasets import Coordinates, Split, Task
from phasescope.models import PairTransformer
from phasescope.training import cross_entropy_float64

EXTRA_SERIES = ("pattern_fve", "rank_W_E", "power_gini_W_E_other")


def extra_values(seen: Observation, task: Task) -> dict[str, float]:
    """What is followed over training beside the progress measures.

    Args:
        seen: A network on all pairs.
        task: Its task.

    Returns:
        Mean over heads of how well a wave explains the attention; participation ratio of the
        embedding's singular values; power-Gini of the embedding in the basis that is not the
        operation's own (NaN without one).
    """
    own, other = task.natural, other_coordinates(task)
    fit = fit_patterns(fourier_basis(own.orders), own.on_pairs(seen.pattern[..., 0]))
    embedding = None if other is None else seen.W_E[other.left]
    return {
        "pattern_fve": fit.fve.nan_to_num(0.0).mean().item(),
        "rank_W_E": participation_ratio(seen.W_E),
        "power_gini_W_E_other": float("nan")
        if other is None or embedding is None
        else power_gini(fourier_basis(other.orders), embedding),
    }


def anatomy(model: PairTransformer, seen: Observation, task: Task, split: Split) -> dict[str, Any]:
    """Heads, neurons, singular values and principal components of a trained network.

    Args:
        model: The network.
        seen: The same on all pairs.
        task: Its task.
        split: Which rows it was trained on.
    """
    row = measure(seen, task, split)
    effects = head_effects(model, task, split)
    n_frequencies = fourier_basis(task.natural.orders).n_frequencies
    keys = row.keys["neuron_clusters"].base
    logits = seen.logits.double() - seen.logits.double().mean((0, 1))
    _, S, Vh = torch.linalg.svd(logits.flatten(0, 1), full_matrices=False)
    leading = logits @ Vh[0]
    other = other_coordinates(task)
    return {
        "constant_share": constant_share(seen.post),
        "constant_share_mid": constant_share(seen.mid),
        "rank_W_E": participation_ratio(seen.W_E),
        "rank_W_L": participation_ratio(seen.W_L),
        "key_height": sum(keys) / len(keys) / n_frequencies if keys else None,
        "n_keys": len(keys),
        "head_effects": effects,
        "head_gini": gini(torch.tensor(effects).clamp(min=0)) if max(effects) > 0 else None,
        "logit_components": [round(s, 5) for s in S[:5].tolist()],
        "leading_term": largest_term(task.natural, leading),
        "leading_term_other": None if other is None else largest_term(other, leading),
    }


def other_coordinates(task: Task) -> Coordinates | None:
    """The coordinates that are not the operation's own, where there are two."""
    return next((c for name, c in task.coordinates.items() if name != task.basis), None)


def participation_ratio(matrix: Tensor) -> float:
    """(Σs²)²/Σs⁴ of the singular values: how many of them share the energy.

    Example:
        >>> participation_ratio(torch.eye(3)), participation_ratio(torch.ones(3, 3))
        (3.0, 1.0)
    """
    power = torch.linalg.svdvals(matrix.double()).square()
    return round((power.sum().square() / power.square().sum()).item(), 9)


def constant_share(activations: Tensor) -> float:
    """Mean over neurons that are not dead of the share of energy in their mean over pairs.

    Example:
        >>> constant_share(torch.tensor([[[1.0], [1.0]], [[1.0], [1.0]]]))
        1.0
    """
    values = activations.double()
    energy = values.square().mean((0, 1))
    alive = energy > 0
    if not bool(alive.any()):
        return float("nan")
    return (values.mean((0, 1)).square()[alive] / energy[alive]).mean().item()


def largest_term(coordinates: Coordinates, values: Tensor) -> float:
    """Share of the energy about the mean that one term of the Fourier transform over pairs holds.

    Args:
        coordinates: Those of the transform.
        values: One for every pair of tokens; pairs without place are left out.
    """
    basis = fourier_basis(coordinates.orders)
    on_places = coordinates.on_pairs(values.double())
    half = fourier_components(basis, on_places - on_places.mean())
    terms = fourier_components(basis, half.T.contiguous()).square()
    return (terms.max() / terms.sum()).item()


def head_effects(model: PairTransformer, task: Task, split: Split) -> list[float]:
    """By how many nats the test loss rises where a head puts out its mean over all pairs.

    Args:
        model: The network.
        task: Its task.
        split: Which rows it was trained on.

    Returns:
        One number for each head of the last layer.
    """
    last = f"blocks.{model.shape.n_layers - 1}.attn.hook_z"
    pairs, labels = task.examples(split.test)
    means: list[Tensor] = []

    def see(name: str, value: Tensor) -> None:
        if name == last:
            means.append(value.mean(0))

    with torch.no_grad():
        model(task.pairs, see)
        # With a hook, too: nothing else differs then, not even the order of the products.
        whole = cross_entropy_float64(model(pairs, lambda name, value: None), labels).mean()
        found = []
        for head in range(model.shape.n_heads):

            def ablate(name: str, value: Tensor, head: int = head) -> Tensor | None:
                if name != last:
                    return None
                return torch.cat(
                    [value[:, :head], means[0][head].expand_as(value[:, :1]), value[:, head + 1 :]],
                    dim=1,
                )

            loss = cross_entropy_float64(model(pairs, ablate), labels).mean()
            found.append((loss - whole).item())
    return found
