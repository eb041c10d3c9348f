"""Modular arithmetic that is generalised late, and the same networks that only memorise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

import phasescope as ps
from phasescope.analysis.grokking import FourierBasis, fourier_basis, frequency_power
from phasescope.datasets import Task, modular_task, split_pairs
from phasescope.experiments.phase_detection.system import (
    Params,
    Progress,
    System,
    tensor_squares,
)
from phasescope.models import PairTransformer, QuadraticMLP
from phasescope.models.pair_forward import Hook, Shape, pair_logits
from phasescope.training import (
    EnsembleAdam,
    cross_entropy_float32,
    cross_entropy_float64,
    ensemble_gradients,
)

N_RECORDS = 240
SPECTRAL = "share of the spectrum in one frequency"
KEYS = "share of the embedding in the key frequencies"


class Table:
    """All pairs of a task with the labels and the training pairs of every seed.

    Args:
        task: The task.
        seeds: Of the splits.
        fraction: Share of the pairs to train on.
        random_labels: Whether labels are permuted, so that there is nothing to generalise.
    """

    def __init__(
        self, task: Task, seeds: Sequence[int], fraction: float, *, random_labels: bool = False
    ) -> None:
        self.pairs = task.pairs
        self.train = torch.zeros(len(seeds), len(task.pairs), dtype=torch.bool)
        self.labels = task.labels.expand(len(seeds), -1).clone()
        for i, seed in enumerate(seeds):
            self.train[i, split_pairs(len(task.pairs), fraction, seed=seed).train] = True
            if random_labels:
                generator = torch.Generator().manual_seed(seed)
                order = torch.randperm(len(task.pairs), generator=generator)
                self.labels[i] = task.labels[order]

    def mean(self, values: Tensor, train: bool) -> Tensor:
        """Means over the training or the test pairs of every seed."""
        chosen = self.train if train else ~self.train
        return (values * chosen).sum(1) / chosen.sum(1)

    def measures(self, outputs: Tensor, losses: Tensor) -> dict[str, Tensor]:
        """Test loss and both accuracies."""
        correct = (outputs.argmax(-1) == self.labels).to(losses)
        return {
            "test_loss": self.mean(losses, False),
            "train_accuracy": self.mean(correct, True),
            "test_accuracy": self.mean(correct, False),
        }


def quadratic_system(
    name: str,
    seeds: Sequence[int],
    *,
    operation: str = "add",
    p: int = 23,
    width: int = 200,
    fraction: float = 0.5,
    learning_rate: float = 5e-3,
    weight_decay: float = 1.0,
    n_steps: int = 1500,
    random_labels: bool = False,
) -> System:
    """Gromov's quadratic MLP with squared error and AdamW."""
    task = modular_task(operation, p)  # type: ignore[arg-type]
    table = Table(task, seeds, fraction, random_labels=random_labels)
    members = [
        QuadraticMLP(p, width, generator=torch.Generator().manual_seed(seed)) for seed in seeds
    ]
    params = {
        n: torch.stack([dict(m.named_parameters())[n].detach() for m in members]) for n in "UVW"
    }
    target = torch.nn.functional.one_hot(table.labels, p).float()

    def outputs(params: Mapping[str, Tensor]) -> Tensor:
        # All pairs in the order of the table: sums by broadcasting are cheaper than rows picked.
        hidden = (params["U"].mT[:, :, None] + params["V"].mT[:, None]).square()
        return hidden.flatten(1, 2) @ params["W"].mT

    def losses(out: Tensor) -> Tensor:
        return (out - target).square().mean(-1)

    basis, coordinates = fourier_basis(task.natural.orders), task.natural

    def evaluate(params: Params) -> dict[str, Tensor]:
        out = outputs(params)
        share = torch.stack(
            [
                one_frequency(basis, params["U"][..., coordinates.left]),
                one_frequency(basis, params["V"][..., coordinates.right]),
            ]
        )
        return {**table.measures(out, losses(out)), SPECTRAL: share.mean(0)}

    return System(
        name,
        params,
        ensemble_gradients(lambda params, step: table.mean(losses(outputs(params)), True)),
        EnsembleAdam(learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay, decoupled=True),
        n_steps,
        ps.log_spaced(N_RECORDS).steps(n_steps),
        tensor_squares,
        evaluate,
        (Progress(SPECTRAL, 0.3),),
        decay=learning_rate * weight_decay,
    )


