"""Induction heads in two layers, and one layer that cannot form them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

import phasescope as ps
from phasescope.analysis.attention_scores import previous_token, stripe_score
from phasescope.datasets import TokenMixture
from phasescope.experiments.phase_detection.system import Params, Progress, System
from phasescope.models import AttentionOnly
from phasescope.training import EnsembleAdam, ensemble_gradients

N_RECORDS = 160  # patterns cost more to measure than other things
STRIPE = "induction stripe"
FORMED = 0.3  # score from which a head is an induction or a previous-token head


def induction_system(
    name: str,
    seeds: Sequence[int],
    *,
    n_layers: int = 2,
    d_vocab: int = 32,
    n_ctx: int = 32,
    d_model: int = 32,
    n_heads: int = 4,
    bigram_share: float = 0.1,
    batch_size: int = 32,
    learning_rate: float = 5e-3,
    weight_decay: float = 0.01,
    n_steps: int = 1000,
) -> System:
    """Attention-only transformers on bigrams and repeated segments, with AdamW.

    The progress measure is the largest induction stripe of any head on repeated random tokens. The
    event takes place in the heads that end as induction or previous-token heads. Components are the
    heads, the embedding, the positions and the unembedding.
    """
    models = [
        AttentionOnly(
            d_vocab=d_vocab,
            n_ctx=n_ctx,
            d_model=d_model,
            n_heads=n_heads,
            n_layers=n_layers,
            seed=seed,
        )
        for seed in seeds
    ]
    data = [
        TokenMixture(
            d_vocab=d_vocab,
            n_ctx=n_ctx,
            bigram_share=bigram_share,
            shortest=n_ctx // 4,
            longest=n_ctx // 2,
            seed=seed,
        )
        for seed in seeds
    ]
    generators = [torch.Generator().manual_seed(10_000 + seed) for seed in seeds]
    names = [n for n, _ in models[0].named_parameters()]
    params = {
        n: torch.stack([dict(m.named_parameters())[n].detach() for m in models]) for n in names
    }
    half = n_ctx // 2
    repeated = [torch.randint(0, d_vocab, (8, half), generator=g).repeat(1, 2) for g in generators]
    held_out = [mix.sample(32, g).tokens for mix, g in zip(data, generators, strict=True)]
    heads = [(i, h) for i in range(n_layers) for h in range(n_heads)]

    def losses(params: Mapping[str, Tensor], tokens: Sequence[Tensor]) -> Tensor:
        found = []
        for i, own in enumerate(tokens):
            weights = {n: value[i] for n, value in params.items()}
            logits = functional_call(models[0], weights, (own[:, :-1],))
            found.append(functional.cross_entropy(logits.flatten(0, 1), own[:, 1:].flatten()))
        return torch.stack(found)

    def batch_loss(params: Mapping[str, Tensor], step: int) -> Tensor:
        return losses(
            params,
            [mix.sample(batch_size, g).tokens for mix, g in zip(data, generators, strict=True)],
        )

    def scores(params: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Stripe and previous-token score of every seed's heads."""
        stripes, before = [], []
        for i, tokens in enumerate(repeated):
            models[i].load_state_dict({n: value[i] for n, value in params.items()})
            _, patterns, _ = models[i].run(tokens, patterns=True)
            stripes.append(torch.cat([stripe_score(p, half) for p in patterns]))
            before.append(torch.cat([previous_token(p) for p in patterns]))
        return torch.stack(stripes), torch.stack(before)

    def squares(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for i, h in heads:
            matrices = [tensors[f"blocks.{i}.attn.W_{x}"][:, h] for x in "QKVO"]
            found[f"head {i}.{h}"] = torch.stack([m.square().sum((1, 2)) for m in matrices]).sum(0)
        for n, short in (
            ("embed.W_E", "W_E"),
            ("pos_embed.W_pos", "W_pos"),
            ("unembed.W_U", "W_U"),
        ):
            found[short] = tensors[n].square().sum((1, 2))
        return found

    def evaluate(params: Params) -> dict[str, Tensor]:
        stripes, _ = scores(params)
        return {"test_loss": losses(params, held_out), STRIPE: stripes.amax(1)}

    def formed(params: Params) -> list[tuple[str, ...]]:
        with torch.no_grad():
            stripes, before = scores(params)
        chosen = (stripes >= FORMED) | (before >= FORMED)
        return [
            tuple(f"head {i}.{h}" for (i, h), yes in zip(heads, row, strict=True) if yes)
            for row in chosen.tolist()
        ]

    return System(
        name,
        params,
        ensemble_gradients(batch_loss),
        EnsembleAdam(learning_rate, weight_decay=weight_decay, decoupled=True),
        n_steps,
        ps.log_spaced(N_RECORDS).steps(n_steps),
        squares,
        evaluate,
        (Progress(STRIPE, 0.2, formed),),
        decay=learning_rate * weight_decay,
    )
