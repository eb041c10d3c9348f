"""The figures over many settings: every seed of a grid of operations and activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

import phasescope as ps
from phasescope.experiments.grokking.config import Results, setting
from phasescope.experiments.grokking.evidence import Evidence, number, time_of
from phasescope.figures import CurvePanel

FEWEST = 3  # seeds of one setting from which a figure over seeds is drawn
_TIMES = "t_grok: first of five steps in a row with 95% of the test pairs right, every step."
_CENSORED = "A seed that has not grokked counts with its last step: its time is at least that."


def overview(results: Sequence[Results]) -> dict[str, Any]:
    """Figures over all seeds of the usual scale; none where no setting has several seeds.

    Args:
        results: Runs and batches.
    """
    evidence = Evidence(results)
    grid: dict[tuple[str, str], list[Results]] = {}
    for result in evidence.all:
        config = result.config
        plain = evidence.runs(operation=config.operation, activation=config.activation)
        if result in plain and len(plain) >= FEWEST:
            grid[config.operation, config.activation] = plain
    found: dict[str, Any] = {}
    if grid:
        names = [activation for _, activation in grid]
        crossed = {k: runs for k, runs in grid.items() if names.count(k[1]) > 1}
        apart = {k: runs for k, runs in grid.items() if k not in crossed}
        for shown, part in (("and activation", crossed), ("and activation, one operation", apart)):
            if part:
                found[f"Grokking by operation {shown}"] = _curves(part)
        found["Times to grok"] = _times(grid)
        found["The clock in both bases"] = _clock(grid)
    if spikes := _spikes(evidence):
        found["Spikes by optimizer"] = spikes
    return found


Grid = dict[tuple[str, str], list[Results]]


def _curves(grid: Grid) -> Any:
    panels = []
    for (operation, activation), runs in grid.items():
        curves = [r.numbers["curve"] for r in runs if "curve" in r.numbers]
        # A seed that diverged has fewer steps than the others.
        usual = Counter(tuple(c["steps"]) for c in curves).most_common(1)[0][0]
        same = [c for c in curves if tuple(c["steps"]) == usual]
        grokked = [r.numbers["times"]["grokked"] for r in runs]
        panels.append(
            CurvePanel(
                operation,
                activation,
                np.array(same[0]["steps"]),
                np.array([c["test_accuracy"] for c in same]),
                np.array([np.nan if t is None else float(t) for t in grokked]),
            )
        )
    return ps.figures.curves_by_setting(
        panels,
        event="grokked",
        y_title="test accuracy (share)",
        title="Test accuracy by operation and activation",
        computed=f"On all test pairs before each update. {_TIMES}",
        misleads=(
            "A logarithmic axis of steps makes late differences look small. Seeds of one panel "
            "differ in split and initial weights at once; the same seed has both in common with "
            "itself in every other panel."
        ),
    )


def _times(grid: Grid) -> Any:
    groups: dict[str, dict[str, list[float]]] = {}
    for (operation, activation), runs in grid.items():
        times = [time_of(r, "grokked") for r in runs]
        groups.setdefault(activation, {})[operation] = times
    return ps.figures.seed_strips(
        groups,
        x_title="steps to grok",
        title="Times to grok",
        seen="One row per activation, one lane per operation.",
        computed=_TIMES,
        misleads=(
            f"{_CENSORED} Rows of GELU-new and GELU-fast are one function up to rounding: their "
            "distance is the noise floor of every comparison."
        ),
        log=True,
    )


def _clock(grid: Grid) -> Any:
    rows = {"own basis": "final_measures", "other basis": "other_basis", "untrained": "untrained"}
    groups: dict[str, dict[str, list[float]]] = {}
    for (operation, activation), runs in grid.items():
        values = {
            shown: [v for r in runs for v in [number(r, row, "cube_fve")] if v is not None]
            for shown, row in rows.items()
        }
        groups[f"{operation}, {activation}"] = {k: v for k, v in values.items() if v}
    return ps.figures.seed_strips(
        groups,
        x_title="share of the logits' variance along cos w(a + b − c)",
        title="The clock in both bases",
        seen=(
            "One row per setting: the final network in the operation's own coordinates and in the "
            "other ones (additive for multiplication), and the untrained network."
        ),
        computed="Of the logits of all pairs, centred, over all frequencies; see cube_fit.",
        misleads=(
            "A high share says that the logits are the clock's, not that the network computes them "
            "the way a clock does: a pizza ends in the same waves."
        ),
        line=0.9,
    )


def _spikes(evidence: Evidence) -> Any:
    """Upward spikes of the training loss by optimizer, on addition with ReLU."""
    by_setting: dict[str, list[Results]] = {}
    for result in evidence.all:
        config = result.config
        if config.operation == "add" and config.activation == "relu":
            by_setting.setdefault(setting(config), []).append(result)
    usual = {setting(r.config) for r in evidence.runs()}
    groups: dict[str, dict[str, list[float]]] = {}
    for name, runs in by_setting.items():
        scale = runs[0].config.p, runs[0].config.d_model, runs[0].config.d_mlp
        same = {(r.config.p, r.config.d_model, r.config.d_mlp) for r in evidence.runs()}
        if len(runs) < FEWEST or scale not in same:
            continue
        shown = name.partition("relu, ")[2] or name
        ways = {
            way: [
                n
                for r in runs
                for n in [number(r, "spikes", f"train_loss_{way}", "n")]
                if n is not None
            ]
            for way in ("up", "down")
        }
        groups[f"{shown} (usual)" if name in usual else shown] = ways
    if len(groups) < 2:
        return None
    return ps.figures.seed_strips(
        groups,
        x_title="spikes of the training loss per run",
        title="Spikes by optimizer",
        seen="One row per setting of the optimizer, one lane for each direction.",
        computed="Excursions from the running median over 201 steps, see find_spikes.",
        misleads=(
            "All runs have the same number of steps, not the same progress: slow settings have "
            "fewer steps after memorisation, where spikes occur."
        ),
    )
