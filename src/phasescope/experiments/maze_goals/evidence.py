"""The statistics of one run that the claims decide on: drops, their selectivity, controls."""

from __future__ import annotations

from typing import Any

from phasescope.experiments.maze_goals.ablations import ALPHAS, CONTROLS
from phasescope.experiments.maze_goals.config import Results
from phasescope.experiments.maze_goals.spectra import separation

CORNER_GOAL, CHEESE_GOAL = "corner", "from the corner"
"""The measures that tell the two goals: the corner without any cheese to be seen, and the cheese
of an agent that starts in the corner."""
_LEAST = 0.05  # excess over the untrained policy below which a goal was not learned


def final(result: Results, measure: str) -> float:
    """A share of the trained agent.

    Args:
        result: A run.
        measure: Name of the share.
    """
    return result.numbers["final"][measure][0]


def untrained(result: Results, measure: str) -> float:
    """The same share of the agent before its training.

    Args:
        result: A run.
        measure: Name of the share.
    """
    return result.numbers["untrained"][measure]


def after(
    result: Results, part: str, measure: str, control: str | None = None, alpha: float = 1.0
) -> float | None:
    """A share after an ablation or one of its controls.

    Args:
        result: A run.
        part: Such as ``"late gradients"``.
        measure: Name of the share.
        control: Name of the control; None: the ablation itself.
        alpha: Its strength.

    Returns:
        The share; that of the trained agent where the run has no such part, so that nothing is
        taken out; None where it has the part and not the control.
    """
    found: dict[str, Any] | None = result.numbers["ablations"].get(part)
    if found is None:
        return final(result, measure)
    rows = found["values"] if control is None else found["controls"].get(control)
    if rows is None:
        return None
    return rows[ALPHAS.index(alpha)][list(result.numbers["final"]).index(measure)]


def drop(
    result: Results, part: str, measure: str, control: str | None = None, alpha: float = 1.0
) -> float | None:
    """How much of what training added to a share is gone: 0 nothing, 1 back to the untrained agent.

    Args:
        result: A run.
        part: Such as ``"late gradients"``.
        measure: Name of the share.
        control: Name of the control; None: the ablation itself.
        alpha: Its strength.

    Returns:
        The drop over what the trained agent has beyond the untrained one (at least .05); None where
        there is no such control.
    """
    left = after(result, part, measure, control, alpha)
    if left is None:
        return None
    before = final(result, measure)
    return (before - left) / max(before - untrained(result, measure), _LEAST)


def selectivity(
    result: Results,
    part: str,
    target: str,
    spared: str,
    control: str | None = None,
    alpha: float = 1.0,
) -> float | None:
    """Drop of one goal minus that of another.

    Args:
        result: A run.
        part: Such as ``"late gradients"``.
        target: The share that should fall.
        spared: The share that should not.
        control: Name of the control; None: the ablation itself.
        alpha: Its strength.

    Returns:
        The difference; None where there is no such control.
    """
    falls = drop(result, part, target, control, alpha)
    stays = drop(result, part, spared, control, alpha)
    return None if falls is None or stays is None else falls - stays


def beyond(result: Results, part: str, target: str, spared: str) -> dict[str, float]:
    """By how much an ablation is more selective than each of its controls, at strength 1.

    Args:
        result: A run.
        part: Such as ``"late gradients"``.
        target: The share that should fall.
        spared: The share that should not.
    """
    own = selectivity(result, part, target, spared)
    differences = {}
    for control in CONTROLS:
        theirs = selectivity(result, part, target, spared, control)
        if own is not None and theirs is not None:
            differences[control] = own - theirs
    return differences


def order(result: Results, first: str, second: str) -> float:
    """Binary logarithm of when the second goal was learned over when the first was.

    A goal that was never learned counts as learned at the last step.

    Args:
        result: A run.
        first: The goal that should come first.
        second: The other.
    """
    import math

    learned, last = result.numbers["training"]["learned"], result.numbers["training"]["steps"][-1]
    times = [last if learned[goal] is None else learned[goal][0] for goal in (first, second)]
    return math.log2(max(times[1], 1) / max(times[0], 1))


def separation_beyond_frozen(result: Results, matrix: str = "gradients") -> float:
    """Spread of the leading components over time, minus the largest of frozen policies.

    Args:
        result: A run.
        matrix: ``"gradients"`` or ``"updates"``.
    """
    own = separation(result.numbers["spectra"][matrix]["centers"])
    frozen = result.numbers["frozen"][matrix].values()
    return own - max(separation(place["centers"]) for place in frozen)


def sought(result: Results, where: str) -> float:
    """How much more often cheese is reached that is seen than the same cheese unseen.

    Args:
        result: A run.
        where: Such as ``"cheese near the corner"``.
    """
    return final(result, where) - final(result, f"hidden {where}")


def later_goal(result: Results) -> tuple[str, str]:
    """The goals of stars and cheese, the one that was learned later first.

    Args:
        result: A run with stars.
    """
    return ("star", "cheese") if order(result, "cheese", "star") >= 0 else ("cheese", "star")
