"""Train, and measure what was recorded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

import phasescope as ps
from phasescope.experiments.chunks import save_whole
from phasescope.experiments.resnet_gradients.config import Config, Results
from phasescope.experiments.resnet_gradients.measure import measured, norms
from phasescope.experiments.resnet_gradients.stages import stage_numbers
from phasescope.experiments.resnet_gradients.stitching import OTHER, stitched
from phasescope.experiments.resnet_gradients.training import FINAL, network, train
from phasescope.experiments.resnet_gradients.unit_parts import units_of
from phasescope.experiments.resnet_gradients.units import measured_units
from phasescope.models import ResNet
from phasescope.trajectory.files import write_json

WATCHED = "stages.json"
SCORES_FILE = "scores.safetensors"

Progress = Callable[[float, str], None]


def run(config: Config, directory: Path, *, progress: Progress | None = None) -> Results:
    """One network, trained and measured.

    A training that was interrupted in `directory` goes on from its last checkpoint.

    Args:
        config: The network, its images and its optimizer.
        directory: Where the run is kept.
        progress: Called with the share of the work done and what is being done.
    """
    tell = progress or (lambda share, what: None)
    share = 0.45 if config.stitched else 0.95
    recorded, watched = _trained(config, directory / "run", config.seed, share, tell)
    tell(share, "measuring")
    numbers = measured(recorded, config) | {"stages": stage_numbers(config, watched)}
    if config.stitched:
        other = config.seed + OTHER
        second, _ = _trained(
            config, directory / "other", other, share, lambda s, what: tell(share + s, what)
        )
        tell(2 * share, "stitching")
        numbers["stitched"] = stitched(config, _end(recorded, config), _end(second, config))
    detail = norms(recorded, config)
    if config.scored:
        numbers["units"], scores = measured_units(recorded, config)
        save_whole({"scores": scores}, directory / SCORES_FILE)
        detail = replace(detail, scores=scores)
    tell(1.0, "done")
    return Results(config, numbers, detail)


def _trained(
    config: Config, place: Path, seed: int, share: float, tell: Progress
) -> tuple[ps.Run, dict[str, Any]]:
    """A complete run, and what was watched of its stages while it was trained."""
    file = place / WATCHED
    if not file.exists():
        if (place / "run.json").exists() and ps.open_run(place).status == "complete":
            shutil.rmtree(place)  # stopped between the end of the run and that file
        watched = train(config, place, seed, lambda s: tell(share * s, "training"))
        shutil.rmtree(place / "checkpoints", ignore_errors=True)
        write_json(file, watched)
    return ps.open_run(place), json.loads(file.read_text(encoding="utf-8"))


def _end(recorded: ps.Run, config: Config) -> ResNet:
    """The trained network of a run, with its batch statistics."""
    model = network(config)
    state = load_file(recorded.path / FINAL)
    model.load_state_dict(state)
    return model.eval()


def load(config: Config, directory: Path, numbers: dict[str, Any]) -> Results:
    """The results of a finished run, with its norms if the recording is there."""
    place = directory / "run"
    if not (place / "run.json").exists():
        return Results(config, numbers)
    detail = norms(ps.open_run(place), config)
    if (directory / SCORES_FILE).exists():
        detail = replace(detail, scores=load_file(directory / SCORES_FILE)["scores"])
    return Results(config, numbers, detail)


def disk_bytes(config: Config) -> int:
    """Bytes that a run writes: weights of up to forty epochs, and norms."""
    model = network(config)
    n_tensors = len(list(model.parameters()))
    n_parameters = sum(p.numel() for p in model.parameters())
    rows = config.n_steps // config.norms_every + min(config.raw_steps, config.n_steps)
    n_components = sum(2 * n for n in units_of(model).sizes) if config.scored else 0
    return 4 * n_parameters * 43 + 8 * n_tensors * rows + 8 * n_components * config.n_steps
