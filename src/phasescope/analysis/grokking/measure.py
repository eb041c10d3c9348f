"""One row of numbers about one checkpoint: the progress measures of the literature.

Letters: a, b tokens of the operands; n places of a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from phasescope.analysis.grokking.algorithms import circularity, distance_irrelevance
from phasescope.analysis.grokking.basis import FourierBasis, fourier_basis
from phasescope.analysis.grokking.cubes import cube_fit
from phasescope.analysis.grokking.keys import (
    KeyFrequencies,
    keys_by_neuron_clusters,
    keys_by_norms,
)
from phasescope.analysis.grokking.losses import (
    Loss,
    excluded_logits,
    excluded_loss_per_frequency,
    pair_losses,
    restricted_logits,
)
from phasescope.analysis.grokking.neurons import NeuronPurity, neuron_purity
from phasescope.analysis.grokking.norms import UpdateNorms, squared_norms, update_norms
from phasescope.analysis.grokking.numerics import FormatEffect, format_effect
from phasescope.analysis.grokking.observation import Observation
from phasescope.analysis.grokking.sparsity import nanda_gini, power_gini
from phasescope.analysis.grokking.sums import direction_energy
from phasescope.datasets import Coordinates, Split, Task


@dataclass(frozen=True)
class Sparsity:
    """Gini coefficients of the spectra of embedding and neuron-to-logit map."""

    nanda_W_E: float
    """Of component norms of W_E, constant, cosines and sines apart."""
    nanda_W_L: float
    """The same of W_L along the results."""
    power_W_E: float
    """Of the power of the frequencies of W_E, without the constant."""
    power_W_L: float
    """The same of W_L along the results."""


@dataclass(frozen=True)
class PureNeurons:
    """Neurons that one frequency explains to more than 85 %."""

    n: int
    """Their number."""
    counts: dict[int, int]
    """How many of each frequency."""
    n_constant: int
    """Neurons that do not vary over the pairs, dead ones among them."""
    median_fve: float
    """Median share of the best frequency over the neurons that vary."""


@dataclass(frozen=True)
class ProgressMeasures:
    """The default report row of one checkpoint, in one basis. Losses are in nats, in float64."""

    basis: str
    """``"additive"``, ``"multiplicative"`` or ``"group"``."""
    orders: tuple[int, ...]
    """Orders of the cyclic factors of the group."""
    generators: tuple[int, ...]
    """Generators that number the places; under multiplication the primitive root."""
    train: Loss
    """On the training pairs, whole task."""
    test: Loss
    """On the test pairs, whole task."""
    without_place: Loss | None
    """On the pairs with an operand outside the group, such as 0 under multiplication, train and
    test; None if there are none. All that follows leaves them out."""
    keys: dict[str, KeyFrequencies]
    """By rule: ``"neuron_clusters"`` (R2), ``"W_L"`` (R3), ``"W_E"`` (R4)."""
    restricted_keys: tuple[int, ...]
    """The frequencies that `restricted` keeps and `excluded` drops."""
    restricted: dict[str, Loss]
    """Variant ``nanda``, on ``"train"``, ``"test"`` and ``"all"``."""
    excluded: dict[str, Loss]
    """Variant ``nanda_full``, on ``"train"``."""
    excluded_per_frequency: tuple[float, ...]
    """Training loss with frequency 1, 2, ... alone taken out."""
    sparsity: Sparsity
    """Four Gini coefficients."""
    n_neurons: int
    """Neurons of the layer."""
    neurons: dict[str, PureNeurons]
    """At ``"pre"``, ``"mid"`` and ``"post"``; the last two are one unless a LayerNorm stands
    between them."""
    cube_fve: float
    """Share of the logits' variance along cos(w(a + b − c)), all frequencies."""
    cube_coefficients: tuple[float, ...]
    """Coefficients of frequencies 1, 2, ..."""
    sum_share: float
    """Share of the logits' variance over pairs that depends on a + b alone."""
    difference_share: float
    """The same for a − b: the control."""
    squared_norms: dict[str, float]
    """Sum of squared weights by tensor, and of ``"all"``."""
    update: dict[str, UpdateNorms]
    """Norms of the update that led here, by tensor; empty unless the weights before were given."""
    float32: FormatEffect
    """Training loss and softmax collapse if the loss is computed in float32."""
    distance_irrelevance: float
    """Of the right logit: small for the pizza, about 1 in an untrained network."""
    circularity: float
    """Of the four leading principal components of W_E."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain numbers, lists and dictionaries, ready for JSON."""
        return asdict(self)


