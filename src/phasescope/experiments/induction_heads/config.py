"""What is trained, and what comes out of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from phasescope.experiments.runner import added_field
from phasescope.experiments.settings import compact

SOURCE = '"What\'s going on with Per-Component Weight Updates?" (LessWrong); Olsson et al. (2022)'
RUNTIME = "one core: about a minute per network of two layers, half of it for one layer"
CLAIM_IDS = ("A17", "A18", "B8", "B9", "B10", "B11", "B12", "B13", "B14", "B15")


@dataclass(frozen=True)
class Config:
    """One attention-only transformer on repeated segments among Markov chains, or among text."""

    n_layers: int = 2
    d_vocab: int = 64
    n_ctx: int = 64
    d_model: int = 64  # width of the residual stream; 512 in the source
    n_heads: int = 4  # per layer; 8 in the source
    # Share of Markov chains, or of text as it stands: more of them, later induction.
    bigram_share: float = 0.5
    learning_rate: float = 3e-3
    warmup_steps: int = 50
    cosine: bool = False  # decay of the rate to a tenth by the end; else constant
    weight_decay: float = 0.01  # decoupled
    batch_size: int = 32
    n_steps: int = 2000
    measure_every: int = 25  # steps between checkpoints, at which everything is measured
    seed: int = 0  # of weights, bigrams and sequences
    # Random tokens, or tiny Shakespeare in characters (d_vocab=65).
    data: Literal["mixture", "text"] = added_field("mixture")


DEFAULT = Config()
SMOKE = Config(d_vocab=16, n_ctx=32, d_model=16, n_heads=2, n_steps=200, measure_every=10)
# The recipe varied in one respect at a time (B11).
VARIED = {
    "no warm-up": replace(DEFAULT, warmup_steps=0),
    "cosine": replace(DEFAULT, cosine=True),
    "decay .1": replace(DEFAULT, weight_decay=0.1),
    "batch 64": replace(DEFAULT, batch_size=64),
}
TEXT = replace(DEFAULT, data="text", d_vocab=65, n_steps=2500)
PAPER = replace(DEFAULT, d_model=128, n_heads=8, n_steps=8000, measure_every=40)
_MIXTURES = tuple(replace(DEFAULT, n_layers=n) for n in (1, 2, 3))
_TEXTS = tuple(replace(TEXT, n_layers=n) for n in (1, 2))
PRESETS: dict[str, tuple[Config, ...]] = {
    "smoke": (SMOKE, replace(SMOKE, n_layers=1)),
    "default": _MIXTURES,
    "varied": tuple(VARIED.values()),
    "text": _TEXTS,
    "all": (*_MIXTURES, *VARIED.values(), *_TEXTS),
    "paper": tuple(replace(PAPER, n_layers=n) for n in (1, 2, 3)),
}


@dataclass(frozen=True, eq=False)
class Results:
    """One run: curves over the checkpoints and what was read off them."""

    config: Config
    numbers: dict[str, Any]
    """``steps``, ``curves`` (per checkpoint), ``window`` of the fall, ``heads`` (per head and
    checkpoint), ``moved`` (per head and interval), ``compositions``, ``path`` and ``final``."""


def setting(config: Config) -> str:
    """The setting of a run without its seed: ``2 layers, text`` and what is unusual."""
    usual = TEXT if config.data == "text" else DEFAULT
    layers = f"{config.n_layers} layer{'s' * (config.n_layers > 1)}"
    changed = [
        f"{name.replace('_', ' ')} {value:g}"
        for name, value in asdict(config).items()
        if name not in ("n_layers", "data", "seed") and value != getattr(usual, name)
    ]
    return ", ".join([layers, config.data, *changed])


def for_storage(results: Sequence[Results]) -> list[dict[str, Any]]:
    """What the committed results keep of the runs: all of it, to four digits."""
    return [{"config": asdict(r.config), "numbers": compact(r.numbers, 4)} for r in results]


def summary(results: Results) -> dict[str, float]:
    """The main numbers of a run."""
    curves, heads = results.numbers["curves"], results.numbers["heads"]
    return {
        "copy loss (nats)": curves["copy_loss"][-1],
        "largest stripe": max(row[-1] for row in heads["stripe"]),
        "largest previous-token score": max(row[-1] for row in heads["previous_token"]),
    }