class Transformers:
    """One-layer transformers with cross-entropy on the pairs of a table, one per seed.

    Args:
        table: The pairs and their labels.
        seeds: Of the weights.
        p: Operands.
        d_model: Width of the residual stream.
        d_mlp: Neurons.
        dtype: Of weights and losses.
    """

    def __init__(
        self,
        table: Table,
        seeds: Sequence[int],
        p: int,
        d_model: int,
        d_mlp: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        members = [
            PairTransformer(
                p,
                d_model=d_model,
                d_mlp=d_mlp,
                init="transformerlens",
                generator=torch.Generator().manual_seed(seed),
            )
            for seed in seeds
        ]
        named = [dict(member.named_parameters()) for member in members]
        stacked = {n: torch.stack([own[n].detach() for own in named]).to(dtype) for n in named[0]}
        self.params: Params = {n: stacked[n] for n, v in named[0].items() if v.requires_grad}
        self._frozen = {n: v for n, v in stacked.items() if n not in self.params}
        self._shape: Shape = members[0].shape
        self._table = table
        wide = dtype == torch.float64
        self._losses = cross_entropy_float64 if wide else cross_entropy_float32
        rows = torch.stack([own.nonzero().flatten() for own in table.train])
        self._train = table.pairs[rows], table.labels.gather(1, rows)

    def outputs(
        self, params: Mapping[str, Tensor], pairs: Tensor, hook: Hook | None = None
    ) -> Tensor:
        """Logits of every seed."""
        return pair_logits({**params, **self._frozen}, pairs, self._shape, hook)

    def train_loss(self, params: Mapping[str, Tensor], step: int) -> Tensor:
        """Mean over the training pairs of every seed, all of them at every step."""
        pairs, labels = self._train
        return self._losses(self.outputs(params, pairs), labels).mean(1)

    def measures(self, params: Mapping[str, Tensor], hook: Hook | None = None) -> dict[str, Tensor]:
        """Test loss and both accuracies; the hook sees all pairs of the table."""
        out = self.outputs(params, self._table.pairs, hook)
        return self._table.measures(out, self._losses(out, self._table.labels))


def transformer_system(
    name: str,
    seeds: Sequence[int],
    *,
    p: int = 23,
    d_model: int = 32,
    d_mlp: int = 128,
    fraction: float = 0.6,
    learning_rate: float = 5e-3,
    weight_decay: float = 2.0,
    n_steps: int = 1500,
) -> System:
    """One-layer transformer with cross-entropy and AdamW, all pairs at every step.

    Components are the frequencies of the embedding (the event takes place in the key frequencies of
    the final network) and the other tensors.
    """
    table = Table(modular_task("add", p), seeds, fraction)
    networks = Transformers(table, seeds, p, d_model, d_mlp)
    basis = fourier_basis((p,))

    def embedding_powers(tensors: Mapping[str, Tensor]) -> Tensor:
        """Power of every frequency but the constant in each seed's embedding."""
        embedding = tensors["embed.W_E"][:, :p].transpose(0, 1)
        return frequency_power(basis, embedding)[1:].sum(2).T

    def squares(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        powers = embedding_powers(tensors)
        found = {f"frequency {k + 1}": powers[:, k] for k in range(powers.shape[1])}
        rest = {n: v for n, v in tensors.items() if n != "embed.W_E" and "b_" not in n}
        return found | tensor_squares(rest)

    def keys(params: Mapping[str, Tensor]) -> list[list[str]]:
        powers = embedding_powers(params)
        chosen = powers > 2 * powers.mean(1, keepdim=True)
        return [[f"frequency {k + 1}" for k in row.nonzero().flatten().tolist()] for row in chosen]

    def evaluate(params: Params) -> dict[str, Tensor]:
        powers = embedding_powers(params)
        concentration = (powers / powers.sum(1, keepdim=True)).square().sum(1)
        return {**networks.measures(params), KEYS: concentration}

    return System(
        name,
        networks.params,
        ensemble_gradients(networks.train_loss),
        EnsembleAdam(learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay, decoupled=True),
        n_steps,
        ps.log_spaced(N_RECORDS).steps(n_steps),
        squares,
        evaluate,
        (Progress(KEYS, 0.1, keys),),
        decay=learning_rate * weight_decay,
    )


def one_frequency(basis: FourierBasis, values: Tensor) -> Tensor:
    """Mean of the inverse participation ratio over neurons, each counted with its power."""
    powers = frequency_power(basis, values.movedim(-1, 0))[1:]
    total = powers.sum(0).clamp(min=1e-30)
    return (powers.square().sum(0) / total).sum(1) / total.sum(1)
