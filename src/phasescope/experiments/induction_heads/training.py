"""Train one network and record its checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

import phasescope as ps
from phasescope.datasets import TextMixture, TokenMixture, load_shakespeare
from phasescope.experiments.induction_heads.config import Config
from phasescope.models import AttentionOnly

_AT_ONCE = 100  # steps whose sequences are drawn together


def network(config: Config) -> AttentionOnly:
    """The network before training."""
    return AttentionOnly(
        d_vocab=config.d_vocab,
        n_ctx=config.n_ctx,
        d_model=config.d_model,
        n_heads=config.n_heads,
        n_layers=config.n_layers,
        seed=config.seed,
    )


def mixture(
    config: Config,
    share: float | None = None,
    part: Literal["train", "held out"] = "train",
) -> TokenMixture | TextMixture:
    """The sequences of a configuration.

    Args:
        config: The configuration.
        share: Of Markov chains, or of text as it stands; that of the configuration by default.
        part: Of the text; chains and segments are drawn anew anyway.

    Raises:
        ValueError: The vocabulary is not that of the text.
    """
    share = config.bigram_share if share is None else share
    lengths = {"shortest": config.n_ctx // 8, "longest": 3 * config.n_ctx // 8}
    if config.data == "mixture":
        return TokenMixture(
            d_vocab=config.d_vocab,
            n_ctx=config.n_ctx,
            bigram_share=share,
            seed=config.seed,
            **lengths,
        )
    text = TextMixture(_text(), n_ctx=config.n_ctx, plain_share=share, part=part, **lengths)
    if config.d_vocab != text.d_vocab:
        raise ValueError(
            f"the text has {text.d_vocab} different characters, but d_vocab is {config.d_vocab}. "
            f"Give --d-vocab {text.d_vocab} with --data text."
        )
    return text


@lru_cache(maxsize=1)
def _text() -> str:
    return load_shakespeare()


def learning_rate(config: Config, step: int) -> float:
    """The rate of update `step`."""
    rate = config.learning_rate
    if config.warmup_steps:
        rate *= min((step + 1) / config.warmup_steps, 1.0)
    if config.cosine:
        rate *= 0.55 + 0.45 * math.cos(math.pi * step / config.n_steps)
    return rate


def train(config: Config, directory: Path, tell: Callable[[float, str], None]) -> ps.Run:
    """The recorded run: weights at every measurement, the training loss at every step."""
    model = network(config)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    data = mixture(config)
    generator = torch.Generator().manual_seed(10_000 + config.seed)
    drawn = torch.empty(0, dtype=torch.int64)
    save = {"weights": ps.every(config.measure_every)}
    with ps.Recorder(directory, model, optimizer, n_steps=config.n_steps, save=save) as recorder:
        for step in range(config.n_steps):
            at = step % _AT_ONCE
            if at == 0:
                drawn = data.sample(_AT_ONCE * config.batch_size, generator).tokens
                tell(0.9 * step / config.n_steps, "training")
            tokens = drawn[at * config.batch_size : (at + 1) * config.batch_size]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            optimizer.zero_grad()
            loss = losses(model, tokens).mean()
            loss.backward()
            recorder.log(step=step, train_loss=loss.detach())
            optimizer.step()
    return ps.open_run(directory)


def losses(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Loss of every token but the first, in nats: [b, t − 1]."""
    logits = model(tokens[:, :-1])
    flat = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return flat.view(tokens.shape[0], -1)
