"""Measure every checkpoint: losses, scores of heads, compositions, movement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import phasescope as ps
from phasescope.components import head_factors
from phasescope.experiments.induction_heads.config import Config
from phasescope.experiments.induction_heads.training import (
    learning_rate,
    losses,
    mixture,
    network,
)
from phasescope.models import AttentionOnly

N_SEQUENCES = 128
N_PROBES = 32  # sequences on which patterns are looked at
_FEWEST = 20  # blocks of logarithmic time that a fall takes
_EVALUATION = 777_000  # seeds of evaluation data, apart from those of training


@dataclass(frozen=True, eq=False)
class Probes:
    """Fixed data on which every checkpoint is measured."""

    copies: ps.datasets.TokenBatch
    """Repeated segments."""
    chains: ps.datasets.TokenBatch
    """Markov chains."""
    twice: Tensor
    """One random segment, twice: for the induction stripe."""
    four: Tensor
    """Random segments of a quarter of the context, four times: for prefix matching."""
    distinct: Tensor
    """Different tokens: for copying."""
    places: Tensor
    """One position per sequence, for the path of single-token losses."""


def probes(config: Config) -> Probes:
    """The data of a configuration: the same for all networks of its seed.

    Of a text, what is held out. Segments for the scores are always of random tokens, as in the
    literature: what they repeat cannot be guessed from the text.
    """
    generator = torch.Generator().manual_seed(_EVALUATION + config.seed)

    def of_kind(share: float) -> ps.datasets.TokenBatch:
        return mixture(config, share, "held out").sample(N_SEQUENCES, generator)

    def segments(length: int) -> Tensor:
        return torch.randint(0, config.d_vocab, (N_PROBES, length), generator=generator)

    n = min(config.n_ctx // 2, config.d_vocab)
    distinct = torch.stack(
        [torch.randperm(config.d_vocab, generator=generator)[:n] for _ in range(N_PROBES)]
    )
    return Probes(
        of_kind(0.0),
        of_kind(1.0),
        segments(config.n_ctx // 2).repeat(1, 2),
        segments(config.n_ctx // 4).repeat(1, 4),
        distinct,
        torch.randint(0, config.n_ctx - 1, (N_SEQUENCES,), generator=generator),
    )


def measured(run: ps.Run, config: Config) -> dict[str, Any]:
    """Numbers of a recorded run; see `Results`."""
    model, data = network(config), probes(config)
    steps = run.weights.steps.tolist()
    curves: dict[str, list[float]] = {name: [] for name in ("copy_loss", "chain_loss", "icl")}
    scores: dict[str, list[Tensor]] = {}
    tables: dict[str, list[Tensor]] = {name: [] for name in "qkv"}
    path = []
    for row in range(len(steps)):
        load(model, torch.from_numpy(run.weights[row]))
        with torch.no_grad():
            copy, chain = (losses(model, batch.tokens) for batch in (data.copies, data.chains))
            repeats = data.copies.repeats[:, 1:]
            curves["copy_loss"].append(float(copy[repeats].mean()))
            curves["chain_loss"].append(float(chain.mean()))
            curves["icl"].append(float(ps.icl_score(copy)))
            path.append(torch.cat([x.gather(1, data.places[:, None])[:, 0] for x in (copy, chain)]))
            for name, values in head_scores(model, data).items():
                scores.setdefault(name, []).append(values)
        if config.n_layers > 1:
            found = compositions(model)
            for name in "qkv":
                tables[name].append(getattr(found, name))
    heads = list(head_factors(model))
    return {
        "steps": steps,
        "head_names": heads,
        "curves": curves,
        "window": fall(steps, curves["copy_loss"]),
        "order_free_loss": order_free_loss(data.copies),
        "heads": {name: torch.stack(rows, 1).tolist() for name, rows in scores.items()},
        "moved": movement(run, config, model),
        "compositions": {name: _pairs(rows, heads) for name, rows in tables.items() if rows},
        "path": _path_numbers(torch.stack(path), steps),
    }


def order_free_loss(copies: ps.datasets.TokenBatch) -> float:
    """Copy loss of a guess from the tokens of the segment, with their counts, without their order.

    The mean over repeated tokens of −ln of their share of the segment, in nats.
    """
    total, n = 0.0, 0
    for tokens, repeats in zip(copies.tokens, copies.repeats, strict=True):
        segment, repeated = tokens[~repeats], tokens[repeats]
        shares = torch.bincount(segment, minlength=int(tokens.max()) + 1) / len(segment)
        total -= float(shares[repeated].log().sum())
        n += len(repeated)
    return total / n


def fall(steps: list[int], copy_loss: list[float]) -> list[float] | None:
    """Onset, midpoint and end of the largest sudden fall of the copy loss; None without one.

    The copy loss is measured on sequences of its own, so its noise is small.
    """
    loss = torch.tensor(copy_loss, dtype=torch.float64)
    if len(ps.log_blocks(torch.tensor(steps), loss, 200)) < _FEWEST:
        return None
    falls = [t for t in ps.find_transitions(torch.tensor(steps), loss).found if t.height < 0]
    if not falls:
        return None
    largest = min(falls, key=lambda t: t.height)
    return [largest.onset, largest.midpoint, largest.end]


def load(model: AttentionOnly, vector: Tensor) -> None:
    """Give a network the weights of a flat vector."""
    torch.nn.utils.vector_to_parameters(vector, model.parameters())


def head_scores(model: AttentionOnly, data: Probes) -> dict[str, Tensor]:
    """Scores of all heads, layer after layer."""

    def patterns(tokens: Tensor) -> list[Tensor]:
        return model.run(tokens, patterns=True)[1]

    twice, four = patterns(data.twice), patterns(data.four)
    usual, distinct = patterns(data.chains.tokens[:N_PROBES]), patterns(data.distinct)
    segment = data.twice.shape[1] // 2
    direct = [
        model.embed["W_E"] @ attention.W_V @ attention.W_O @ model.unembed["W_U"]
        for attention in model.attention
    ]
    return {
        "stripe": torch.cat([ps.stripe_score(p, segment) for p in twice]),
        "prefix_matching": torch.cat([ps.prefix_matching(p, data.four) for p in four]),
        "previous_token": torch.cat([ps.previous_token(p) for p in usual]),
        "copying": torch.cat(
            [ps.copying(d, p, data.distinct) for d, p in zip(direct, distinct, strict=True)]
        ),
    }


def compositions(model: AttentionOnly) -> ps.Composition:
    """Compositions of all pairs of heads."""
    Q, K, V, O = (  # noqa: E741 - the field's names
        torch.cat([getattr(attention, name) for attention in model.attention])
        for name in ("W_Q", "W_K", "W_V", "W_O")
    )
    layers = [i for i, attention in enumerate(model.attention) for _ in attention.W_Q]
    return ps.composition(Q, K, V, O, layers)


def _pairs(rows: list[Tensor], heads: list[str]) -> dict[str, list[float]]:
    """Curves of the pairs that can compose, named later<earlier."""
    table = torch.stack(rows)
    return {
        f"{heads[i]}<{heads[j]}": table[:, i, j].tolist()
        for i in range(len(heads))
        for j in range(len(heads))
        if bool(table[0, i, j].isfinite())
    }


def movement(run: ps.Run, config: Config, model: AttentionOnly) -> dict[str, Any]:
    """Movement of every head between checkpoints, in the bases of B15."""
    rates = torch.tensor([learning_rate(config, t) for t in range(config.n_steps)])
    found = ps.update_statistics(
        run.weights, components=ps.components(model, "heads"), learning_rates=rates
    )
    free = ps.head_changes(run.weights, head_factors(model))
    table = run.parameters
    names, last = table.names, table.unflatten(torch.from_numpy(run.weights[-1]))
    singular = []
    for name in names:
        if name.endswith("W_V"):  # the directions that a layer's values read, by their strength
            joined = last[name].permute(1, 0, 2).flatten(1)
            basis = torch.linalg.svd(joined.double()).U.T
            singular.append(ps.direction_changes(run.weights, name, basis, axis=1).square())
    return {
        "per_parameter": found.per_parameter.tolist(),
        "per_rates": found.per_rates.tolist(),
        "qk_relative": free.qk_relative.tolist(),
        "ov_relative": free.ov_relative.tolist(),
        "efficiency": found.efficiency.tolist(),
        "singular": torch.cat(singular).sum(1).tolist(),
    }


def _path_numbers(path: Tensor, steps: list[int]) -> dict[str, Any]:
    """First two principal components of single-token losses over the checkpoints."""
    found = ps.turning_test(ps.gram(path.double()), window=max(2, len(steps) // 20))
    return {
        "coordinates": found.points.T.tolist(),
        "shares": found.shares.tolist(),
        "null_shares": found.null_shares.median(0).values.tolist(),
        "turns": [steps[row] for row in found.turns],
        "p": found.p,
    }
