"""Train the models of a chunk, with checkpoints, and measure them on the way.

Axes: model first, in everything.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from phasescope.datasets import SparseFeatures, feature_directions, feature_frequencies
from phasescope.experiments.chunks import save_whole
from phasescope.experiments.monosemanticity.config import Config
from phasescope.experiments.monosemanticity.observe import Observer, choice, shown_records
from phasescope.models import (
    FeatureLoss,
    initial_feature_model,
    single_feature_activations,
    skip_bias_phase,
)
from phasescope.training import (
    DecayingBiases,
    EnsembleAdam,
    EnsembleLAMB,
    EnsembleOptimizer,
    cosine_cycles,
    train_ensemble,
)

CHECKPOINT = "checkpoint.safetensors"
CHECKPOINT_SECONDS = 60.0  # between checkpoints; which of them is taken up changes no number
HELD_OUT_ROWS = 2048
SKIP_ROWS = 4096  # rows from which the biases of a skip are taken
SECOND_EMBEDDING = 1_000_003  # added to the seed of a model for that of its re-projector
LOSS_WINDOW = 32  # steps over which the training loss that is kept is averaged

Params = dict[str, Tensor]


class Chunk:
    """Some models of a run: their data, their networks, and how they are trained."""

    def __init__(self, config: Config, models: list[int]) -> None:
        self.config, self.models = config, models
        points = config.points
        chosen = [points[model // config.n_seeds] for model in models]
        first = config.seed * config.n_seeds
        self.seeds = [first + model % config.n_seeds for model in models]
        self.rates = _floats([c.learning_rates[0] for c in chosen], config.device)
        self.offsets = _floats([c.bias_offsets[0] for c in chosen], "cpu")
        signs = 2 if config.task == "absolute" else 1
        self.frequencies = torch.stack(
            [
                feature_frequencies(config.n_features, c.densities[0] / signs, config.frequencies)
                for c in chosen
            ]
        )
        self.P = self._embeddings(0)
        self.P_out = self._embeddings(SECOND_EMBEDDING) if config.task == "reprojector" else None
        # Numbers of streams: no two chunks of any batch share one.
        self.stream = 4 * (config.seed * config.n_seeds * len(points) + models[0])
        self.features = self.draws(0, config.batch_size)
        self.loss = self.loss_on(self.features.draw)

    def _embeddings(self, offset: int) -> Tensor:
        """The embedding of each model."""
        N, d = self.config.n_features, self.config.d
        each = {s: feature_directions(N, d, seed=s + offset) for s in dict.fromkeys(self.seeds)}
        return torch.stack([each[seed] for seed in self.seeds]).to(self.config.device)

    def draws(self, kind: int, n_rows: int) -> SparseFeatures:
        """An independent stream of features: 0 for training, 1 held out, 2 for skips."""
        return SparseFeatures(
            self.frequencies,
            n_models=len(self.models),
            batch_size=n_rows,
            seed=self.stream + kind,
            device=self.config.device,
        )

    def loss_on(self, draw: Callable[[], Tensor]) -> FeatureLoss:
        """The loss on some stream of features."""
        config = self.config
        importance = None
        if config.importance_power:
            ranks = torch.arange(1, config.n_features + 1, device=config.device)
            importance = ranks.float() ** -config.importance_power
        return FeatureLoss(
            draw,
            self.P,
            task=config.task,
            P_out=self.P_out,
            l1=config.l1,
            importance=importance,
            **choice(config),  # type: ignore[arg-type]
        )

    def held_out(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets on which the models are judged.

        Models of the same seed at the same density see the same rows, whatever chunk they are in,
        so that their losses can be compared to a per cent.
        """
        parts: list[tuple[Tensor, Tensor]] = []
        for m, seed in enumerate(self.seeds):
            alone = SparseFeatures(
                self.frequencies[m],
                n_models=1,
                batch_size=HELD_OUT_ROWS,
                seed=4 * seed + 1,
                device=self.config.device,
            )
            loss = FeatureLoss(
                alone.draw,
                self.P[m : m + 1],
                task=self.config.task,
                P_out=None if self.P_out is None else self.P_out[m : m + 1],
            )
            x, target = loss.batch()
            parts.append((x.clone(), target.clone()))
        return torch.cat([x for x, _ in parts]), torch.cat([t for _, t in parts])

    def start(self) -> Params:
        """Parameters before the first step, the bias-only phase skipped if that is wanted."""
        config = self.config
        params = initial_feature_model(
            self.seeds,
            d=config.d,
            n_neurons=config.n_neurons,
            n_outputs=config.d if config.task == "reprojector" else config.n_features,
            bias_offset=self.offsets,
            n_groups=config.n_groups,
        )
        params = {name: value.to(config.device) for name, value in params.items()}
        if config.skip == "none":
            return params
        x, _ = self.loss_on(self.draws(2, SKIP_ROWS).draw).batch()
        return skip_bias_phase(params, x, config.skip, firing_rate=config.firing_rate)

    def optimizer(self) -> EnsembleOptimizer:
        """LAMB or Adam in cycles, with the decay of biases in the first half."""
        config = self.config
        rule = EnsembleLAMB if config.optimizer == "lamb" else EnsembleAdam
        optimizer = rule(self.rates, schedule=cosine_cycles(config.half_period))
        if not config.bias_decay:
            return optimizer
        return DecayingBiases(
            optimizer, config.bias_decay, lr=self.rates, until=config.n_steps // 2
        )


