"""The figures of one or many runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

import phasescope as ps
from phasescope.experiments.maze_goals.ablations import ALPHAS, CONTROLS
from phasescope.experiments.maze_goals.config import Results, group_by_setting
from phasescope.experiments.maze_goals.evidence import (
    CHEESE_GOAL,
    CORNER_GOAL,
    after,
    final,
    selectivity,
    untrained,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PARTS = ("late gradients", "early gradients", "late updates", "early updates")
"""What is taken out, in the order in which it is shown."""
_FOLLOWED = ("corner", "from the corner", "corner first", "cheese first")
_FOLLOWED_STARS = ("cheese", "star", "cheese first", "star first")
_BANDS = (
    "cheese near the agent",
    "cheese far from the agent",
    "cheese near the corner",
    "cheese far from the corner",
)


def figures(results: Sequence[Results]) -> dict[str, Figure]:
    """The figures of every setting.

    Args:
        results: Runs of one or more settings.
    """
    drawn: dict[str, Figure] = {}
    settings = group_by_setting(results)
    for name, runs in settings.items():
        prefix = "" if len(settings) == 1 else f"{name}: "
        drawn[f"{prefix}goals"] = _goals(runs, name)
        drawn[f"{prefix}one agent"] = _one_agent(runs[0])
        drawn[f"{prefix}profiles"] = _profiles(runs, name)
        drawn[f"{prefix}policies"] = _policies(runs, name)
        if "layers" in runs[0].numbers["spectra"]["gradients"]:
            drawn[f"{prefix}layers"] = _layers(runs, name)
        if not runs[0].config.stars:
            drawn[f"{prefix}distances"] = _distances(runs, name)
        if any(r.numbers.get("ablations") for r in runs):
            drawn[f"{prefix}behaviour"] = _behaviour(runs, name)
        for part in PARTS:
            having = [r for r in runs if part in r.numbers.get("ablations", {})]
            if having:
                drawn[f"{prefix}{part}"] = _selectivities(having, part, name)
                drawn[f"{prefix}{part}, strength"] = _strengths(having, part, name)
        shown = next((r.detail for r in runs if r.detail is not None), None)
        if shown is not None:
            walks = {replay.name: replay.walks for replay in shown.replays}
            drawn[f"{prefix}replays"] = ps.figures.maze_walks(walks)
    return drawn


def _targets(runs: Sequence[Results], part: str) -> tuple[str, str]:
    late = part.startswith("late")
    one, other = ("star", "cheese") if runs[0].config.stars else (CHEESE_GOAL, CORNER_GOAL)
    return (one, other) if late else (other, one)


def _goals(runs: Sequence[Results], setting: str) -> Figure:
    followed = _FOLLOWED_STARS if runs[0].config.stars else _FOLLOWED
    steps = np.array(runs[0].numbers["training"]["steps"])
    bundles = [
        ps.figures.Bundle(
            _label(name),
            steps,
            np.array([r.numbers["training"]["curves"][name] for r in runs]),
        )
        for name in followed
    ]
    return ps.figures.curves_beside_nulls(
        bundles,
        x_title="step",
        y_title="share of levels",
        title=f"When the goals are learned ({setting})",
        seen="The first points are the untrained agent.",
        computed=(
            "Held-out levels of each kind, one walk through each, before the update of the step. "
            "'First' is measured where neither goal lies on a shortest path to the other; the "
            "corner is asked for with the cheese not shown, the cheese of agents that start in the "
            "corner."
        ),
        misleads=(
            "An agent that moves at random reaches some goals: compare with the first points. "
            f"{runs[0].config.n_levels_measured} levels give a share to "
            f"{0.5 / runs[0].config.n_levels_measured ** 0.5:.2g} (one standard error at most)."
        ),
    )


def _one_agent(result: Results) -> Figure:
    course, path = result.numbers["training"], result.numbers["policies"]
    followed = _FOLLOWED_STARS if result.config.stars else _FOLLOWED
    steps = np.array(course["steps"])
    learned = [(when[0], goal) for goal, when in course["learned"].items() if when is not None]
    ends = [*sorted(learned), (int(steps[-1]), "")]
    phases, begin, name = [], 0, "before any goal"
    for end, goal in ends:
        if end > begin:
            phases.append(ps.figures.Stretch(name, begin, end))
        begin, name = end, f"{_label(goal)}: learned"
    return ps.figures.goals_over_training(
        steps,
        {_label(goal): np.array(course["curves"][goal]) for goal in followed},
        # The policy is recorded with every measure but the last, at the end.
        steps[:-1],
        [np.array(score) for score in path["scores"]],
        phases,
    )


def _behaviour(runs: Sequence[Results], setting: str) -> Figure:
    groups = {}
    for measure in (name for name in runs[0].numbers["final"] if not name.startswith("hidden")):
        row = {"trained agent": [final(r, measure) for r in runs]}
        for part in PARTS:
            having = [r for r in runs if part in r.numbers["ablations"]]
            row[f"without the {part}"] = _present([after(r, part, measure) for r in having])
        row["untrained agent"] = [untrained(r, measure) for r in runs]
        groups[_label(measure)] = {name: values for name, values in row.items() if values}
    return ps.figures.seed_strips(
        groups,
        x_title="share of levels",
        title=f"What the agent does before and after each ablation ({setting})",
        seen="The trained agent is filled.",
        computed=(
            "Held-out levels of each kind, one walk through each, moves drawn with the same random "
            "numbers for every agent. Ablations at strength 1. Seeds without such components are "
            "left out of their lane."
        ),
        misleads="Says nothing about whether it is these directions: the controls do, below.",
    )


def _profiles(runs: Sequence[Results], setting: str) -> Figure:
    groups: dict[str, dict[str, list[float]]] = {}
    for matrix in ("gradients", "updates"):
        own = [c for r in runs for c in r.numbers["spectra"][matrix]["centers"]]
        rows = {"training": own}
        frozen = runs[0].numbers.get("frozen", {}).get(matrix, {})
        for place in frozen:
            rows[f"frozen policy, {place}"] = [
                c for r in runs for c in r.numbers["frozen"][matrix][place]["centers"]
            ]
        groups[matrix] = rows
    return ps.figures.seed_strips(
        groups,
        x_title="centre of mass (share of the training)",
        title=f"When the leading components act ({setting})",
        seen=(
            "One mark for each of the 10 leading components of each seed; a stroke at the median. "
            "0: the first, 1: the last recorded row."
        ),
        computed=(
            "Centre of mass of the squared time vectors of normalised rows: recorded gradients, "
            "and updates summed over rollouts. Frozen: as many gradients of PPO's loss on new "
            "rollouts of a policy that stands still, and what Adam would have made of them."
        ),
        misleads=(
            "The spread counts, not the place. Components with nearly equal singular values are "
            "arbitrary in their plane, and any drift of a policy spreads them."
        ),
        line=0.5,
    )


def _policies(runs: Sequence[Results], setting: str) -> Figure:
    n = len(runs[0].numbers["policies"]["shares"])
    groups = {
        f"component {i + 1}": {
            "policies": [r.numbers["policies"]["shares"][i] for r in runs],
            "random walks, 2.5%": [r.numbers["policies"]["walks"][0][i] for r in runs],
            "random walks, 97.5%": [r.numbers["policies"]["walks"][2][i] for r in runs],
        }
        for i in range(n)
    }
    return ps.figures.seed_strips(
        groups,
        x_title="share of the variance over training",
        title=f"Principal components of the policies ({setting})",
        seen="Each row is a place of the spectra.",
        computed=(
            "Logarithms of the probabilities of all moves on 128 fixed observations, before the "
            "first update of every recorded rollout, centred over steps; random walks have the "
            "same increments with random signs."
        ),
        misleads="Few components explain most of any walk: only what lies outside says something.",
    )


def _layers(runs: Sequence[Results], setting: str) -> Figure:
    groups = {}
    for layer, first in runs[0].numbers["spectra"]["gradients"]["layers"].items():
        rows = {}
        for matrix in ("gradients", "updates"):
            for when in ("early", "late"):
                values = [r.numbers["spectra"][matrix]["layers"][layer][when] for r in runs]
                rows[f"{when} {matrix}"] = [v for v in values if v is not None]
        groups[layer] = rows | {"share of the parameters": [first["parameters"]] * len(runs)}
    return ps.figures.seed_strips(
        groups,
        x_title="share of the squared length",
        title=f"Where early and late components live ({setting})",
        seen="One mark for each seed: the mean over its early, or late, components.",
        computed="direction_mass of the parameter directions of the leading components.",
        misleads=(
            "A layer with many parameters has a large share of a random direction, namely its "
            "share of the parameters; parameter directions are noisier than time profiles."
        ),
    )


def _distances(runs: Sequence[Results], setting: str) -> Figure:
    groups = {
        name: {
            "seen": [final(r, name) for r in runs],
            "not shown": [final(r, f"hidden {name}") for r in runs],
            "untrained agent": [untrained(r, name) for r in runs],
        }
        for name in _BANDS
        if name in runs[0].numbers["final"]
    }
    return ps.figures.seed_strips(
        groups,
        x_title="share of levels in which the cheese is reached",
        title=f"Success by distance ({setting})",
        seen="Each row is a distance; lanes are the cheese seen and not seen.",
        computed=(
            "Held-out levels with cheese anywhere; near is 4 moves or less, far 8 or more. 'Not "
            "shown': the same levels and the same cheese, which the agent does not see."
        ),
        misleads="Cheese near the corner is met on the way there: compare seen with not shown.",
    )


def _selectivities(runs: Sequence[Results], part: str, setting: str) -> Figure:
    target, spared = _targets(runs, part)
    rows: dict[str, dict[str, list[float]]] = {}
    for title, values in (
        (f"left: {_label(target)}", target),
        (f"left: {_label(spared)}", spared),
    ):
        rows[title] = {"ablation": _present([after(r, part, values) for r in runs])} | {
            control: _present([after(r, part, values, control) for r in runs])
            for control in CONTROLS
        }
    rows["selectivity"] = {
        "ablation": _present([selectivity(r, part, target, spared) for r in runs])
    } | {
        control: _present([selectivity(r, part, target, spared, control) for r in runs])
        for control in CONTROLS
    }
    rows = {title: {k: v for k, v in row.items() if v} for title, row in rows.items()}
    return ps.figures.seed_strips(
        rows,
        x_title="share of levels; selectivity: drop of the first minus drop of the second",
        title=f"Without the {part} ({setting})",
        seen="The ablation is filled.",
        computed=(
            "Strength 1, and controls that move the weights as far. Drops are shares of what "
            "training added to each goal, so that a selectivity of 1 is one goal gone and the "
            "other whole."
        ),
        misleads=(
            "What a shorter training had not learned yet goes first when anything shrinks: compare "
            "with the shrunk displacement and the earlier checkpoint, not with random directions."
        ),
        line=0.0,
    )


def _strengths(runs: Sequence[Results], part: str, setting: str) -> Figure:
    bundles = []
    for measure in _targets(runs, part):
        for control, name in ((None, "ablation"), ("the whole displacement shrunk", "shrunk")):
            rows = []
            for r in runs:
                values = [after(r, part, measure, control, alpha) for alpha in ALPHAS]
                rows.append([final(r, measure), *[np.nan if v is None else v for v in values]])
            label = f"{_label(measure)}, {name}"
            x = np.array([0.0, *ALPHAS])
            bundles.append(ps.figures.Bundle(label, x, np.array(rows), control is not None))
    return ps.figures.curves_beside_nulls(
        bundles,
        x_title="strength α",
        y_title="share of levels",
        title=f"The {part} taken out at growing strength ({setting})",
        seen="0 is the trained agent, 1 without, 2 the opposite.",
        computed="Shrunk: the whole displacement since the start, shortened by the same distance.",
        misleads="Beyond 1 nothing is taken out any more: the opposite is put in.",
    )


def _present(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _label(measure: str) -> str:
    return {
        "corner": "corner, no cheese seen",
        "from the corner": "cheese, from the corner",
        "cheese": "cheese alone",
        "star": "star alone",
    }.get(measure, measure)
