"""One run: train with everything recorded, and gather its numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import phasescope as ps
from phasescope.experiments.grokking.batch import run_batch
from phasescope.experiments.grokking.carriers import carriers
from phasescope.experiments.grokking.config import Config, Detail, Results
from phasescope.experiments.grokking.frames import frames_of
from phasescope.experiments.grokking.measures import measured
from phasescope.experiments.grokking.scales import recorded_scales, scales_numbers
from phasescope.experiments.grokking.spectra import check_enough_steps, spectra
from phasescope.experiments.grokking.training import curves_of, measured_rows, network_at, train
from phasescope.models import PairTransformer

Progress = Callable[[float, str], None]


def run(config: Config, directory: Path, *, progress: Progress | None = None) -> Results:
    """Train a network on a task, with every step's losses and norms recorded.

    A training that was interrupted in `directory` goes on from its last checkpoint. Several seeds
    are trained as one batch and leave numbers only.

    Args:
        config: What to train.
        directory: The run's directory.
        progress: Called with the share of the work done and what is being done.

    Raises:
        ValueError: Fewer steps would be kept than the spectra need.
    """
    check_enough_steps(config)
    tell = progress or (lambda share, what: None)
    if config.n_seeds > 1:
        return run_batch(config, tell)
    recorded = train(config, directory, progress=lambda share: tell(0.9 * share, "training"))
    detail = _detail(config, recorded)
    rows = {int(recorded["weights"].steps[row]): row for row in measured_rows(config, recorded)}

    def network(step: int) -> PairTransformer:
        return network_at(config, recorded, rows[step])

    found = measured(
        config,
        list(rows),
        network,
        detail.curves,
        lambda share: tell(0.9 + 0.05 * share, "measuring"),
    )
    numbers = {"n_parameters": sum(p.numel() for p in detail.final.parameters())} | found
    numbers["scales"] = scales_numbers(detail.scales, found)
    events = found["times"] | {phase["name"]: phase["start"] for phase in found["phases"]}
    keys = found["final_measures"]["restricted_keys"]
    numbers["carriers"] = carriers(config, list(rows), network, keys, events)
    if config.spectra_every:
        numbers["spectra"] = spectra(
            config, recorded, events, keys, lambda share: tell(0.95 + 0.05 * share, "spectra")
        )
    return Results(config, numbers, detail)


def load(config: Config, directory: Path, numbers: dict[str, Any]) -> Results:
    """The results of a finished run, from what it left in its directory."""
    if not (directory / "run.json").exists():
        return Results(config, numbers)
    return Results(config, numbers, _detail(config, ps.open_run(directory)))


def _detail(config: Config, recorded: ps.Run) -> Detail:
    return Detail(
        curves_of(recorded),
        recorded["weights"].steps,
        network_at(config, recorded, -1),
        frames_of(config, recorded),
        recorded_scales(recorded),
    )