class Watch:
    """The gradients of a chunk, and how many neurons have one."""

    def __init__(self, loss: FeatureLoss, n_models: int) -> None:
        self._loss = loss
        self.length = 0
        """Steps of the coming stretch; the loss after them is evaluated once more."""
        self.silent_steps = torch.zeros(n_models, dtype=torch.float64)
        self.with_gradient = torch.zeros(n_models, dtype=torch.float64)

    def __call__(self, params: Params, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss and gradients; the shares of neurons are added up."""
        loss, grads = self._loss(params, step)
        if step < self.length:
            share = (grads["b_in"] != 0).double().mean(1).cpu()
            self.with_gradient += share
            self.silent_steps += share == 0
        return loss, grads


def train_chunk(
    config: Config,
    models: list[int],
    folder: Path,
    shown: Path,
    tell: Callable[[float], None] = lambda share: None,
) -> dict[str, Tensor]:
    """Measures and losses of the models of a chunk.

    The training goes on from a checkpoint in `folder`, bit for bit.

    Args:
        config: The run.
        models: Numbers of the models: point by point, in each point seed by seed.
        folder: Where the checkpoint is.
        shown: Where the activations of the first seed of every point are kept.
        tell: Called with the share that is done.
    """
    chunk = Chunk(config, models)
    params, optimizer = chunk.start(), chunk.optimizer()
    watch = Watch(chunk.loss, len(models))
    observer = Observer(config, chunk.P, *chunk.held_out())
    losses: list[Tensor] = []
    _resume(folder / CHECKPOINT, params, optimizer, chunk, watch, observer, losses)
    steps, keep = config.record_steps, shown_records(config)
    saved = time.monotonic()
    with torch.no_grad():
        for place in range(len(observer.rows), len(steps)):
            observer(params)
            if place in keep:
                _show(chunk, params, shown, place)
            if place + 1 == len(steps):
                break
            watch.length = steps[place + 1] - steps[place]
            part = train_ensemble(params, watch, optimizer, watch.length)
            losses.append(_windows(part[:, :-1]).cpu())
            tell((place + 1) / (len(steps) - 1))
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                _save(folder / CHECKPOINT, params, optimizer, chunk, watch, observer, losses)
                saved = time.monotonic()
    return {
        **observer.records(),
        **{name: value.cpu().float() for name, value in observer.kept.items()},
        "training_loss": torch.cat(losses, dim=1),
        "silent_steps": watch.silent_steps,
        "with_gradient": watch.with_gradient / config.n_steps,
    }


def loss_steps(config: Config) -> list[int]:
    """First step of every window over which the training loss is averaged."""
    steps = config.record_steps
    return [
        first
        for start, stop in itertools.pairwise(steps)
        for first in range(start, stop, LOSS_WINDOW)
    ]


def _windows(losses: Tensor) -> Tensor:
    """Mean losses of consecutive windows; the last one may be shorter."""
    return torch.stack([part.mean(1) for part in losses.split(LOSS_WINDOW, dim=1)], dim=1)


def _show(chunk: Chunk, params: Params, directory: Path, place: int) -> None:
    """Keep the activations of the first seed of every point."""
    directory.mkdir(parents=True, exist_ok=True)
    for m, model in enumerate(chunk.models):
        if model % chunk.config.n_seeds == 0:
            one = {name: value[m : m + 1] for name, value in params.items()}
            S = single_feature_activations(
                one,
                chunk.P[m : m + 1],
                **choice(chunk.config),  # type: ignore[arg-type]
            )
            point = model // chunk.config.n_seeds
            file = directory / f"point-{point:03d}-{place:05d}.safetensors"
            save_whole({"S": S[0].float().cpu()}, file)


def _save(
    file: Path,
    params: Params,
    optimizer: EnsembleOptimizer,
    chunk: Chunk,
    watch: Watch,
    observer: Observer,
    losses: list[Tensor],
) -> None:
    """Write everything that the rest of the training depends on."""
    state = {f"params.{name}": value for name, value in params.items()}
    state |= {f"optimizer.{name}": value for name, value in optimizer.state_dict().items()}
    state |= {f"features.{name}": value for name, value in chunk.features.state_dict().items()}
    state |= {f"observer.{name}": value for name, value in observer.state_dict().items()}
    state["watch.silent_steps"] = watch.silent_steps
    state["watch.with_gradient"] = watch.with_gradient
    state["losses"] = torch.cat(losses, dim=1)
    save_whole(state, file)


def _resume(
    file: Path,
    params: Params,
    optimizer: EnsembleOptimizer,
    chunk: Chunk,
    watch: Watch,
    observer: Observer,
    losses: list[Tensor],
) -> None:
    """Take up a checkpoint, if there is one."""
    if not file.exists():
        return
    state = load_file(file, device=str(chunk.P.device))

    def part(name: str) -> dict[str, Tensor]:
        return {k.removeprefix(name): v for k, v in state.items() if k.startswith(name)}

    for name, value in part("params.").items():
        params[name].copy_(value)
    optimizer.load_state_dict(part("optimizer."))
    chunk.features.load_state_dict({k: v.cpu() for k, v in part("features.").items()})
    observer.load_state_dict(part("observer."))
    watch.silent_steps, watch.with_gradient = (
        state[f"watch.{name}"].cpu() for name in ("silent_steps", "with_gradient")
    )
    losses.append(state["losses"].cpu())


def _floats(values: list[float], device: str) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)
