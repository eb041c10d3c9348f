"""The figures of one or many runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import phasescope as ps
from phasescope.experiments.low_rank_replay.config import (
    COMPLEMENT,
    DIMENSIONS,
    FROZEN,
    FULL,
    OTHER_ORDER,
    OTHER_START,
    RANDOM,
    TOP,
    Results,
    group_by_setting,
    ks_of,
    random_rows,
    row_of,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Row = Callable[[Results, int], dict[str, Any]]

_BEST = "random k, best rate"
_VARIANTS = (TOP, _BEST, COMPLEMENT, OTHER_ORDER, OTHER_START, FROZEN)
_LOOKS = {TOP: 0, _BEST: 1, RANDOM: 1, COMPLEMENT: 2, OTHER_ORDER: 3, OTHER_START: 4, FROZEN: 5}
_SHOWN_KS = (1, 10, 30, 100, 200)


def figures(results: Sequence[Results]) -> dict[str, Figure]:
    """The figures of every setting.

    Args:
        results: Runs of one or more settings.
    """
    drawn: dict[str, Figure] = {}
    settings = group_by_setting(results)
    for name, runs in settings.items():
        prefix = "" if len(settings) == 1 else f"{name}: "
        drawn |= {
            f"{prefix}online": _by_k(runs, f"Training in k directions ({name})", online=True),
            f"{prefix}offline": _by_k(runs, f"Recorded updates projected ({name})", online=False),
            f"{prefix}spectrum": _spectrum(runs, name),
        }
        with_curves = next((r for r in runs if "curve" in r.numbers["online"][0]), None)
        if with_curves is not None:
            drawn[f"{prefix}steps"] = _over_steps(with_curves, name)
    return drawn


def _by_k(runs: Sequence[Results], title: str, *, online: bool) -> Figure:
    ks = ks_of(runs[0].config)
    variants = _VARIANTS if online else (TOP, RANDOM, *_VARIANTS[2:])
    tried = [d for d in DIMENSIONS if random_rows(runs[0], d)]  # at every learning rate

    def curves(key: str) -> list[ps.figures.DirectionCurve]:
        found = []
        for variant in variants:
            own = tried if variant == _BEST else ks
            found.append(
                _curve(variant, own, runs, lambda r, k, v=variant: _row(r, v, k, key, online))
            )
        return found

    order = "fresh" if online else "original"

    def level(key: str) -> float:
        return float(np.mean([row_of(r, FULL, 0, order=order, online=online)[key] for r in runs]))

    start = float(np.mean([r.numbers["initial"]["test_loss"] for r in runs]))
    how = (
        "Every update is projected on k directions during a new training in a fresh order of the "
        "data: the run's own leading directions (top k), all others (complement), the leading "
        "ones of a run with another order or another initialisation, of gradients at the frozen "
        "initial weights, and random ones at the best of three learning rates."
        if online
        else "The displacement of the recorded training since its start, projected on k "
        "directions, at its end: no new training."
    )
    return ps.figures.curves_by_directions(
        [
            ps.figures.DirectionPanel(
                "test loss (nats)",
                curves("test_loss"),
                {"full training": level("test_loss"), "no training": start},
                log=True,
            ),
            ps.figures.DirectionPanel(
                "test accuracy (share)",
                curves("test_accuracy"),
                {"full training": level("test_accuracy")},
            ),
        ],
        title=title,
        computed=how,
        misleads=(
            "That k directions suffice does not make them necessary: look at the complement. "
            "Directions of another initialisation are other ones for permuted units."
            if online
            else "Weights that no training has visited: a high loss of the projection does not say "
            "that training in the subspace fails."
        ),
    )


def _row(result: Results, variant: str, k: int, key: str, online: bool) -> float:
    """A number of an alternative model; of random ones the best over the learning rates."""
    if variant != _BEST:
        value = row_of(result, variant, k, online=online)[key]
        return np.nan if value is None else value
    values = [row[key] for row in random_rows(result, k) if row[key] is not None]
    return (min if key == "test_loss" else max)(values, default=np.nan)


def _curve(
    name: str, ks: Sequence[int], runs: Sequence[Results], number: Callable[[Results, int], float]
) -> ps.figures.DirectionCurve:
    """A curve over k with its interval over seeds."""
    values = np.array([[number(r, k) for k in ks] for r in runs], dtype=float)
    if len(runs) < 2:
        return ps.figures.DirectionCurve(name, np.array(ks), values, look=_LOOKS[name])
    ends = [
        (column.mean(), column.mean())
        if not np.isfinite(column).all() or np.ptp(column) == 0
        else (ps.interval(column.tolist()).low, ps.interval(column.tolist()).high)
        for column in values.T
    ]
    low, high = np.array(ends).T
    return ps.figures.DirectionCurve(name, np.array(ks), values, low, high, _LOOKS[name])


def _spectrum(runs: Sequence[Results], setting: str) -> Figure:
    """Singular values of the updates, beside what of the displacement and of others they share."""
    ks = ks_of(runs[0].config)
    held = [r.numbers["singular_values"] for r in runs if "singular_values" in r.numbers]
    panels = []
    if held:
        values = np.array(held)
        rank = np.arange(1, values.shape[1] + 1)
        panels.append(
            ps.figures.DirectionPanel(
                "singular value / largest",
                [ps.figures.DirectionCurve(TOP, rank, values, look=_LOOKS[TOP])],
                {"10% of the largest": 0.1},
                log=True,
            )
        )
    captured = [
        _curve(v, ks, runs, lambda r, k, v=v: row_of(r, v, k, online=False)["captured"])
        for v in (TOP, OTHER_ORDER, OTHER_START, FROZEN, RANDOM)
    ]
    overlaps = [
        _curve(v, ks, runs, lambda r, k, v=v: r.numbers["overlap"][v][ks.index(k)])
        for v in (OTHER_ORDER, OTHER_START, FROZEN, RANDOM)
    ]
    panels += [
        ps.figures.DirectionPanel("share of squared displacement", captured),
        ps.figures.DirectionPanel("overlap with top k", overlaps),
    ]
    return ps.figures.curves_by_directions(
        panels,
        title=f"Spectrum, and where the training went ({setting})",
        computed=(
            "Above, singular values of all recorded updates, uncentred; then the share of the "
            "squared length of the displacement since the start that lies in the first k "
            "directions of each source; below, the overlap ‖UVᵀ‖² / k of these with the run's own "
            "first k."
        ),
        misleads=(
            "A large singular value is a direction in which the updates are large, not one in "
            "which they add up: updates that alternate cancel in the displacement."
        ),
    )


def _over_steps(result: Results, setting: str) -> Figure:
    """Loss curves of one run's alternative models."""
    largest = max(ks_of(result.config))
    shown = [k for k in _SHOWN_KS if k <= largest]
    lines = {FULL: row_of(result, FULL, 0)}
    lines |= {f"top {k}": row_of(result, TOP, k) for k in shown}
    lines[f"complement of {largest}"] = row_of(result, COMPLEMENT, largest)
    best = min(
        random_rows(result, largest),
        key=lambda row: np.inf if row["test_loss"] is None else row["test_loss"],
    )
    lines[f"random {largest}, best rate"] = best
    losses = {
        name: np.array([np.nan if v is None else v for v in row["curve"]])
        for name, row in lines.items()
    }
    steps = np.array(result.numbers["steps"])
    title = f"Loss of the alternative models over the training ({setting})"
    return ps.figures.losses_over_steps(steps, losses, reference=FULL, title=title)
