"""A report about recorded runs: anyone's trainings, no experiment needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phasescope.analysis.gram import gram
from phasescope.analysis.ranks import rank_summary
from phasescope.analysis.spectrum import norm_null, spectrum
from phasescope.figures import norms_over_time, scree, time_vectors, training_curves
from phasescope.report.html import write_report
from phasescope.trajectory.reader import Run, open_run

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def report_runs(runs: Sequence[Path | str], output: Path | str) -> Path:
    """The path of a self-contained HTML report about recorded runs.

    For every run, what was recorded of: loss and accuracy, gradient norms per tensor, and the
    singular values of gradients and of updates with their norm-only null and their time vectors.

    Args:
        runs: Directories of runs.
        output: The file; its folder is made if missing.

    Returns:
        The file.

    Raises:
        ValueError: No run was given.
        RunError: One of them is not a run.

    Example:
        >>> import phasescope as ps, tempfile, torch
        >>> folder = tempfile.mkdtemp()
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with ps.Recorder(folder + "/a", model, optimizer, save={"gradients": ps.every(1)}):
        ...     for x in torch.eye(2):
        ...         model(x).square().sum().backward()
        ...         optimizer.step()
        >>> report_runs([folder + "/a"], folder + "/report.html").name
        'report.html'
    """
    if not runs:
        raise ValueError("report_runs requires at least one run, but got none. Pass its directory.")
    opened = [open_run(path) for path in runs]
    names = [_name(run, opened) for run in opened]
    figures: dict[str, Figure] = {}
    numbers: dict[str, Any] = {}
    for name, run in zip(names, opened, strict=True):
        prefix = f"{name}_" if len(opened) > 1 else ""
        drawn, numbers[name] = _describe(run)
        figures |= {f"{prefix}{key}": figure for key, figure in drawn.items()}
    recorded = "; ".join(
        f"{name}: {run.status}, {run.info['step']} updates, {run.parameters.size:,} parameters"
        for name, run in zip(names, opened, strict=True)
    )
    return write_report(
        output,
        title="Recorded runs" if len(opened) > 1 else f"Run {names[0]}",
        summary=f"{recorded}. No claims: figures and counts describe these runs only.",
        claims=[],
        figures=figures,
        config={name: run.config for name, run in zip(names, opened, strict=True)},
        environment=opened[0].info["environment"],
        numbers=numbers,
    )


def _name(run: Run, runs: Sequence[Run]) -> str:
    """The folder's name; with its parent's where two runs are called the same."""
    name = run.path.resolve().name
    same = sum(other.path.resolve().name == name for other in runs)
    return name if same == 1 else f"{run.path.resolve().parent.name}-{name}"


def _describe(run: Run) -> tuple[dict[str, Figure], dict[str, Any]]:
    figures: dict[str, Figure] = {}
    numbers: dict[str, Any] = {"nonfinite": run.info.get("nonfinite", [])}
    names = run.series_names
    if "metrics/train_loss" in names:
        figures["training"] = _training(run)
    if "norms/gradients" in names and len(run["norms/gradients"]):
        norms = run["norms/gradients"]
        figures["norms"] = norms_over_time(norms.steps, norms[:], run.parameters.names)
    for group in ("gradients", "updates"):
        if group in names and len(run[group]) > 1:
            spectrum_of = spectrum(gram(run[group]))
            figures[f"{group}_scree"] = scree(spectrum_of, norm_null(spectrum_of))
            figures[f"{group}_time_vectors"] = time_vectors(spectrum_of, min(6, len(spectrum_of.S)))
            numbers[f"{group}_ranks"] = rank_summary(spectrum_of).to_dict()
    return figures, numbers


def _training(run: Run) -> Figure:
    loss = run["metrics/train_loss"]
    kept = np.isfinite(loss[:, 0])
    accuracy_name = "metrics/test_accuracy"
    steps, values = np.empty(0, np.int64), np.empty(0, np.float32)
    if accuracy_name in run.series_names:
        accuracy = run[accuracy_name]
        seen = np.isfinite(accuracy[:, 0])
        steps, values = accuracy.steps[seen], accuracy[:, 0][seen]
    return training_curves(loss.steps[kept], loss[:, 0][kept], steps, values)
