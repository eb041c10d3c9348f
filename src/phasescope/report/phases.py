"""The phases of a recorded run: transitions of its metrics and the parts that moved."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from phasescope.analysis.movers import movers
from phasescope.analysis.transitions import Transition, find_transitions
from phasescope.analysis.updates import update_statistics
from phasescope.trajectory.reader import Run, open_run

if TYPE_CHECKING:
    from rich.table import Table

_FEWEST = 30  # evaluations below which a metric is not searched
_FEWEST_CHANGES = 16
_N_MOVERS = 5


@dataclass(frozen=True)
class RunPhase:
    """One transition of one metric."""

    metric: str
    """The metric; ``log `` in front if its logarithm was searched."""
    transition: Transition
    """When and how much."""
    moved: list[dict[str, Any]] = field(default_factory=list)
    """The components that moved most against their other windows: name, ratio, p-value."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"metric": self.metric, **vars(self.transition), "moved": self.moved}


@dataclass(frozen=True)
class RunPhases:
    """All phases of a run, and what could be looked at."""

    phases: tuple[RunPhase, ...]
    """In the order of their midpoints."""
    searched: tuple[str, ...]
    """Metrics that were long enough."""
    activity: str
    """Where the movement of parts was read from; empty if nothing was recorded."""

    def table(self) -> Table:
        """A line per phase."""
        from rich.table import Table

        table = Table(title="phases")
        for name in (
            "metric",
            "onset",
            "midpoint (95 %)",
            "end",
            "change",
            "evidence",
            "moved most",
        ):
            named = name in ("metric", "moved most")
            # Names are folded, not cut: their ends tell parts of one network from each other.
            table.add_column(name, justify="left" if named else "right", overflow="fold")
        for phase in self.phases:
            x = phase.transition
            middle = f"{x.midpoint:,.0f} ({x.midpoint_low:,.0f} to {x.midpoint_high:,.0f})"
            moved = ", ".join(f"{m['name']} x{m['ratio']:.2g}" for m in phase.moved)
            table.add_row(
                phase.metric,
                f"{x.onset:,.0f}",
                middle,
                f"{x.end:,.0f}",
                f"{x.height:+.3g}",
                f"{x.evidence:.0f}",
                moved or "-",
            )
        return table

    def text(self) -> str:
        """What stands below the table."""
        if not self.searched:
            return f"phases: no metric has {_FEWEST} evaluations; recorder.log(...) records them"
        if not self.phases:
            return f"phases: none in {', '.join(self.searched)}"
        lines = ["evidence: how much the Bayesian information criterion prefers an S-curve"]
        if self.activity:
            lines.append(
                "moved most: squared change per step in the phase over that of other windows, from "
                f"{self.activity}"
            )
        else:
            lines.append(
                "which parts moved is not known: record 'component_norms/updates' or 'weights'"
            )
        return "\n".join(lines)


def run_phases(run: Run | Path | str, *, weights: bool = True) -> RunPhases:
    """Transitions of every metric of a run, with the components that moved during each.

    Positive metrics that span more than a decade are searched in their logarithm. Movement is that
    of recorded component norms of updates, else of norms of every tensor's updates, else of changes
    between recorded weights.

    Args:
        run: A run or its directory.
        weights: Whether changes between recorded weights may be read where no norms of updates were
            recorded; weights are large.

    Returns:
        The phases.

    Raises:
        RunError: It is no run.

    Example:
        >>> import phasescope as ps, tempfile
        >>> folder, model = tempfile.mkdtemp() + "/a", torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        >>> with ps.Recorder(folder, model, optimizer, save={"norms": ps.every(50)}) as recorder:
        ...     for step in range(400):
        ...         recorder.log(loss=1 / (1 + (step / 200) ** 9) + 1e-2 * (-1) ** step)
        ...         model(torch.ones(1, 2)).sum().backward()
        ...         optimizer.step()
        >>> [round(phase.transition.midpoint, -1) for phase in run_phases(folder).phases]
        [200.0]
    """
    run = run if isinstance(run, Run) else open_run(run)
    found: list[tuple[str, Transition]] = []
    searched = []
    for name in run.series_names:
        group, _, metric = name.partition("/")
        if group != "metrics" or run[name].shape[1] != 1:
            continue
        values = torch.from_numpy(run[name][:, 0]).double()
        steps = torch.from_numpy(np.asarray(run[name].steps))
        steps, values = steps[values.isfinite()], values[values.isfinite()]
        if len(values) < _FEWEST:
            continue
        if bool((values > 0).all()) and float(values.max() / values.min()) > 10:
            metric, values = f"log {metric}", values.log()
        try:
            result = find_transitions(steps, values)
        except ValueError:  # too few blocks of logarithmic time
            continue
        searched.append(metric)
        found += [(metric, transition) for transition in result.found]
    activity, names, steps, squares = _activity(run, weights)
    phases = []
    for metric, transition in sorted(found, key=lambda pair: pair[1].midpoint):
        moved = _moved(names, steps, squares, transition) if activity else []
        phases.append(RunPhase(metric, transition, moved))
    return RunPhases(tuple(phases), tuple(searched), activity)


def _activity(run: Run, weights: bool) -> tuple[str, tuple[str, ...], Tensor, Tensor]:
    """Squared change per step of every part, from the best that was recorded."""
    for name in ("component_norms/updates", "norms/updates"):
        if name in run.series_names and len(run[name]) >= _FEWEST_CHANGES:
            series = run[name]
            squares = torch.from_numpy(series[:]).double().square().T
            return name, tuple(series.labels or ()), torch.from_numpy(series.steps), squares
    if weights and "weights" in run.series_names and len(run.weights) > _FEWEST_CHANGES:
        moved = update_statistics(run.weights, components=run.components or None)
        return "weights", moved.names, moved.steps[:-1], moved.per_step
    return "", (), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 0)


def _moved(
    names: tuple[str, ...], steps: Tensor, squares: Tensor, transition: Transition
) -> list[dict[str, Any]]:
    try:
        found = movers(steps, squares, transition.onset, max(transition.end, transition.onset + 1))
    except ValueError:  # nothing was recorded outside of the phase
        return []
    known = found.ratio.nan_to_num(nan=-1.0)
    rows = known.argsort(descending=True)[:_N_MOVERS].tolist()
    return [
        {"name": names[i], "ratio": float(found.ratio[i]), "p_value": float(found.p_value[i])}
        for i in rows
        if float(known[i]) > 0
    ]
