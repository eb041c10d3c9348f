"""The figures of the experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import phasescope as ps
from phasescope.experiments.induction_heads import evidence
from phasescope.experiments.induction_heads.config import Results
from phasescope.figures import Stretch

MOST_DRAWN = 3  # seeds whose networks are drawn


def figures(results: Sequence[Results]) -> dict[str, Any]:
    """Heads over training, and paths of losses, of the first seeds."""
    found: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    phases: dict[str, Stretch] = {}
    seeds = sorted({r.config.seed for r in results})[:MOST_DRAWN]
    for result in results:
        if result.config.seed not in seeds:
            continue
        name = _name(result)
        phase = _phase(result)
        found[f"{name}: heads"] = heads_figure(result, phase)
        xy = np.array(result.numbers["path"]["coordinates"])
        paths[name] = (result.numbers["steps"], xy)
        if phase is not None:
            phases[name] = phase
    if paths:
        found["paths of losses"] = ps.figures.paths_of_losses(paths, phases)
    return found


def heads_figure(result: Results, phase: Stretch | None) -> Any:
    """Losses, scores, movement and composition of one network."""
    numbers = result.numbers
    steps, heads = numbers["steps"], numbers["head_names"]
    between = steps[1:]

    def of_heads(rows: Any) -> dict[str, np.ndarray]:
        return {name: np.array(row) for name, row in zip(heads, rows, strict=True)}

    curves = numbers["curves"]
    panels = {
        "loss, nats (log)": (
            steps,
            {
                "repetitions": np.array(curves["copy_loss"]),
                "text" if result.config.data == "text" else "Markov chains": np.array(
                    curves["chain_loss"]
                ),
            },
        ),
        "induction stripe": (steps, of_heads(numbers["heads"]["stripe"])),
        "previous token": (steps, of_heads(numbers["heads"]["previous_token"])),
        "change per parameter (log)": (
            between,
            of_heads(evidence.activity(result, "per_parameter")),
        ),
        "gauge-free change (log)": (between, of_heads(evidence.activity(result, "gauge-free"))),
    }
    if numbers["compositions"]:
        writer = heads[evidence.previous_token_head(result)]
        pairs = numbers["compositions"]["k"]
        panels[f"K-composition with {writer}"] = (
            steps,
            {h: np.array(pairs[k]) for h in heads if (k := f"{h}<{writer}") in pairs},
        )
    return ps.figures.heads_over_training(
        heads, panels, phases=[] if phase is None else [phase], title=_name(result)
    )


def _phase(result: Results) -> Stretch | None:
    found = evidence.window(result)
    if found is None:
        return None
    return Stretch("fall of the loss on repetitions", int(found[0]), int(found[2]))


def _name(result: Results) -> str:
    n = result.config.n_layers
    text = ", text" if result.config.data == "text" else ""
    return f"{n} layer{'s' * (n > 1)}{text}, seed {result.config.seed}"