def measure(
    observation: Observation,
    task: Task,
    split: Split,
    *,
    basis: str | None = None,
    keys: Sequence[int] | None = None,
    before: Mapping[str, Float[Tensor, "..."]] | None = None,
    decay: float = 0.0,
) -> ProgressMeasures:
    """The progress measures of one checkpoint, everything in float64.

    Restricted and excluded loss need key frequencies. Taken from the checkpoint itself they are a
    moving target: for a series, find them once in the final checkpoint and pass them as `keys`.

    What is compared is the right result as the task defines it, in any basis: in a basis that is
    not the operation's own, such as the additive one under multiplication, all measures are
    controls.

    Args:
        observation: From `observe`.
        task: What the network was trained on.
        split: Which rows of the task it was trained on.
        basis: Name of the coordinates; default those in which the task is an addition.
        keys: Key frequencies; default those that rule R2 finds in this checkpoint. It finds none
            in a network without neurons that one frequency explains to more than 85 %, such as an
            untrained one, or one whose neurons are squares: see `ProgressMeasures.keys` for those
            of other rules.
        before: Parameters before the update that led here, for its norms.
        decay: Learning rate times decoupled weight decay of that update.

    Returns:
        The row.

    Raises:
        ValueError: The basis does not apply to the task, the network's tokens or the split are not
            the task's, or a key does not exist.

    Example:
        >>> from phasescope.analysis.grokking import observe
        >>> from phasescope.datasets import modular_task, split_pairs
        >>> from phasescope.models import PairTransformer
        >>> seen = observe(PairTransformer(7, d_model=8, n_heads=2, d_mlp=16))
        >>> row = measure(seen, modular_task("add", 7), split_pairs(49, 0.5, seed=0))
        >>> row.orders, row.train.n_pairs, row.test.n_pairs
        ((7,), 24, 25)
    """
    coordinates = _coordinates(observation, task, basis)
    fourier = fourier_basis(coordinates.orders)
    logits = coordinates.on_logits(observation.logits.double())
    left = coordinates.left.to(logits.device)
    W_E = observation.W_E.double()[left]
    W_L = observation.W_L.double()[:, coordinates.result.to(logits.device)]
    labels = result_places(task, coordinates)
    masks = pair_masks(task, split)
    splits = {name: coordinates.on_pairs(mask) for name, mask in masks.items()}
    whole = _whole_task(observation, task, masks, coordinates)
    purity = _purity(fourier, observation, coordinates)
    found = {
        "neuron_clusters": keys_by_neuron_clusters(fourier, purity["post"]),
        "W_L": keys_by_norms(fourier, W_L.T, rule="W_L"),
        "W_E": keys_by_norms(fourier, W_E, rule="W_E"),
    }
    chosen = found["neuron_clusters"].found if keys is None else tuple(sorted(set(keys)))
    fit = cube_fit(fourier, logits)
    energy = direction_energy(fourier, logits)
    without = excluded_logits(fourier, logits, chosen)
    per_frequency = excluded_loss_per_frequency(fourier, logits, labels, splits["train"])
    return ProgressMeasures(
        basis=coordinates.basis,
        orders=coordinates.orders,
        generators=coordinates.generators,
        train=whole["train"],
        test=whole["test"],
        without_place=whole["without place"] if whole["without place"].n_pairs else None,
        keys=found,
        restricted_keys=chosen,
        restricted=pair_losses(restricted_logits(fourier, logits, chosen), labels, splits),
        excluded=pair_losses(without, labels, {"train": splits["train"]}),
        excluded_per_frequency=tuple(per_frequency.tolist()),
        sparsity=Sparsity(
            nanda_gini(fourier, W_E),
            nanda_gini(fourier, W_L.T),
            power_gini(fourier, W_E),
            power_gini(fourier, W_L.T),
        ),
        n_neurons=observation.post.shape[2],
        neurons={hook: _pure(found_here) for hook, found_here in purity.items()},
        cube_fve=fit.fve,
        cube_coefficients=tuple(fit.coefficients[1:].tolist()),
        sum_share=energy.sum_share,
        difference_share=energy.difference_share,
        squared_norms=squared_norms(observation.params),
        update={} if before is None else update_norms(before, observation.params, decay=decay),
        float32=format_effect(logits, labels, splits["train"]),
        distance_irrelevance=distance_irrelevance(fourier, logits, labels),
        circularity=circularity(fourier, W_E),
    )


