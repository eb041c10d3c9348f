"""What `phasescope analyse` prints of a recorded series."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from phasescope.analysis.gram import Gram, gram
from phasescope.analysis.paths import path_walk_null
from phasescope.analysis.ranks import count_above, rank_summary
from phasescope.analysis.spectrum import spectrum
from phasescope.report.nulls import (
    THRESHOLDS,
    null_counts,
    null_lines,
    null_seconds,
    path_beside_walks,
    too_dear,
)
from phasescope.trajectory.reader import open_run
from phasescope.trajectory.series import Series

if TYPE_CHECKING:
    from rich.table import Table

_ASK = "--nulls yes"
# The Gram matrix takes this share of the progress bar if other nulls follow.
_GRAM_SHARE = 0.05


@dataclass(frozen=True)
class Analysed:
    """Counts and ranks of a series beside its nulls."""

    title: str
    """Run, series and size."""
    rows: dict[str, dict[str, Any]]
    """Counts and ranks of every centring and normalisation."""
    nulls: dict[str, Any]
    """What other nulls leave, or why they were left out."""

    def table(self) -> Table:
        """Counts beside those of the norm-only null, and ranks."""
        from rich.table import Table

        table = Table(title=self.title)
        names = ("", "> 5% (null)", "> 10% (null)", "> 15% (null)", "PR", "stable", "k90", "k99")
        for name in names:
            table.add_column(name, justify="left" if not name else "right", overflow="fold")
        for name, row in self.rows.items():
            pairs = zip(row["counts"], row["null_counts"], strict=True)
            cells = [f"{count} ({null})" for count, null in pairs]
            ranks = [f"{row['participation_ratio']:.1f}", f"{row['stable_rank']:.2f}"]
            table.add_row(name, *cells, *ranks, str(row["k90"]), str(row["k99"]))
        return table

    def _null(self) -> str:
        if "null_counts" in self.nulls:
            return "of random walks of the same increments (median of the draws)"
        return "if the steps had these norms and nothing in common"

    def text(self) -> str:
        """What stands below the table."""
        first = f"null: the count {self._null()}; PR: participation ratio"
        return "\n".join([first, *null_lines(self.nulls)])


def analysed(
    run: Path | str,
    series: str,
    nulls: Literal["auto", "yes", "no"],
    tell: Callable[[float, str], None],
) -> Analysed:
    """Counts and ranks of a recorded series, with what other nulls leave if that is cheap.

    Args:
        run: Directory of the run.
        series: Name of the series.
        nulls: Whether to compute other nulls; "auto" does if it takes less than a minute.
        tell: Called with the fraction that is done and what is done.

    Returns:
        What is printed.

    Raises:
        RunError: It is no run, or has not recorded the series.
        ValueError: A value is not finite.

    Example:
        >>> import phasescope as ps, tempfile, torch
        >>> folder, model = tempfile.mkdtemp() + "/a", torch.nn.Linear(9, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with ps.Recorder(folder, model, optimizer, save={"gradients": ps.every(1)}):
        ...     for x in torch.randn(5, 9):
        ...         model(x).square().sum().backward()
        ...         optimizer.step()
        >>> sorted(analysed(folder, "gradients", "no", lambda share, what: None).rows)[0]
        'centred'
    """
    recorded = open_run(run)[series]
    share = 1.0 if nulls == "no" else _GRAM_SHARE
    start = time.perf_counter()
    matrix = gram(recorded, progress=lambda done: tell(share * done, "Gram matrix"))
    seconds = null_seconds(time.perf_counter() - start)
    others: dict[str, Any] = {"skipped": f"not asked for ({_ASK})"}
    if nulls != "no":
        why = too_dear(seconds if nulls == "auto" else 0.0, len(recorded), _ASK)
        others = _other_nulls(
            recorded, matrix, series, why, lambda s, what: tell(share + (1 - share) * s, what)
        )
    walks = others.get("null_counts")
    rows = {
        f"{'centred' if center == 'steps' else 'raw'}{', steps normalised' if unit else ''}": (
            rank_summary(spectrum(matrix, center=center, normalize=unit), THRESHOLDS).to_dict()
        )
        # Points of a path have no direction of their own to normalise.
        for unit in ((False,) if walks else (False, True))
        for center in ("none", "steps")
    }
    for name, counts in (walks or {}).items():
        rows[name]["null_counts"] = counts
    T, P = recorded.shape
    return Analysed(f"{run} {series}: {T} steps x {P:,} columns", rows, others)


def _other_nulls(
    recorded: Series,
    matrix: Gram,
    series: str,
    why: str | None,
    tell: Callable[[float, str], None],
) -> dict[str, Any]:
    """Random signs and whitened noise, or random walks beside a path; or why not."""
    try:
        if series.startswith(("weights", "probes")):
            path = gram(recorded, dtype=torch.float64)
            _, centred, numbers = path_beside_walks(path)
            walks = {"raw": path_walk_null(path, center="none"), "centred": centred}
            counts = {n: [count_above(w.S, t) for t in THRESHOLDS] for n, w in walks.items()}
            return numbers | {"null_counts": counts}
        if why is None:
            return null_counts(recorded, matrix, progress=tell).to_dict()
    except ValueError as error:  # such as a step without norm: the table stands
        why = str(error)
    return {"skipped": why}