def pair_masks(task: Task, split: Split) -> dict[str, Bool[Tensor, "a b"]]:
    """Which pairs of tokens belong to ``"train"``, ``"test"`` and ``"all"`` of a task.

    Args:
        task: The task.
        split: Rows of it.

    Returns:
        Masks over pairs of tokens.

    Raises:
        ValueError: The split is not one of this task.

    Example:
        >>> from phasescope.datasets import modular_task, split_pairs
        >>> masks = pair_masks(modular_task("divide", 5), split_pairs(20, 0.5, seed=0))
        >>> {name: int(mask.sum()) for name, mask in masks.items()}
        {'train': 10, 'test': 10, 'all': 20}
    """
    divided = torch.cat([split.train, split.test]).sort().values
    n_pairs = len(task.pairs)
    if len(divided) != n_pairs or not bool((divided == torch.arange(n_pairs)).all()):
        raise ValueError(
            f"a split must divide the {n_pairs} pairs of {task.name!r} in two, but this one has "
            f"{len(split.train)} and {len(split.test)} of "
            f"{int(divided[-1]) + 1 if len(divided) else 0} rows. Make it by "
            "split_pairs(len(task.pairs), share, seed)."
        )
    masks = {}
    rows = {"train": split.train, "test": split.test, "all": torch.arange(len(task.pairs))}
    for name, chosen in rows.items():
        mask = torch.zeros(task.n_tokens, task.n_tokens, dtype=torch.bool)
        a, b = task.pairs[chosen].unbind(1)
        mask[a, b] = True
        masks[name] = mask
    return masks


def result_places(task: Task, coordinates: Coordinates) -> Int64[Tensor, "n n"]:
    """Place of the right result of every pair of places; −1 where there is none.

    Args:
        task: What is right.
        coordinates: Any of the task's, its own or a control's.

    Returns:
        Labels for logits in the order of the places.

    Example:
        >>> from phasescope.datasets import modular_task
        >>> task = modular_task("multiply", 5)
        >>> result_places(task, task.natural)[1].tolist()  # addition of logarithms modulo 4
        [1, 2, 3, 0]
    """
    tokens = coordinates.on_pairs(task.label_table)
    places = coordinates.places("result", task.n_tokens)
    return torch.where(tokens >= 0, places[tokens], -1)


def _coordinates(observation: Observation, task: Task, basis: str | None) -> Coordinates:
    if basis is not None and basis not in task.coordinates:
        raise ValueError(
            f"basis must be one that applies to {task.name!r} ({', '.join(task.coordinates)}), but "
            f"{basis!r} arrived."
        )
    n_tokens = observation.logits.shape[0]
    if n_tokens != task.n_tokens:
        raise ValueError(
            f"the network must have the {task.n_tokens} tokens of {task.name!r}, but it has "
            f"{n_tokens}. Give the task the modulus that the network was trained with."
        )
    return task.natural if basis is None else task.coordinates[basis]


def _whole_task(
    observation: Observation,
    task: Task,
    masks: Mapping[str, Bool[Tensor, "a b"]],
    coordinates: Coordinates,
) -> dict[str, Loss]:
    """Losses over the tokens themselves, so over pairs outside the group too."""
    in_group = [coordinates.places(side, task.n_tokens) >= 0 for side in ("left", "right")]
    outside = masks["all"] & ~(in_group[0][:, None] & in_group[1])
    return pair_losses(observation.logits, task.label_table, {**masks, "without place": outside})


def _purity(
    basis: FourierBasis, observation: Observation, coordinates: Coordinates
) -> dict[str, NeuronPurity]:
    """At all three places of the MLP, the last two computed once where they are the same tensor."""
    pre, mid, post = observation.pre, observation.mid, observation.post
    hooks = (
        {"pre": pre, "post": post}
        if mid.data_ptr() == post.data_ptr()
        else {"pre": pre, "mid": mid, "post": post}
    )
    found = {
        hook: neuron_purity(basis, coordinates.on_pairs(values)) for hook, values in hooks.items()
    }
    return {"pre": found["pre"], "mid": found.get("mid", found["post"]), "post": found["post"]}


def _pure(purity: NeuronPurity) -> PureNeurons:
    alive = purity.fve[purity.alive]
    median = alive.median().item() if len(alive) else float("nan")
    return PureNeurons(purity.n_pure(), purity.counts(), purity.n_constant, median)
